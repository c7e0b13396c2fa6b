"""Identity of weights: one hash for the same numbers, wherever and however they are stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch

__all__ = ["hash_state_dict"]


def hash_state_dict(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 (hex) over names, dtypes, shapes and little-endian bytes, in the order of the sorted names.

    The order of the dict, the device, strides and the file format do not matter; one changed bit does.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().to("cpu").contiguous()
        header = json.dumps([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
        digest.update(f"{header}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
