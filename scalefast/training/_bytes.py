"""The bytes of a tensor, for checksums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["tensor_bytes"]


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a CPU tensor of any dtype, in row-major order, not copied where they lie so already."""
    flat: Any = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
    return memoryview(flat)
