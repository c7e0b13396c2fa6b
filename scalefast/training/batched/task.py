"""`SCALEPretraining` of several models of one shape at once: every product is one of stacked weights.

What differs between the models is data: weights, temperature, mask, weights of the losses, and the seed and dropout by
cohorts. Whatever has no weights (views, attention, dropout) goes through the same ops as one model's, the models' sets
one behind the other.

Shapes: `G` models, `g` of a cohort, `S` sets of the batch, two a video, `V` clips a set, `N` = 1 + V tokens, `D`
feature, `H` width, `P` projection, `C` rows kept for masked clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from scalefast import kernels
from scalefast.kernels import RandomState
from scalefast.kernels.ops.philox import Site, dropout
from scalefast.objective import koleo, variance_covariance
from scalefast.pretraining import SCALEPretraining
from scalefast.training.batched.contrast import contrast

__all__ = ["Drawn", "StackedTask"]

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a cohort, neighbouring models of one seed and one dropout, sees in a step."""

    models: slice
    """Which models."""
    inputs: Tensor
    """[S, V, D], as the first layer sees them."""
    positions: Tensor
    """[S, V, 7], likewise."""
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
            for name in ("set_weight", "mcm_weight", "variance_weight", "koleo_weight")
        }
        self._uses = {name for name, values in self._factors.items() if bool(values.any())}

    def losses(self, w: Weights, drawn: Sequence[Drawn]) -> Tensor:
        """[6, G]: the fields of `PretrainingLosses`, in their order, of every model."""
        inputs = _spread([(d.inputs.flatten(0, 1), d.count) for d in drawn])
        positions = _spread([(d.positions.flatten(0, 1), d.count) for d in drawn])
        masks = torch.cat([d.masks for d in drawn])
        tokens = self._tokens(w, inputs, positions, masks, drawn)
        mcm_loss, mcm_accuracy, overflow = self._mcm(w, tokens, inputs, masks, drawn)
        cls = tokens[:, :, 0]
        set_loss, set_accuracy = self._set(w, cls)
        loss = self._total(mcm_loss, set_loss, cls.unflatten(1, (-1, 2)))
        return torch.stack([loss, mcm_loss, set_loss, mcm_accuracy, set_accuracy, overflow.to(loss.dtype)])

    def _tokens(
        self, w: Weights, inputs: Tensor, positions: Tensor, masks: Tensor, drawn: Sequence[Drawn]
    ) -> Tensor:
        """[G, S, N, H]: CLS and refined clips."""
        x = _linear(w, "model.input_projection", inputs)
        hidden = F.relu(_linear(w, "model.position_mlp.0", positions))
        place = _linear(w, "model.position_mlp.2", hidden)
        mask_token, cls = (
            w[f"model.{name}_token"][:, None, None].to(x.dtype) for name in ("mask", "cls")
        )  # [G, 1, 1, H]
        x, place = (part.unflatten(1, masks.shape[1:]) for part in (x, place.to(x.dtype)))
        x = torch.where(masks[..., None], mask_token, x) + place
        x = torch.cat([cls.expand(-1, x.shape[1], -1, -1), x], dim=2)
        for layer in range(self._model.num_layers):
            x = self._block(w, layer, x, drawn)
        return _norm(w, "model.norm", x)

    def _block(self, w: Weights, layer: int, x: Tensor, drawn: Sequence[Drawn]) -> Tensor:
        name, heads = f"model.blocks.{layer}", self._model.num_heads

        def attend(part: Tensor, rng: RandomState | None, p: float) -> Tensor:
            qkv = part.unflatten(-1, (3, heads, -1))
            return kernels.set_attention_qkv(qkv, dropout_p=p, rng=rng).flatten(2)

        def drop(x: Tensor, site: Site) -> Tensor:
            def one(part: Tensor, rng: RandomState | None, p: float) -> Tensor:
                return part if rng is None else dropout(part, rng, site=site, p=p)

            return self._each(x, drawn, layer, one)

        qkv = _linear(w, f"{name}.qkv", _norm(w, f"{name}.norm1", x))
        attended = _linear(w, f"{name}.projection", self._each(qkv, drawn, layer, attend))
        x = x + drop(attended, Site.PROJECTION_DROPOUT)
        hidden = drop(F.gelu(_linear(w, f"{name}.fc1", _norm(w, f"{name}.norm2", x))), Site.HIDDEN_DROPOUT)
        return x + drop(_linear(w, f"{name}.fc2", hidden), Site.OUTPUT_DROPOUT)

    def _each(
        self,
        x: Tensor,
        drawn: Sequence[Drawn],
        layer: int,
        act: Callable[[Tensor, RandomState | None, float], Tensor],
    ) -> Tensor:
        """`act` on each cohort's part of [G, S, N, W], as [g S, N, W]."""
        done = []
        for cohort in drawn:
            p = self._tasks[cohort.models.start].model.dropout
            rng = cohort.rng.at_layer(layer) if p > 0 else None
            part = act(x[cohort.models].flatten(0, 1), rng, p)
            done.append(part.unflatten(0, (cohort.count, -1)))
        return done[0] if len(done) == 1 else torch.cat(done)

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

    def _set(self, w: Weights, cls: Tensor) -> tuple[Tensor, Tensor]:
        first, second = _unit(_mlp(w, "set_head", cls, layers=2)).unflatten(1, (-1, 2)).unbind(2)
        own = torch.arange(first.shape[1], device=cls.device).expand(first.shape[:2])
        both = [
            contrast(query, key, own, temperatures=self._temperatures).means()
            for query, key in ((first, second), (second, first))
        ]
        loss, accuracy = (0.5 * (forth + back) for forth, back in zip(*both, strict=True))
        return loss, accuracy

    def _total(self, mcm: Tensor, between: Tensor, cls: Tensor) -> Tensor:
        """`cls` [G, B, 2, H]."""
        terms = {"set_weight": between, "mcm_weight": mcm}
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


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    """[G, ..., I] -> [G, ..., O]."""
    rows = x.flatten(1, -2)
    weight, bias = w[f"{name}.weight"].mT, w.get(f"{name}.bias")
    out = torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias[:, None], rows, weight)
    return out.unflatten(1, x.shape[1:-1]) if x.ndim > 3 else out


def _norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """LayerNorm of [G, S, N, H]."""
    scale, shift = (w[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]).to(scale.dtype), scale).to(x.dtype)


def _mlp(w: Weights, name: str, x: Tensor, *, layers: int) -> Tensor:
    """Bias-free GELU MLP of [G, R, W]."""
    for layer in range(layers):
        x = _linear(w, f"{name}.{2 * layer}", F.gelu(x) if layer else x)
    return x


def _unit(rows: Tensor) -> Tensor:
    """Of length 1, in fp32 at least, as for one model."""
    return F.normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=-1)
