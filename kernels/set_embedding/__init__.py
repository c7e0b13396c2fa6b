"""Set embedding (mask token, position, CLS) and the gather of masked tokens.

Shapes: `B` sets, `V` clips a set, `H` width, `C` capacity.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..dispatch import checks_device_data, serves_triton
from ..philox import RandomState
from . import native, reference
from .reference import default_capacity

__all__ = ["default_capacity", "draw_mask", "embed_drawn_sets", "embed_sets", "gather_masked"]


def embed_sets(
    x: Tensor, position_embeddings: Tensor, mask: Tensor | None, mask_token: Tensor, cls_token: Tensor
) -> Tensor:
    """`cat([cls_token, where(mask, mask_token, x) + position_embeddings], dim=1)`.

    Masked clips are replaced **before** their position is added; CLS gets no position (METHOD: SCALE, input).

    Args:
        x: [B, V, H] projected clip features, floating; decides dtype and device of the result.
        position_embeddings: [B, V, H].
        mask: bool [B, V], true = replaced by the mask token; None masks nothing.
        mask_token: H numbers, any leading dimensions of 1.
        cls_token: H numbers, likewise.

    Returns:
        [B, 1 + V, H].

    Raises:
        ValueError: shapes, dtypes or devices do not fit.
    """
    _check_embedding(x, position_embeddings, mask, mask_token, cls_token)
    mask_token, cls_token = mask_token.reshape(-1), cls_token.reshape(-1)
    if serves_triton("embed_sets", x):
        from . import triton as fused

        return fused.embed_sets(x, position_embeddings, mask, mask_token, cls_token)
    if native.serves_embedding(x, position_embeddings):
        return native.embed_sets(x, position_embeddings, mask, mask_token, cls_token)
    return reference.embed_sets(x, position_embeddings, mask, mask_token, cls_token)


def embed_drawn_sets(
    x: Tensor,
    position_embeddings: Tensor,
    mask_token: Tensor,
    cls_token: Tensor,
    *,
    rng: RandomState,
    probability: float,
) -> tuple[Tensor, Tensor]:
    """`embed_sets` with the mask `draw_mask(rng, clips=V, probability=probability)`, drawn where it is used.

    Args:
        x, position_embeddings, mask_token, cls_token: as for `embed_sets`.
        rng: seed, step and the sets' rows [B].
        probability: of a clip to be masked.

    Returns:
        tokens [B, 1 + V, H] and the mask, bool [B, V].

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or the probability is outside [0, 1].
    """
    _check_embedding(x, position_embeddings, None, mask_token, cls_token)
    if len(rng.rows) != len(x):
        raise ValueError(f"rng must have one row for each of {len(x)} sets; got {len(rng.rows)}")
    _same_device(x=x, state=rng.state, rows=rng.rows)
    threshold = _mask_threshold(probability)
    mask_token, cls_token = mask_token.reshape(-1), cls_token.reshape(-1)
    if serves_triton("embed_sets", x):
        from . import triton as fused

        return fused.embed_drawn(
            x,
            position_embeddings,
            mask_token,
            cls_token,
            state=rng.state,
            rows=rng.rows,
            threshold=threshold,
        )
    mask = draw_mask(rng, clips=x.shape[1], probability=probability)
    serving = native if native.serves_embedding(x, position_embeddings) else reference
    return serving.embed_sets(x, position_embeddings, mask, mask_token, cls_token), mask


def gather_masked(
    tokens: Tensor, mask: Tensor, *, capacity: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """`tokens[mask]`, compacted into a fixed number of rows: what lets a head run on the masked quarter only.

    Args:
        tokens: [B, V, H], floating.
        mask: bool [B, V].
        capacity: C, the rows of the result; None takes exactly the masked ones, which reads their number back
            to the host.

    Returns:
        rows [C, H]: the masked tokens in order, zeros behind them;
        index int64 [C]: flat position `b * V + v` of each row, -1 = padding;
        count int32 [1]: how many are masked. More than C means overflow: the surplus is not in `rows`.

    Raises:
        ValueError: shapes, dtypes or devices do not fit; on CPU, and with SCALEFAST_CHECKS=1, also an overflow.
    """
    if tokens.ndim != 3 or not tokens.is_floating_point():
        raise ValueError(f"tokens must be floating [B, V, H]; got {tokens.shape = }, {tokens.dtype = }")
    if mask.shape != tokens.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool {tuple(tokens.shape[:2])}; got {mask.shape = }, {mask.dtype = }")
    if capacity is not None and capacity < 1:
        raise ValueError(f"capacity must be at least 1; got {capacity = }")
    _same_device(tokens=tokens, mask=mask)
    if capacity is not None and serves_triton("gather_masked", tokens):
        from . import triton as fused

        rows, index, count = fused.gather_masked(tokens, mask, capacity=capacity)
    else:  # without a capacity the count comes back to the host in any case
        rows, index, count = reference.gather_masked(tokens, mask, capacity=capacity)
    if capacity is not None and checks_device_data(count) and int(count) > capacity:
        raise ValueError(f"{int(count)} tokens are masked, more than {capacity = }; give a larger capacity")
    return rows, index, count


def draw_mask(rng: RandomState, *, clips: int, probability: float) -> Tensor:
    """A Bernoulli mask, the same for a set whatever batch it is in: bool [B, clips], true with `probability`.

    Token `v` is masked when its Philox word is below probability * 2^32 (site MASK, index v).
    """
    threshold = _mask_threshold(probability)
    if serves_triton("embed_sets", rng.rows):
        from . import triton as fused

        return fused.draw_mask(rng.state, rng.rows, clips=clips, threshold=threshold)
    return reference.draw_mask(rng, clips=clips, threshold=threshold)


def _mask_threshold(probability: float) -> int:
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability must be in [0, 1]; got {probability = }")
    return round(probability * 2**32)


def _check_embedding(
    x: Tensor, position_embeddings: Tensor, mask: Tensor | None, mask_token: Tensor, cls_token: Tensor
) -> None:
    if x.ndim != 3 or not x.is_floating_point():
        raise ValueError(f"x must be floating [B, V, H]; got {x.shape = }, {x.dtype = }")
    if position_embeddings.shape != x.shape:
        raise ValueError(
            f"position_embeddings must have x's shape {tuple(x.shape)}; got {position_embeddings.shape = }"
        )
    if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(f"mask must be bool {tuple(x.shape[:2])}; got {mask.shape = }, {mask.dtype = }")
    for name, token in (("mask_token", mask_token), ("cls_token", cls_token)):
        if token.numel() != x.shape[2] or token.shape[-1:] != x.shape[2:]:
            raise ValueError(
                f"{name} must hold H = {x.shape[2]} numbers in its last dimension; got {tuple(token.shape)}"
            )
    _same_device(
        x=x, position_embeddings=position_embeddings, mask=mask, mask_token=mask_token, cls_token=cls_token
    )


def _same_device(**tensors: Tensor | None) -> None:
    devices = {name: str(t.device) for name, t in tensors.items() if t is not None}
    if len(set(devices.values())) > 1:
        raise ValueError(f"all tensors must be on one device; got {devices}")
