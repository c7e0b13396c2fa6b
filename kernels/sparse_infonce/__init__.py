"""Contrastive loss of a few rows against many keys, without the matrix of logits.

Shapes: `M` queries, `N` keys, `D` feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dispatch import checks_device_data, serves_triton
from . import native, reference
from .reference import RowStatistics

__all__ = ["InfoNCE", "sparse_infonce"]


@dataclass(frozen=True)
class InfoNCE:
    """The loss and what the same pass over the logits tells."""

    loss: Tensor
    """0-d: mean of `rows` over the rows that have a positive; 0 if none has."""
    rows: Tensor
    """[M], nats: each row's loss; 0 where its positive is -1. Differentiable."""
    top1: Tensor
    """Bool [M]: the positive has the highest logit of its row (in the symmetric form: and of its column)."""
    positive_logit: Tensor
    """[M]: similarity / temperature of the positive; no gradient."""


def sparse_infonce(
    queries: Tensor,
    keys: Tensor,
    positives: Tensor,
    *,
    temperature: float | Tensor,
    normalize: bool = False,
    symmetric: bool = False,
    query_groups: Tensor | None = None,
    key_groups: Tensor | None = None,
    same_group: Literal["exclude", "positive"] = "exclude",
) -> InfoNCE:
    """`cross_entropy(queries @ keys.T / temperature, positives)`, without the M x N matrix.

    Args:
        queries: [M, D] floating.
        keys: [N, D], same dtype and device. Keys that need no gradient skip its computation.
        positives: int64 [M], index of each query's key; -1 = the row counts for nothing.
        temperature: > 0, a number, or a 0-d tensor if it is learned.
        normalize: divide queries and keys by their L2 norm first.
        symmetric: M = N and `positives` a permutation: the mean of both directions (keys against queries
            too). On a GPU in one pass, if rows are normalised here, the temperature is a number of at least 0.025, and
            there are no groups.
        query_groups, key_groups: int64 or int32 [M] and [N], for example video ids; -1 belongs to no group.
        same_group: what keys of the query's own group are: "exclude" leaves them out (the positive excepted),
            "positive" makes them positives too (mean over positives, as in SupCon, arXiv 2004.11362).

    Returns:
        `InfoNCE`; computed in fp32 (fp64 for fp64 inputs) whatever the input dtype is.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, temperature <= 0; on CPU also a positive out of
            range, or one that is no permutation where `symmetric`.
    """
    _check(queries, keys, positives, symmetric=symmetric)
    _check_groups(queries, keys, query_groups, key_groups, same_group)
    t = _temperature(temperature, queries)
    if normalize:
        queries, keys = _unit(queries), _unit(keys)
    if symmetric and normalize and query_groups is None and _in_one_pass(queries, temperature):
        from . import triton as fused

        one = fused.symmetric_rows(queries, keys, positives, temperature=t)
        return InfoNCE(one.rows.mean(), *one)
    one = _rows(
        queries, keys, positives, temperature=t,
        query_groups=query_groups, key_groups=key_groups, same_group=same_group,
    )  # fmt: skip
    if symmetric:
        one = _both_directions(one, queries, keys, positives, t, query_groups, key_groups, same_group)
    count = (positives >= 0).sum().clamp(min=1)
    return InfoNCE(one.rows.sum() / count, *one)


def _serves(x: Tensor) -> bool:
    return x.numel() > 0 and serves_triton("sparse_infonce", x)


def _rows(queries: Tensor, keys: Tensor, positives: Tensor, **options: Any) -> RowStatistics:
    if _serves(queries) and _serves(keys):
        from . import triton as fused  # late: whoever has no GPU never imports triton

        return fused.infonce_rows(queries, keys, positives, **options)
    if native.serves_rows(queries, keys, groups=options["query_groups"] is not None):
        return native.infonce_rows(queries, keys, positives, temperature=options["temperature"])
    return reference.infonce_rows(queries, keys, positives, **options)


def _in_one_pass(queries: Tensor, temperature: float | Tensor) -> bool:
    """Whether one pass serves both directions of unit rows; a temperature that only the device knows may be too low."""
    if isinstance(temperature, Tensor) or not _serves(queries):
        return False
    from . import triton as fused

    rows, dim = queries.shape
    return fused.why_two_passes(rows, dim, queries.dtype, temperature=temperature) is None


def _unit(x: Tensor) -> Tensor:
    if _serves(x):
        from .unit_rows import unit_rows

        return unit_rows(x)
    return F.normalize(x.to(torch.float64 if x.dtype == torch.float64 else torch.float32), dim=1)


def _both_directions(
    one: RowStatistics, queries: Tensor, keys: Tensor, positives: Tensor, t: Tensor,
    query_groups: Tensor | None, key_groups: Tensor | None, same_group: str,
) -> RowStatistics:  # fmt: skip
    inverse = torch.empty_like(positives)
    inverse[positives] = torch.arange(len(positives), device=positives.device)
    other = _rows(
        keys,
        queries,
        inverse,
        temperature=t,
        query_groups=key_groups,
        key_groups=query_groups,
        same_group=same_group,
    )
    return RowStatistics(
        0.5 * (one.rows + other.rows[positives]), one.top1 & other.top1[positives], one.positive_logit
    )


def _check(queries: Tensor, keys: Tensor, positives: Tensor, *, symmetric: bool) -> None:
    if queries.ndim != 2 or not queries.is_floating_point():
        raise ValueError(f"queries must be floating [M, D]; got {queries.shape = }, {queries.dtype = }")
    if keys.ndim != 2 or keys.shape[1] != queries.shape[1] or keys.dtype != queries.dtype:
        raise ValueError(
            f"keys must be [N, {queries.shape[1]}] of {queries.dtype}; got {keys.shape = }, {keys.dtype = }"
        )
    if positives.shape != queries.shape[:1] or positives.dtype != torch.int64:
        raise ValueError(
            f"positives must be int64 [{queries.shape[0]}]; got {positives.shape = }, {positives.dtype = }"
        )
    if not queries.device == keys.device == positives.device:
        raise ValueError(
            "all tensors must be on one device; "
            f"got {queries.device = }, {keys.device = }, {positives.device = }"
        )
    if symmetric and queries.shape != keys.shape:
        raise ValueError(f"symmetric needs as many keys as queries; got {queries.shape = }, {keys.shape = }")
    if positives.numel() and checks_device_data(positives):
        low, high = int(positives.min()), int(positives.max())
        if low < -1 or high >= keys.shape[0]:
            raise ValueError(f"positives must be in [-1, {keys.shape[0]}); got {low} to {high}")
        if symmetric and (low < 0 or positives.unique().numel() != positives.numel()):
            raise ValueError(f"symmetric needs positives that are a permutation of 0..{keys.shape[0] - 1}")


def _check_groups(
    queries: Tensor, keys: Tensor, query_groups: Tensor | None, key_groups: Tensor | None, same_group: str
) -> None:
    if same_group not in ("exclude", "positive"):
        raise ValueError(f"same_group must be 'exclude' or 'positive'; got {same_group!r}")
    if (query_groups is None) != (key_groups is None):
        raise ValueError("query_groups and key_groups go together: give both or neither")
    for name, groups, rows in (("query_groups", query_groups, queries), ("key_groups", key_groups, keys)):
        if groups is not None and (
            groups.shape != rows.shape[:1]
            or groups.dtype not in (torch.int64, torch.int32)
            or groups.device != rows.device
        ):
            raise ValueError(
                f"{name} must be int64 [{rows.shape[0]}] or int32 on {rows.device}; "
                f"got {tuple(groups.shape)}, {groups.dtype}, {groups.device}"
            )


def _temperature(temperature: float | Tensor, queries: Tensor) -> Tensor:
    if isinstance(temperature, Tensor):
        if temperature.numel() != 1 or temperature.device != queries.device:
            raise ValueError(
                f"temperature must be one number on {queries.device}; "
                f"got {temperature.shape = }, {temperature.device = }"
            )
        if checks_device_data(temperature) and not float(temperature.detach()) > 0:
            raise ValueError(f"temperature must be > 0; got {float(temperature.detach())}")
        return temperature.reshape(())
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0; got {temperature = }")
    dtype = torch.float64 if queries.dtype == torch.float64 else torch.float32
    return torch.full((), temperature, dtype=dtype, device=queries.device)  # filled there: nothing is copied
