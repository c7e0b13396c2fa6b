"""The ops of SCALE: one public function each, whatever implementation serves it.

    embed_sets, gather_masked     kernels/set_embedding
    set_attention, set_attention_qkv    kernels/set_attention
    sparse_infonce                kernels/sparse_infonce
    sample_views                  kernels/view_sampling

`backend()` says which implementation serves which op on a device, and why. The sources lie in the top-level
folder `kernels/`, reached as `scalefast.kernels.ops`; that folder is never imported by its own name.
"""

from __future__ import annotations

from scalefast.kernels._backend import OpBackend, backend
from scalefast.kernels.ops import philox
from scalefast.kernels.ops.philox import RandomState
from scalefast.kernels.ops.set_attention import SetLayout, set_attention, set_attention_qkv
from scalefast.kernels.ops.set_embedding import (
    default_capacity,
    draw_mask,
    embed_drawn_sets,
    embed_sets,
    gather_masked,
)
from scalefast.kernels.ops.sparse_infonce import InfoNCE, sparse_infonce
from scalefast.kernels.ops.view_sampling import draw_views, sample_views

__all__ = [
    "InfoNCE",
    "OpBackend",
    "RandomState",
    "SetLayout",
    "backend",
    "default_capacity",
    "draw_mask",
    "draw_views",
    "embed_drawn_sets",
    "embed_sets",
    "gather_masked",
    "philox",
    "sample_views",
    "set_attention",
    "set_attention_qkv",
    "sparse_infonce",
]
