"""Cards as HTML, with the film strips of the report."""

from __future__ import annotations

from html import escape

from scalefast.app.browsing import Card
from scalefast.report.thumbnails import FRAMES

__all__ = ["CSS", "card_html"]

CSS = f"""
.film {{ overflow: hidden; border-radius: 6px; aspect-ratio: 1; background: #e8ecf0; }}
.film img {{ width: {100 * FRAMES}%; max-width: none; display: block; margin: 0;
  animation: play 1.8s steps({FRAMES}) infinite; }}
@keyframes play {{ to {{ transform: translateX(-100%); }} }}
@media (prefers-reduced-motion: reduce) {{ .film img {{ animation: none; }} }}
.card {{ font-size: 13px; line-height: 1.4; }}
.card .head {{ display: flex; justify-content: space-between; font-weight: 600; margin-top: 6px; gap: 8px; }}
.card .when {{ color: #5d6875; font-variant-numeric: tabular-nums; }}
.card .id {{ color: #5d6875; font-size: 11px; overflow-wrap: anywhere; }}
.card .bar {{ height: 4px; border-radius: 2px; background: #e3e8ee; margin: 4px 0; }}
.card .bar span {{ display: block; height: 100%; border-radius: 2px; background: #2f62a8; }}
"""
"""Style of the cards."""


def card_html(card: Card) -> str:
    """One video: its film strip, class, similarity, the seconds that are alike, and its id."""
    picture = (
        f'<img src="{card.picture}" alt="frames of {escape(card.name, quote=True)}">' if card.picture else ""
    )
    similar = "" if card.similarity is None else f"<span>{card.similarity:.3f}</span>"
    filled = max(card.similarity or 0.0, 0.0)
    bar = (
        ""
        if card.similarity is None
        else f'<div class="bar"><span style="width:{100 * filled:.1f}%"></span></div>'
    )
    return (
        f'<div class="card"><div class="film">{picture}</div>'
        f'<div class="head"><span>{escape(card.label or "")}</span>{similar}</div>{bar}'
        f'<div class="when">{escape(_when(card))}</div><div class="id">{escape(card.name)}</div></div>'
    )


def _when(card: Card) -> str:
    if card.moment is None:
        return ""
    moment = card.moment
    there = "" if moment.query_start is None else f", like {moment.query_start:.1f}-{moment.query_end:.1f} s"
    return f"{moment.start:.1f}-{moment.end:.1f} s{there}"
