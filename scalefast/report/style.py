"""Style sheet of the report: no fonts or images from elsewhere, readable on a screen and on paper."""

from __future__ import annotations

from scalefast.report.drawing import FONT, drawing_css
from scalefast.report.thumbnails import FRAMES

__all__ = ["CSS"]

CSS = f"""
:root {{ color-scheme: light; --ink: #1d2530; --soft: #5d6875; --rule: #dde2e8; --panel: #f6f8fa;
  --ours: #2f62a8; --good: #23733c; --bad: #b3391f; --unclear: #7a6212; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #fff; color: var(--ink); line-height: 1.5; font-size: 15px; font-family: {FONT}; }}
main {{ max-width: 1120px; margin: 0 auto; padding: 36px 24px 64px; }}
h1 {{ font-size: 27px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; }}
h2 {{ font-size: 19px; margin: 48px 0 8px; padding-top: 16px; border-top: 1px solid var(--rule); }}
h3 {{ font-size: 14px; margin: 0 0 6px; font-weight: 600; }}
p {{ margin: 6px 0 12px; max-width: 84ch; }}
.soft, .caption {{ color: var(--soft); }}
.caption {{ font-size: 13.5px; }}
.summary {{ font-size: 18px; font-weight: 600; margin: 18px 0 12px; line-height: 1.4; }}
.verdict {{ list-style: none; margin: 14px 0 8px; padding: 0; display: grid; gap: 8px; }}
.verdict li {{ padding: 10px 14px; background: var(--panel); border-left: 4px solid var(--unclear);
  border-radius: 3px; }}
.verdict li.good {{ border-color: var(--good); }}
.verdict li.bad {{ border-color: var(--bad); }}
.notes {{ margin: 8px 0; padding-left: 20px; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 12px 0; font-variant-numeric: tabular-nums; font-size: 14px; }}
th, td {{ padding: 6px 9px; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }}
th {{ font-weight: 600; font-size: 13px; vertical-align: bottom; white-space: normal; min-width: 62px; }}
tr:first-child > th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
th.group {{ text-align: center; border-bottom: 1px solid var(--ink); }}
td.main {{ font-weight: 600; }}
td.ours {{ color: var(--ours); }}
th.words, td.words {{ text-align: left; }}
td .interval {{ color: var(--soft); font-size: 12px; font-weight: 400; }}
figure {{ margin: 0; }}
svg {{ width: 100%; height: auto; display: block; }}
.sheet {{ position: relative; }}
.wide {{ max-width: 900px; margin: 12px 0 20px; overflow-x: auto; }}
.wide .sheet {{ min-width: 560px; }}
.matrix {{ margin: 16px 0; }}
.pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 24px; margin: 14px 0; }}
.map svg {{ background: var(--panel); border-radius: 4px; }}
.spot {{ position: absolute; width: 14px; height: 14px; margin: -7px 0 0 -7px; border-radius: 50%; }}
.spot:hover {{ z-index: 2; box-shadow: 0 0 0 2px var(--ink); }}
.tip {{ display: none; position: absolute; width: 140px; padding: 7px; background: #fff; border-radius: 5px;
  box-shadow: 0 2px 14px rgb(20 30 45 / 28%); font-size: 11.5px; line-height: 1.35; overflow-wrap: anywhere;
  pointer-events: none; }}
.spot:hover .tip {{ display: block; }}
.tip.left {{ left: 18px; }}
.tip.right {{ right: 18px; }}
.tip.down {{ top: 0; }}
.tip.up {{ bottom: 0; }}
.tip img {{ width: 100%; display: block; border-radius: 3px; margin-bottom: 4px; }}
text {{ font-variant-numeric: tabular-nums; }}
{drawing_css()}
.dot:hover {{ stroke: var(--ink); stroke-width: 1.5; }}
.cell:hover {{ stroke: var(--ink); stroke-width: 1.2; }}
.legend {{ list-style: none; margin: 6px 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 16px;
  font-size: 13px; }}
.legend .key {{ display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 6px; }}
.query {{ display: grid; grid-template-columns: 150px 1fr; gap: 6px 24px; padding: 16px 0;
  border-bottom: 1px solid var(--rule); break-inside: avoid; }}
.row {{ display: grid; grid-template-columns: 92px repeat(5, minmax(0, 1fr)); gap: 10px; align-items: start;
  margin-bottom: 10px; }}
.row > .name {{ font-size: 13px; color: var(--soft); padding-top: 4px; }}
.tile {{ font-size: 12px; line-height: 1.35; min-width: 0; border-top: 3px solid var(--rule); padding-top: 4px; }}
.tile.same {{ border-color: var(--good); }}
.tile.other {{ border-color: var(--bad); }}
.tile.same .mark {{ color: var(--good); }}
.tile.other .mark {{ color: var(--bad); }}
.film {{ overflow: hidden; border-radius: 3px; margin-bottom: 3px; max-width: 132px; aspect-ratio: 1; }}
.film img {{ width: {100 * FRAMES}%; display: block; animation: play 2.4s steps({FRAMES}) infinite; }}
@keyframes play {{ to {{ transform: translateX(-100%); }} }}
.tile .head {{ display: flex; justify-content: space-between; font-variant-numeric: tabular-nums;
  max-width: 132px; }}
.tile .mark {{ font-weight: 700; }}
.tile .class {{ overflow-wrap: anywhere; }}
.tile .id {{ color: var(--soft); font-size: 10.5px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }}
.tile .remark {{ color: var(--bad); margin-top: 3px; }}
dl {{ display: grid; grid-template-columns: 190px 1fr; gap: 4px 18px; margin: 10px 0; font-size: 13.5px; }}
dt {{ color: var(--soft); }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
@media (max-width: 700px) {{
  .query {{ grid-template-columns: 1fr; }}
  .row {{ grid-template-columns: repeat(3, 1fr); }}
  .row > .name {{ grid-column: 1 / -1; }}
  dl {{ grid-template-columns: 1fr; }}
  dt {{ margin-top: 6px; }}
}}
@media (prefers-reduced-motion: reduce) {{ .film img {{ animation: none; }} }}
@media print {{ main {{ max-width: none; padding: 0; }} h2 {{ break-after: avoid; }} .film img {{ animation: none; }} }}
"""
