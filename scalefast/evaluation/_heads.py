"""Classifiers that are trained by gradient descent on the clips of a video, each from sets to logits.

Every head takes `tokens [B, V, W]`, `positions [B, V, 7]`, `lengths [B]` (clips of each set, the rest is padding)
and a state for dropout, and gives logits `[B, V, C]` a clip or `[B, 1, C]` a video.

Legend: `B` videos, `V` clips, `W` width of a clip's features, `D` backbone feature, `H` SCALE's width, `C` classes;
of heads trained at once `K` columns, `P` trainings of each, `G` = K P heads.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefast._linear import Linear
from scalefast.kernels import RandomState
from scalefast.model import padding
from scalefast.training.batched.encoder import Cohort, encode

if TYPE_CHECKING:
    from scalefast.model import SCALE

__all__ = ["AttentionPooling", "AttentiveProbe", "ClipLinear", "ClipMLP", "Head", "ScaleClassifier"]

MLP_WIDTHS = (2048, 2048, 512)
"""The paper's MLP baseline."""


class Head(nn.Module):
    """Standardises clip features by the training clips, so that one range of learning rates fits all backbones."""

    by_clip: ClassVar[bool] = True
    """Whether its layers see every clip, or what stands for a video."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        rows = rows if rows.dtype == torch.float64 else rows.float()
        mean, scale = rows.mean(0), rows.std(0, unbiased=False)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale.masked_fill(scale <= 1e-6 * (1 + mean.abs()), 1.0))

    def standardised(self, tokens: Tensor) -> Tensor:
        """`[B, V, W]`, each column with mean 0 and deviation 1 over the training clips."""
        assert isinstance(self.mean, Tensor) and isinstance(self.scale, Tensor)
        return (tokens - self.mean) / self.scale

    def shape(self) -> Hashable:
        """Equal for heads that can be trained at once."""
        return type(self), *((name, parameter.shape) for name, parameter in self.named_parameters())

    @classmethod
    def stacked(
        cls,
        columns: Sequence[Head],
        weights: Mapping[str, Tensor],
        tokens: Tensor,
        positions: Tensor,
        lengths: Tensor,
        rng: RandomState,
    ) -> Tensor:
        """The logits of several heads at once: `[K, P, B, V, C]`, or `[K, P, B, 1, C]`.

        Args:
            columns: one head of each column, in training mode, for what is not trained.
            weights: `{name: [G, *shape]}`, the P trainings of a column one behind the other.
            tokens: `[K, B, V, W]`.
            positions, lengths, rng: as in `forward`, the same for all.
        """
        first = columns[0]
        fixed = [dict(head.named_buffers()) for head in columns]
        buffers = {name: torch.stack([own[name] for own in fixed]) for name in fixed[0]}
        trained = {name: weight.unflatten(0, (len(columns), -1)) for name, weight in weights.items()}

        def one(trained: dict[str, Tensor], buffers: dict[str, Tensor], tokens: Tensor) -> Tensor:
            found = torch.func.functional_call(first, (trained, buffers), (tokens, positions, lengths, rng))
            return cast(Tensor, found)

        column = torch.vmap(one, in_dims=(0, None, None))
        return torch.vmap(column)(trained, buffers, tokens)


class ClipLinear(Head):
    """A linear layer on every clip."""

    def __init__(self, rows: Tensor, num_classes: int) -> None:
        super().__init__(rows)
        self.linear = nn.Linear(rows.shape[1], num_classes)

    def forward(self, tokens: Tensor, positions: Tensor, lengths: Tensor, rng: RandomState) -> Tensor:
        """`[B, V, C]`."""
        return self.linear(self.standardised(tokens))


class ClipMLP(Head):
    """An MLP W-2048-2048-512 (ReLU) and a linear layer on every clip: as many weights as SCALE, and no set."""

    def __init__(self, rows: Tensor, num_classes: int, *, widths: tuple[int, ...] = MLP_WIDTHS) -> None:
        super().__init__(rows)
        sizes = (rows.shape[1], *widths)
        layers = [part for a, b in itertools.pairwise(sizes) for part in (Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))

    def forward(self, tokens: Tensor, positions: Tensor, lengths: Tensor, rng: RandomState) -> Tensor:
        """`[B, V, C]`."""
        return self.layers(self.standardised(tokens))


class ScaleClassifier(Head):
    """SCALE, trained too, and a linear layer on [backbone feature, CLS] of every clip, as the released code has it."""

    def __init__(self, rows: Tensor, num_classes: int, *, model: SCALE) -> None:
        super().__init__(rows)
        self.model = copy.deepcopy(model)
        self.linear = nn.Linear(rows.shape[1] + model.hidden_dim, num_classes)

    def forward(self, tokens: Tensor, positions: Tensor, lengths: Tensor, rng: RandomState) -> Tensor:
        """`[B, V, C]`."""
        video = self.model(tokens, positions, lengths=lengths, rng=rng).video
        cls = video[:, None].expand(-1, tokens.shape[1], -1)
        return self.linear(torch.cat([self.standardised(tokens), cls], dim=-1))

    def shape(self) -> Hashable:
        """Equal for heads that can be trained at once."""
        return super().shape(), str(self.model.config())

    @classmethod
    def stacked(
        cls,
        columns: Sequence[Head],
        weights: Mapping[str, Tensor],
        tokens: Tensor,
        positions: Tensor,
        lengths: Tensor,
        rng: RandomState,
    ) -> Tensor:
        """`[K, P, B, V, C]`, as `Head.stacked`; SCALE's ops take the sets of all heads one behind the other."""
        heads = [head for head in columns if isinstance(head, cls)]
        models, count = [head.model for head in heads], len(weights["linear.weight"])

        def spread(parts: list[Tensor]) -> Tensor:
            """`[B, V, W]` of every column -> `[G, B V, W]`."""
            return torch.stack(parts).flatten(1, 2).repeat_interleave(count // len(parts), dim=0)

        absent = padding(lengths, tokens.shape[2])[..., None]
        seen, places = tokens.masked_fill(absent, 0.0), positions.masked_fill(absent, 0.0)
        x = encode(
            weights,
            models[0],
            spread([model.inputs(own, lengths) for model, own in zip(models, seen, strict=True)]),
            spread([model.seen(places) for model in models]),
            cohorts=[Cohort(slice(0, count), rng.with_rows(rng.rows.repeat(count)), models[0].dropout)],
            lengths=lengths,
        )
        own, whole = weights["linear.weight"].split([tokens.shape[-1], x.shape[-1]], dim=2)
        clips = spread([head.standardised(one) for head, one in zip(heads, tokens, strict=True)])
        by_clip = torch.bmm(clips, own.mT).unflatten(1, absent.shape[:2])
        by_video = torch.baddbmm(weights["linear.bias"][:, None], x[:, :, 0], whole.mT)
        return (by_clip + by_video[:, :, None]).unflatten(0, (len(columns), -1))


class AttentionPooling(Head):
    """One weight a clip, the softmax of a learned linear score, then a linear layer.

    The score starts at 0, so it begins as mean pooling.
    """

    by_clip = False

    def __init__(self, rows: Tensor, num_classes: int) -> None:
        super().__init__(rows)
        self.score = nn.Linear(rows.shape[1], 1, bias=False)
        nn.init.zeros_(self.score.weight)
        self.linear = nn.Linear(rows.shape[1], num_classes)

    def forward(self, tokens: Tensor, positions: Tensor, lengths: Tensor, rng: RandomState) -> Tensor:
        """`[B, 1, C]`."""
        tokens = self.standardised(tokens)
        absent = padding(lengths, tokens.shape[1])
        weight = self.score(tokens)[..., 0].masked_fill(absent, -torch.inf).softmax(1)
        return self.linear(weight[:, None] @ tokens)


class AttentiveProbe(Head):
    """V-JEPA's probe: a learned query attends to the clips of a video, an MLP of ratio 4 follows, then a linear layer.

    Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video" (2024): a
    cross-attention block with one query. There the tokens are patches; here they are the clips of the store.
    """

    by_clip = False

    def __init__(self, rows: Tensor, num_classes: int) -> None:
        super().__init__(rows)
        width = rows.shape[1]
        self.heads = next(heads for heads in (16, 12, 8, 4, 2, 1) if width % heads == 0)
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.kv, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            Linear(width, width),
        )
        self.mlp = nn.Sequential(Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width))
        self.linear = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor, positions: Tensor, lengths: Tensor, rng: RandomState) -> Tensor:
        """`[B, 1, C]`."""
        tokens = F.layer_norm(self.standardised(tokens), self.norm1.normalized_shape, eps=self.norm1.eps)
        attended = self._attend(tokens, padding(lengths, tokens.shape[1]))
        x = self.query + self.out(attended)
        return self.linear(x + self.mlp(self.norm2(x)))[:, None]

    def _attend(self, tokens: Tensor, absent: Tensor) -> Tensor:
        """Clips `[B, V, W]` of mean 0 and deviation 1 -> `[B, W]`: multi-head attention of the one query.

        All videos share the query, so q . (K x) is (K' q) . x, and a mean of the V x is V times the mean of the x: the
        products with K and V are taken once, or once a video, instead of once a clip, and so are the scale and shift of
        the norm. What is added to the scores of all clips alike, the softmax takes out.
        """
        q = self.q(self.query).unflatten(0, (self.heads, -1))
        to_key, to_value = (part.unflatten(0, (self.heads, -1)) for part in self.kv.weight.chunk(2))
        direction = torch.einsum("hd,hdw->hw", q / q.shape[1] ** 0.5, to_key) * self.norm1.weight
        weight = (tokens @ direction.mT).masked_fill(absent[..., None], -torch.inf).softmax(1)
        pooled = weight.mT @ tokens * self.norm1.weight + self.norm1.bias
        heads = torch.einsum("bhw,hdw->bhd", pooled, to_value)
        return heads.flatten(1) + self.kv.bias.chunk(2)[1]
