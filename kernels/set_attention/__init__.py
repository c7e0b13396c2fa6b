"""Non-causal attention inside each set of a few clips.

Shapes: `B` sets, `N` tokens a set (CLS included), `h` heads, `d` head dimension, `T` packed tokens.
"""

from __future__ import annotations

from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from ..dispatch import checks_device_data, choose, serves_triton
from ..philox import RandomState
from . import backends, native, reference
from .layout import SetLayout, most_tokens

__all__ = ["AttentionBackend", "SetLayout", "set_attention", "set_attention_qkv"]

AttentionBackend = Literal["auto", "reference", "triton", "sdpa", "flash-attn", "xformers", "varlen"]
_BACKENDS = ("auto", "reference", "triton", *backends.PEERS)
_MAX_TRITON_HEAD_DIM = 128
_TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def set_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    lengths: Tensor | None = None,
    layout: SetLayout | None = None,
    dropout_p: float = 0.0,
    rng: RandomState | Tensor | None = None,
    attention_backend: AttentionBackend = "auto",
) -> Tensor:
    """`dropout(softmax(q @ k^T / sqrt(d))) @ v` within each set.

    Args:
        q, k, v: [B, N, h, d] padded, or [T, h, d] packed; one floating dtype, one device.
        lengths: int [B], tokens in each set, CLS included. Padded form: the rest is padding, whose output is
            0 and whose content does not matter; None means all N. Packed form: needed unless `layout` is
            given.
        layout: packed form only, a `SetLayout` built once for all layers.
        dropout_p: probability in [0, 1) with which an attention weight is dropped.
        rng: where dropout is drawn from, needed if `dropout_p` > 0: a state with one row a set, or its int64 [2]
            tensor, for sets 0, 1, 2, ...
        attention_backend: "auto": Triton's kernels where they serve (a GPU, sets of up to 128 tokens, in
            fp32 64, head dimension up to 128), or the C library (a CPU, padded sets of up to 24 tokens in fp32 or
            bf16), else without dropout torch's fused attention for dense sets and
            for large ragged ones on a GPU, else plain PyTorch. Or one of "reference", "triton", "sdpa",
            "flash-attn", "xformers", "varlen" (torch.nn.attention.varlen): that one or an error. Dropout is
            served by "triton" and "reference" alone, since its weights are numbered by this library.

    Returns:
        The shape and dtype of q.

    Raises:
        ValueError: shapes, dtypes, devices or lengths do not fit; a backend that cannot serve the call.
        ImportError: the backend asked for is not installed.
    """
    return _attend(q, k, v, None, lengths, layout, dropout_p, rng, attention_backend)


def set_attention_qkv(
    qkv: Tensor,
    *,
    lengths: Tensor | None = None,
    layout: SetLayout | None = None,
    dropout_p: float = 0.0,
    rng: RandomState | Tensor | None = None,
    attention_backend: AttentionBackend = "auto",
) -> Tensor:
    """`set_attention(*qkv.unbind(-3), ...)` of one projection, with its gradient in one piece.

    Autograd would copy the gradients of q, k and v together again; Triton's backward kernel writes them so.

    Args:
        qkv: [B, N, 3, h, d] padded, or [T, 3, h, d] packed, floating.
        lengths, layout, dropout_p, rng, attention_backend: as in `set_attention`.

    Returns:
        [B, N, h, d] or [T, h, d].

    Raises:
        ValueError, ImportError: as in `set_attention`.
    """
    if qkv.ndim not in (4, 5) or qkv.shape[-3] != 3:
        raise ValueError(f"qkv must be [B, N, 3, h, d] or packed [T, 3, h, d]; got {qkv.shape = }")
    q, k, v = qkv.unbind(-3)
    return _attend(q, k, v, qkv, lengths, layout, dropout_p, rng, attention_backend)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    qkv: Tensor | None,
    lengths: Tensor | None,
    layout: SetLayout | None,
    dropout_p: float,
    rng: RandomState | Tensor | None,
    attention_backend: str,
) -> Tensor:
    _check_tensors(q, k, v, packed=q.ndim == 3)
    if attention_backend not in _BACKENDS:
        raise ValueError(f"attention_backend must be one of {_BACKENDS}; got {attention_backend!r}")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p must be in [0, 1); got {dropout_p = }")
    if q.ndim == 3:
        layout = _packed_layout(q, lengths, layout)
        sets, longest, lengths = layout.lengths.numel(), layout.max_length, None
    else:
        if layout is not None:
            raise ValueError(
                "layout goes with packed [T, h, d] tensors; give lengths with padded [B, N, h, d] ones"
            )
        _check_lengths(lengths, q)
        sets, longest = q.shape[:2]
    state = _dropout_state(dropout_p, rng, sets=sets, tokens=longest, device=q.device)
    ragged = lengths is not None or layout is not None
    backend = _backend(attention_backend, q, longest=longest, ragged=ragged, dropout_p=dropout_p)
    if backend in backends.PEERS:
        return backends.serve(backend, q, k, v, lengths=lengths, layout=layout, dropout_p=dropout_p)
    if backend == "native":
        joined = torch.stack((q, k, v), dim=2) if qkv is None else qkv
        return native.attention_qkv(joined, lengths=lengths, dropout_p=dropout_p, rng=state)
    implementation: ModuleType = reference
    if backend == "triton":
        from . import triton as fused  # imported late: most machines have no Triton

        if qkv is not None and layout is not None:
            return fused.packed_attention_qkv(qkv, layout=layout, dropout_p=dropout_p, rng=state)
        if qkv is not None:
            return fused.padded_attention_qkv(qkv, lengths=lengths, dropout_p=dropout_p, rng=state)
        implementation = fused
    out: Tensor
    if layout is not None:
        out = implementation.packed_attention(q, k, v, layout=layout, dropout_p=dropout_p, rng=state)
    else:
        out = implementation.padded_attention(q, k, v, lengths=lengths, dropout_p=dropout_p, rng=state)
    return out


def _backend(wish: str, q: Tensor, *, longest: int, ragged: bool, dropout_p: float) -> str:
    """Who serves a call."""
    most = most_tokens(q.dtype)
    fits = longest <= most and q.shape[-1] <= _MAX_TRITON_HEAD_DIM
    if wish == "triton":
        if q.dtype not in _TRITON_DTYPES or not serves_triton("set_attention", q):
            served = q.dtype in _TRITON_DTYPES
            why = (
                choose(q.device).reason
                if served
                else f"its kernels serve fp32, fp16 and bf16; got {q.dtype = }"
            )
            raise ValueError(f"attention_backend='triton' cannot serve this call: {why}")
        if not fits:
            raise ValueError(
                f"attention_backend='triton' serves sets of up to {most} tokens in {q.dtype} and head "
                f"dimensions up to {_MAX_TRITON_HEAD_DIM}; got {longest} tokens, {q.shape = }"
            )
        return "triton"
    if wish != "auto":
        return wish
    if fits and q.dtype in _TRITON_DTYPES and serves_triton("set_attention", q):
        return "triton"
    if q.ndim == 4 and native.serves_attention(q, tokens=longest):
        return "native"
    if dropout_p > 0.0 or q.dtype == torch.float64:
        return "reference"
    return "sdpa" if not ragged or (q.is_cuda and not fits) else "reference"


def _check_tensors(q: Tensor, k: Tensor, v: Tensor, *, packed: bool) -> None:
    if q.ndim not in (3, 4) or not q.is_floating_point():
        raise ValueError(
            f"q must be floating, [B, N, h, d] or packed [T, h, d]; got {q.shape = }, {q.dtype = }"
        )
    if not q.shape == k.shape == v.shape:
        raise ValueError(f"q, k and v must have one shape; got {q.shape = }, {k.shape = }, {v.shape = }")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v must have one dtype; got {q.dtype = }, {k.dtype = }, {v.dtype = }")
    if not q.device == k.device == v.device:
        raise ValueError(f"q, k and v must be on one device; got {q.device = }, {k.device = }, {v.device = }")
    if q.shape[-1] < 1 or q.shape[-2] < 1:
        raise ValueError(f"heads and head dimension must be at least 1; got {q.shape = }")


def _packed_layout(q: Tensor, lengths: Tensor | None, layout: SetLayout | None) -> SetLayout:
    if (lengths is None) == (layout is None):
        raise ValueError("packed [T, h, d] tensors need lengths or layout (one of them)")
    if layout is None:
        assert lengths is not None
        _check_device(lengths, q, "lengths")
        layout = SetLayout.from_lengths(lengths)
    _check_device(layout.lengths, q, "layout")
    if layout.total != q.shape[0]:
        raise ValueError(f"the lengths sum to {layout.total} tokens, but {q.shape = }")
    return layout


def _check_lengths(lengths: Tensor | None, q: Tensor) -> None:
    if lengths is None:
        return
    if lengths.shape != q.shape[:1] or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(
            f"lengths must be integers [{q.shape[0]}]; got {lengths.shape = }, {lengths.dtype = }"
        )
    _check_device(lengths, q, "lengths")
    if lengths.numel() and checks_device_data(lengths):
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0 or high > q.shape[1]:
            raise ValueError(f"lengths must be in [0, {q.shape[1]}]; got {low} to {high}")


def _check_device(t: Tensor, q: Tensor, name: str) -> None:
    if t.device != q.device:
        raise ValueError(f"{name} must be on the device of q; got {t.device} and {q.device = }")


def _dropout_state(
    dropout_p: float, rng: RandomState | Tensor | None, *, sets: int, tokens: int, device: torch.device
) -> RandomState | None:
    """Where dropout is drawn from, once it is known to fit; None without dropout."""
    if dropout_p == 0.0:
        return None
    if rng is None:
        raise ValueError(f"{dropout_p = } needs rng: a RandomState with one row a set")
    state = RandomState.of(rng, torch.arange(sets, device=device))
    if state.rows.device != device:
        raise ValueError(f"rng must be on the device of q; got {state.rows.device} and {device}")
    if state.rows.numel() != sets:
        raise ValueError(f"rng must have one row for each of {sets} sets; got {state.rows.numel()}")
    if tokens > reference.MAX_DROPOUT_TOKENS:
        raise ValueError(
            f"attention dropout serves sets of up to {reference.MAX_DROPOUT_TOKENS} tokens; got {tokens}"
        )
    return state
