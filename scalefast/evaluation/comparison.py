"""SCALE against the best of its baselines, as numbers and in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scalefast.evaluation.baselines import BASELINES, TITLES, TRAINED_BASELINES
from scalefast.evaluation.bootstrap import bootstrap_interval, sign_flip_p_value

__all__ = [
    "PROTOCOL_NAMES",
    "RIVALS",
    "Difference",
    "best_baseline",
    "by_measure",
    "our_column",
    "summary",
    "verdict",
]

PROTOCOL_NAMES = {
    "knn": "k-NN",
    "linear": "linear",
    "linear_clips": "linear, per clip",
    **{f"low_shot_{share}pct": f"low-shot {share}%" for share in (1, 5, 10, 25)},
    **{f"low_shot_{count}_per_class": f"low-shot {count} a class" for count in (1, 5, 10)},
    **{f"retrieval_r{rank}": f"retrieval R@{rank}" for rank in (1, 5, 10, 20)},
    "clustering_nmi": "clustering NMI",
    "clustering_ari": "clustering ARI",
    "nonlinear": "nonlinear",
    "attention": "attention pooling",
    "attentive": "attentive probe",
    "authors": "authors' (optimistic)",
    "regression": "regression, R2",
}
"""What tables and sentences call the rows of results.json."""

_MEASURES = {"retrieval": "recall", "clustering_nmi": "NMI", "clustering_ari": "ARI", "regression": "R2"}
"""How the names of protocols begin whose numbers are no accuracies -> what they are."""

RIVALS = (*BASELINES, *TRAINED_BASELINES)
"""All columns that SCALE has to beat."""

SIGNIFICANT = 0.05
"""p-value below which a difference counts as one."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Accuracy of one representation less that of another, on the same test videos."""

    value: float
    """In [-1, 1]."""
    low: float
    """Lower end of the 95% interval, paired: percentile bootstrap over test videos, of a clustering the jackknife's."""
    high: float
    """Upper end."""
    p_value: float | None = None
    """Two-sided, of the paired sign-flip test (McNemar's exact test where a video is right or wrong); of a clustering
    the normal one by the jackknife's error."""
    ours: str = "recommended"
    """The representation that speaks for SCALE."""
    theirs: str = "mean"
    """The baseline with the highest accuracy."""

    @classmethod
    def paired(
        cls,
        ours: Tensor,
        theirs: Tensor,
        *,
        names: tuple[str, str] = ("recommended", "mean"),
        seed: int = 0,
        strata: Sequence[int] | None = None,
    ) -> Difference:
        """From the score of every test video under each: two bool or floating `[M]`.

        Args:
            ours, theirs: the scores.
            names: of the two representations.
            seed: of the draws.
            strata: sizes of consecutive parts of the videos that count the same (test sets of several splits).
        """
        gain = ours.double() - theirs.double()
        parts = gain.split(list(strata)) if strata is not None else (gain,)
        low, high = bootstrap_interval(gain, seed=seed, strata=strata)
        return cls(
            value=sum(part.mean().item() for part in parts) / len(parts),
            low=low if math.isfinite(low) else -1.0,
            high=high if math.isfinite(high) else 1.0,
            p_value=sign_flip_p_value(torch.cat([part / len(part) for part in parts]), seed=seed),
            ours=names[0],
            theirs=names[1],
        )

    @property
    def side(self) -> int:
        """1 where SCALE is better beyond chance, -1 where it is worse, 0 where one cannot tell."""
        if self.p_value is not None and self.p_value >= SIGNIFICANT:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def by_measure(protocols: Iterable[str]) -> dict[str, list[str]]:
    """`{measure: protocols}`, the heads of a table and the rows below each, both in the order of the protocols.

    All are shown in percent: "accuracy", "recall" (queries with their class among the nearest), "NMI", "ARI", "R2".
    """
    groups: dict[str, list[str]] = {}
    for protocol in protocols:
        named = (measure for start, measure in _MEASURES.items() if protocol.startswith(start))
        groups.setdefault(next(named, "accuracy"), []).append(protocol)
    return groups


def our_column(row: Mapping[str, float]) -> str:
    """The column that speaks for SCALE: the recommended representation, or the one that the protocol has."""
    return next((name for name in ("recommended", "finetuned", "clip_cls") if name in row), "ensemble")


def best_baseline(row: Mapping[str, float]) -> str:
    """The baseline with the highest accuracy, the first among equals.

    It is the highest on the test videos themselves, so it has had luck on its side, and SCALE has not.
    """
    return max((name for name in RIVALS if name in row), key=row.__getitem__)


def verdict(protocol: str, row: Mapping[str, float], difference: Difference | None = None) -> str:
    """SCALE against the best baseline, in one sentence.

    Args:
        protocol: name of the protocol.
        row: accuracies by representation: one of SCALE's and at least one baseline.
        difference: with its interval, where it is known.
    """
    name = PROTOCOL_NAMES.get(protocol, protocol)
    ours, theirs = our_column(row), best_baseline(row)
    gap = 100 * (row[ours] - row[theirs])
    side = "equal to" if abs(gap) < 0.05 else f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}"
    rivals = sum(other in row for other in RIVALS)
    best = f", the best of {rivals} baselines" if rivals > 1 else ""
    text = (
        f"{name}: {TITLES[ours]} is {side} {TITLES[theirs]}{best}, "
        f"{100 * row[ours]:.1f}% against {100 * row[theirs]:.1f}%"
    )
    if difference is None or not math.isfinite(difference.low):
        return text + "."
    interval = f"95% interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
    chance = "" if difference.p_value is None else f", p {_p_text(difference.p_value)}"
    clear = "" if difference.side else ", so the test videos are too few to tell them apart"
    return f"{text} ({interval}{chance}{clear})."


def summary(differences: Mapping[str, Difference]) -> str:
    """Whether SCALE is worth it on these videos, in one line; empty where nothing is known.

    The row `authors` has no part in it: there the test videos have chosen.
    """
    honest = {name: found for name, found in differences.items() if name != "authors"}
    says = {1: "better than every baseline", -1: "worse than the best baseline", 0: "not told apart from it"}
    parts: list[str] = []
    for side, words in says.items():
        names = [PROTOCOL_NAMES.get(name, name) for name, found in honest.items() if found.side == side]
        if names:
            which = words if side or parts else "not told apart from the best baseline"
            parts.append(f"{which} under {_listed(names)}")
    return f"On these videos SCALE is {'; '.join(parts)}." if parts else ""


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _p_text(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
