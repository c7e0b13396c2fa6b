"""SCALE's self-supervised training task: masked clip modelling (MCM) and set invariance (SET), of CLS and of time.

Source: arXiv 2211.17042, sections on the two losses; sizes of the heads from the authors' released code.

Shapes: `B` videos, 2 sets each, `V` clips a set, `D` backbone feature, `H` width, `P` projection.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scalefast import kernels
from scalefast._collectives import Ranks, global_mean
from scalefast._heads import GeluMLP
from scalefast.kernels import RandomState
from scalefast.model import SCALE, check_lengths, padding, random_state
from scalefast.objective import Objective, PretrainingLosses, koleo, variance_covariance
from scalefast.parts import TIME_MOMENTS
from scalefast.time_moments import time_moments

__all__ = ["PretrainingLosses", "SCALEPretraining"]


class SCALEPretraining(nn.Module):
    """An aggregator with the heads and losses that train it.

    MCM: a quarter of the clips is replaced by a mask token; a head predicts each from the rest of its set,
    and must find the clip's own target among the targets of all clips of the batch. Targets come from a
    trainable MLP on the backbone's
    features. SET: the CLS of a video's two sets must find each other among those of all videos. Head and loss
    of MCM run on the masked clips only. Not in the paper, and off unless the objective weighs it: the same for what
    cosines say of *when* the refined clips of the two sets change. CLS may answer by what a video shows alone.

    Args:
        model: the aggregator, trained in place.
        projection_dim: P, dimension in which similarities are taken.
        temperature: of both losses, > 0.
        mask_ratio: probability with which a clip is masked, in (0, 1).
        head_dim: hidden width of the prediction head and of the set head.
        target_dim: width of both hidden layers of the target head, which takes most of a step's arithmetic.
        objective: how the two losses are weighed and varied, and what stands beside them; the paper's if not given.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        model: SCALE,
        projection_dim: int = 128,
        temperature: float = 0.2,
        mask_ratio: float = 0.25,
        *,
        head_dim: int = 4096,
        target_dim: int = 2048,
        objective: Objective | None = None,
    ) -> None:
        super().__init__()
        if min(projection_dim, head_dim, target_dim) < 1 or not temperature > 0 or not 0.0 < mask_ratio < 1.0:
            raise ValueError(
                "projection_dim, head_dim and target_dim must be at least 1, temperature > 0 and mask_ratio in "
                "(0, 1); "
                f"got {projection_dim = }, {head_dim = }, {target_dim = }, {temperature = }, {mask_ratio = }"
            )
        self.projection_dim, self.temperature, self.mask_ratio = projection_dim, temperature, mask_ratio
        self.head_dim, self.target_dim = head_dim, target_dim
        self.model = model
        self.set_head = GeluMLP(model.hidden_dim, head_dim, projection_dim)
        self.prediction_head = GeluMLP(model.hidden_dim, head_dim, projection_dim)
        self.target_head = GeluMLP(model.feature_dim, target_dim, target_dim, projection_dim)
        self.objective = objective or Objective()
        if self.objective.time_weight:
            self.time_head = GeluMLP(TIME_MOMENTS * model.hidden_dim, head_dim, projection_dim)
        if self.objective.target != "trained":
            self.target_head.requires_grad_(False)
        if self.objective.target == "ema":
            self.moving = nn.ModuleList([copy.deepcopy(part) for part in self._followed()])
            self.moving.requires_grad_(False).eval()

    def trained_parameters(self) -> list[nn.Parameter]:
        """What is trained, in about the order in which a backward pass reaches it."""
        timed = [self.time_head] if self.objective.time_weight else []
        parts = (*timed, self.set_head, self.prediction_head, self.model, self.target_head)
        return [p for part in parts for p in reversed(list(part.parameters())) if p.requires_grad]

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, the model aside."""
        return {
            "projection_dim": self.projection_dim,
            "temperature": self.temperature,
            "mask_ratio": self.mask_ratio,
            "head_dim": self.head_dim,
            "target_dim": self.target_dim,
            "objective": asdict(self.objective),
        }

    def train(self, mode: bool = True) -> Self:
        """The task's mode; a moving average stays in eval mode."""
        super().train(mode)
        if self.objective.target == "ema":
            self.moving.eval()
        return self

    def forward(
        self,
        features: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        rng: RandomState | Tensor | None = None,
        group: dist.ProcessGroup | None = None,
        shares: Sequence[int] | None = None,
    ) -> PretrainingLosses:
        """Losses of a batch of video pairs of sets.

        With torch.distributed initialised every rank passes its own videos: keys are gathered from all ranks
        and the loss is scaled so that gradients averaged over ranks (as DDP does) are those of one process
        with the whole batch.

        Args:
            features: [B, 2, V, D] floating: two disjoint sets of clips for each video.
            positions: [B, 2, V, 7].
            mask: bool [B, 2, V], clips to predict; drawn with `mask_ratio` if not given. Masks in padding are
                ignored.
            lengths: int [B, 2], clips in each set; the rest is padding. None: all V.
            rng: seed, step and the videos' global rows [B], for the mask and for dropout; None draws a seed
                from torch's generator.
            group: ranks to gather from; the default group if torch.distributed is initialised.
            shares: videos of each rank in this step, told to all of them. Without lengths, ranks then need not ask
                each other how many rows they bring, and on a GPU the host waits for nothing.

        Raises:
            ValueError: shapes or dtypes do not fit.
        """
        state = random_state(rng, len(features), features.device)
        self._check(features, positions, mask, lengths, state)
        ranks = Ranks(group, shares)
        videos, _, clips, _ = features.shape
        # From here on a set is a row of its own: set 2 * b + view, with a global id made the same way.
        views = torch.arange(2, device=features.device)
        state = state.with_rows((2 * state.rows[:, None] + views).flatten())
        features, positions = features.flatten(0, 1), positions.flatten(0, 1)
        lengths = None if lengths is None else lengths.flatten()
        if mask is None:
            mask = kernels.draw_mask(state, clips=clips, probability=self.mask_ratio)
        mask = mask.reshape(2 * videos, clips)
        if lengths is not None:
            mask = mask & ~padding(lengths, clips)
        # First, so that its backward pass comes last, when the transformer's activations are gone: it needs most beside
        # what it keeps.
        targets = self._targets(features, positions, lengths).flatten(0, 1)
        tokens = self.model.tokens(features, positions, mask=mask, lengths=lengths, rng=state)
        mcm_loss, mcm_accuracy, overflow = self._mcm(tokens[:, 1:], targets, mask, lengths, state, ranks)
        set_loss, set_accuracy = self._match(self.set_head(tokens[:, 0]), ranks)
        time_loss, time_accuracy = self._time(tokens[:, 1:], positions, lengths, ranks)
        losses = (mcm_loss, set_loss, time_loss)
        loss = self._total(*losses, tokens[:, 0], ranks)
        return PretrainingLosses(loss, *losses, mcm_accuracy, set_accuracy, time_accuracy, overflow)

    def _mcm(
        self,
        clips: Tensor,
        targets: Tensor,
        mask: Tensor,
        lengths: Tensor | None,
        state: RandomState,
        ranks: Ranks,
    ) -> tuple[Tensor, Tensor, Tensor]:
        # On a GPU a static number of rows, so that nothing waits for the count. On CPU the masked ones, rounded up to
        # a thirty-second of the clips: tensors whose size changes with every step leave holes that no other step
        # fills, and the process grows.
        if clips.is_cuda:
            capacity = kernels.default_capacity(mask.numel(), probability=self.mask_ratio)
        else:
            unit = max(1, mask.numel() // 32)
            capacity = max(-(-int(mask.sum()) // unit), 1) * unit  # a small batch may have no masked clip
        rows, index, count = kernels.gather_masked(clips, mask, capacity=capacity)
        videos = state.rows[:, None].expand(-1, clips.shape[1]).flatten() // 2
        if lengths is not None:  # padding is no candidate
            real = ~padding(lengths, clips.shape[1]).flatten()
            targets, videos = targets[real], videos[real]
            index = torch.where(index >= 0, (torch.cumsum(real, 0) - 1)[index.clamp(min=0)], -1)
            ranks = Ranks(ranks.group)  # of clips they then have other shares
        targets = _unit(targets)
        queries = _unit(self.prediction_head(rows))
        keys = ranks.gather(targets)
        positives = torch.where(index >= 0, index + ranks.offset(targets), -1)
        excluding = self.objective.same_video == "exclude"
        out = kernels.sparse_infonce(
            queries,
            keys,
            positives,
            temperature=self.temperature,
            query_groups=videos[index.clamp(min=0)] if excluding else None,
            key_groups=ranks.gather(videos) if excluding else None,
        )
        loss, accuracy = global_mean(out.rows, out.top1, valid=positives >= 0, group=ranks.group)
        return loss, accuracy, (count > len(rows)).squeeze(0)

    def _targets(self, features: Tensor, positions: Tensor, lengths: Tensor | None) -> Tensor:
        """[2B, V, P]: what every clip is to be recognised by."""
        if self.objective.target != "ema":
            features = features.to(self.model.cls_token.dtype)
            if lengths is not None:  # it may hold anything
                features = features.masked_fill(padding(lengths, features.shape[1])[..., None], 0.0)
            targets: Tensor = self.target_head(self.model.inputs(features, lengths))
            return targets
        with torch.no_grad():
            if self.training:
                self._follow()
            model, head = self.moving
            assert isinstance(model, SCALE)
            moving: Tensor = head(model.tokens(features, positions, lengths=lengths)[:, 1:])
            return moving

    def _followed(self) -> tuple[nn.Module, nn.Module]:
        return self.model, self.prediction_head

    def _follow(self) -> None:
        """Move the averages one step on."""
        for average, part in zip(self.moving, self._followed(), strict=True):
            for slow, fast in zip(average.parameters(), part.parameters(), strict=True):
                slow.lerp_(fast, 1.0 - self.objective.target_momentum)
            for kept, now in zip(average.buffers(), part.buffers(), strict=True):
                kept.copy_(now)

    def _total(self, mcm: Tensor, between: Tensor, time: Tensor, cls: Tensor, ranks: Ranks) -> Tensor:
        objective = self.objective
        loss = objective.set_weight * between + objective.mcm_weight * mcm
        if objective.time_weight:
            loss = loss + objective.time_weight * time
        if objective.variance_weight or objective.koleo_weight:
            every = ranks.gather(cls).unflatten(0, (-1, 2))
            if objective.variance_weight:
                loss = loss + objective.variance_weight * variance_covariance(every.flatten(0, 1))
            if objective.koleo_weight:  # among the first sets: a video's other set shall be near
                loss = loss + objective.koleo_weight * koleo(every[:, 0])
        return loss

    def _time(
        self, clips: Tensor, positions: Tensor, lengths: Tensor | None, ranks: Ranks
    ) -> tuple[Tensor, Tensor]:
        if not self.objective.time_weight:
            zero = clips.new_zeros((), dtype=torch.promote_types(clips.dtype, torch.float32))
            return zero, zero
        present = None if lengths is None else ~padding(lengths, clips.shape[1])
        course = time_moments(clips, positions, count=TIME_MOMENTS, present=present)
        return self._match(self.time_head(course.flatten(1)), ranks)

    def _match(self, sets: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """Projections of sets [2B, P], of which each has to find the other one of its video: loss and accuracy."""
        # Each direction against the gathered other side; their mean is the symmetric loss, on any number of
        # ranks.
        first, second = _unit(sets).unflatten(0, (-1, 2)).unbind(1)
        own = torch.arange(len(first), device=sets.device) + ranks.offset(first)
        forth = kernels.sparse_infonce(first, ranks.gather(second), own, temperature=self.temperature)
        back = kernels.sparse_infonce(second, ranks.gather(first), own, temperature=self.temperature)
        rows, hits = torch.cat([forth.rows, back.rows]), torch.cat([forth.top1, back.top1])
        return global_mean(rows, hits, valid=torch.ones_like(hits), group=ranks.group)

    def _check(
        self,
        features: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        lengths: Tensor | None,
        rng: RandomState,
    ) -> None:
        if features.ndim != 4 or features.shape[1] != 2:
            raise ValueError(
                f"features must be [B, 2, V, D] (two sets of clips a video); got {tuple(features.shape)}"
            )
        if positions.shape[:3] != features.shape[:3]:
            raise ValueError(f"positions must be {(*features.shape[:3], 7)}; got {tuple(positions.shape)}")
        if mask is not None and (mask.shape != features.shape[:3] or mask.dtype != torch.bool):
            raise ValueError(
                f"mask must be bool {tuple(features.shape[:3])}; got {tuple(mask.shape)}, {mask.dtype}"
            )
        if rng.rows.numel() != len(features):
            raise ValueError(
                f"rng must have one row for each of {len(features)} videos; got {rng.rows.numel()}"
            )
        if lengths is not None:
            if lengths.shape != features.shape[:2]:
                raise ValueError(f"lengths must be {tuple(features.shape[:2])}; got {tuple(lengths.shape)}")
            check_lengths(lengths.flatten(), features.flatten(0, 1))


def _unit(rows: Tensor) -> Tensor:
    """L2-normalised, in fp32 at least: the temperature is small, bf16 would cost two digits."""
    rows = rows if rows.dtype == torch.float64 else rows.float()
    return nn.functional.normalize(rows, dim=1)
