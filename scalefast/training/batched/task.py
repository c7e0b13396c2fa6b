"""`SCALEPretraining` of several models of one shape at once: every product is one of stacked weights.

What differs between the models is data: weights, temperature, mask, weights of the losses, and the seed and dropout by
cohorts. `encoder.py` has SCALE itself.

Shapes: `G` models, `g` of a cohort, `S` sets of the batch, two a video, `V` clips a set, `N` = 1 + V tokens, `D`
feature, `H` width, `P` projection, `C` rows kept for masked clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from scalefast import kernels
from scalefast.kernels import RandomState
from scalefast.objective import koleo, variance_covariance
from scalefast.parts import TIME_MOMENTS
from scalefast.pretraining import SCALEPretraining
from scalefast.time_moments import apply_fit, fit_weights
from scalefast.training.batched.contrast import contrast
from scalefast.training.batched.encoder import Cohort, Weights, encode, linear

__all__ = ["Drawn", "StackedTask"]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a cohort, neighbouring models of one seed and one dropout, sees in a step."""

    models: slice
    """Which models."""
    inputs: Tensor
    """[S, V, D], as the first layer sees them."""
    positions: Tensor
    """[S, V, 7], likewise."""
    places: Tensor
    """[S, V, 7], as they are."""
    masks: Tensor
    """Bool [g, S, V]."""
    rng: RandomState
    """One row for each of the g S sets of these models; equal ones draw the same."""

    @property
    def count(self) -> int:
        """g."""
        return len(self.masks)


class StackedTask:
    """The losses of several tasks, which differ in nothing that decides a shape or what is computed.

    Args:
        tasks: of which the first says what all have in common; target "ema" is not served.
    """

    def __init__(self, tasks: Sequence[SCALEPretraining]) -> None:
        self._tasks, first = tasks, tasks[0]
        assert first.objective.target != "ema"
        self._model, self._objective = first.model, first.objective
        self._temperatures = [task.temperature for task in tasks]
        self._ratio = max(task.mask_ratio for task in tasks)
        device = first.model.cls_token.device
        self._factors = {
            name: torch.tensor(
                [getattr(t.objective, name) for t in tasks], dtype=torch.float64, device=device
            )
            for name in ("set_weight", "mcm_weight", "time_weight", "variance_weight", "koleo_weight")
        }
        self._uses = {name for name in self._factors if any(getattr(t.objective, name) for t in tasks)}

    def losses(self, w: Weights, drawn: Sequence[Drawn]) -> Tensor:
        """[8, G]: the fields of `PretrainingLosses`, in their order, of every model."""
        inputs = _spread([(d.inputs.flatten(0, 1), d.count) for d in drawn])
        positions = _spread([(d.positions.flatten(0, 1), d.count) for d in drawn])
        masks = torch.cat([d.masks for d in drawn])
        tokens = encode(
            w, self._model, inputs, positions, masks=masks, cohorts=[self._cohort(d) for d in drawn]
        )
        mcm_loss, mcm_accuracy, overflow = self._mcm(w, tokens, inputs, masks, drawn)
        cls = tokens[:, :, 0]
        set_loss, set_accuracy = self._match(_mlp(w, "set_head", cls, layers=2))
        time_loss, time_accuracy = self._time(w, tokens[:, :, 1:], drawn)
        losses = (mcm_loss, set_loss, time_loss)
        loss = self._total(*losses, cls.unflatten(1, (-1, 2)))
        accuracies = (mcm_accuracy, set_accuracy, time_accuracy)
        return torch.stack([loss, *losses, *accuracies, overflow.to(loss.dtype)])

    def _cohort(self, drawn: Drawn) -> Cohort:
        return Cohort(drawn.models, drawn.rng, self._tasks[drawn.models.start].model.dropout)

    def _mcm(
        self, w: Weights, tokens: Tensor, inputs: Tensor, masks: Tensor, drawn: Sequence[Drawn]
    ) -> tuple[Tensor, Tensor, Tensor]:
        clips, flat = masks.shape[2], masks.flatten(1)
        # As for one model: a static number of rows on a GPU, about as many as are masked on a CPU.
        if tokens.is_cuda:
            capacity = kernels.default_capacity(flat.shape[1], probability=self._ratio)
        else:
            unit = max(1, flat.shape[1] // 32)
            capacity = max(-(-int(flat.sum(1).max()) // unit), 1) * unit
        index = torch.argsort((~flat).to(torch.uint8), dim=1, stable=True)[:, :capacity]
        place = index + index // clips + 1  # CLS stands before the clips of every set
        rows = tokens.flatten(1, 2).gather(1, place[..., None].expand(-1, -1, tokens.shape[-1]))
        positives = torch.where(flat.gather(1, index), index, -1)
        if self._objective.target == "fixed":  # drawn by the seed alone: one for all models of a cohort
            heads = [
                (self._tasks[d.models.start].target_head(d.inputs.flatten(0, 1)), d.count) for d in drawn
            ]
            targets = _spread([(_unit(target), count) for target, count in heads])
        else:
            targets = _unit(_mlp(w, "target_head", inputs, layers=3))
        queries = _unit(_mlp(w, "prediction_head", rows, layers=2))
        span = 2 * clips if self._objective.same_video == "exclude" else None
        found = contrast(queries, targets, positives, temperatures=self._temperatures, span=span)
        return *found.means(), flat.sum(1) > capacity

    def _time(self, w: Weights, clips: Tensor, drawn: Sequence[Drawn]) -> tuple[Tensor, Tensor]:
        if "time_weight" not in self._uses:
            zero = clips.new_zeros(len(clips), dtype=torch.promote_types(clips.dtype, torch.float32))
            return zero, zero
        fits = _spread([(fit_weights(d.places, count=TIME_MOMENTS).flatten(0, 1), d.count) for d in drawn])
        course = apply_fit(fits.unflatten(1, (-1, TIME_MOMENTS)), clips)
        return self._match(_mlp(w, "time_head", course.flatten(2), layers=2))

    def _match(self, sets: Tensor) -> tuple[Tensor, Tensor]:
        """Projections of sets [G, S, P], of which each has to find the other one of its video."""
        first, second = _unit(sets).unflatten(1, (-1, 2)).unbind(2)
        own = torch.arange(first.shape[1], device=sets.device).expand(first.shape[:2])
        both = [
            contrast(query, key, own, temperatures=self._temperatures).means()
            for query, key in ((first, second), (second, first))
        ]
        loss, accuracy = (0.5 * (forth + back) for forth, back in zip(*both, strict=True))
        return loss, accuracy

    def _total(self, mcm: Tensor, between: Tensor, time: Tensor, cls: Tensor) -> Tensor:
        """`cls` [G, B, 2, H]."""
        terms = {"set_weight": between, "mcm_weight": mcm}
        if "time_weight" in self._uses:
            terms["time_weight"] = time
        if "variance_weight" in self._uses:
            terms["variance_weight"] = variance_covariance(cls.flatten(1, 2))
        if "koleo_weight" in self._uses:
            terms["koleo_weight"] = koleo(cls[:, :, 0])
        loss = torch.zeros_like(mcm)
        for name, term in terms.items():
            loss = loss + self._factors[name].to(mcm.dtype) * term
        return loss


def _spread(parts: Sequence[tuple[Tensor, int]]) -> Tensor:
    """Each cohort's [R, W] for each of its models: [G, R, W]; of one cohort without a copy."""
    spread = [part.expand(count, *part.shape) for part, count in parts]
    return spread[0] if len(spread) == 1 else torch.cat(spread)


def _mlp(w: Weights, name: str, x: Tensor, *, layers: int) -> Tensor:
    """Bias-free GELU MLP of [G, R, W]."""
    for layer in range(layers):
        x = linear(w, f"{name}.{2 * layer}", F.gelu(x) if layer else x)
    return x


def _unit(rows: Tensor) -> Tensor:
    """Of length 1, in fp32 at least, as for one model."""
    return F.normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=-1)
