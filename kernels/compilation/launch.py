"""A kernel launch as a value: what is launched on tensors is, on tensors of the meta device, what ships.

So a list of what ships is made by the very code that launches, and cannot drift from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import Shipped

__all__ = ["Launch"]


@dataclass(frozen=True)
class Launch:
    """One launch of a Triton kernel."""

    kernel: Any
    """The `@triton.jit` function."""
    grid: tuple[int, ...]
    """Programs; a 0 launches nothing."""
    arguments: tuple[Any, ...]
    """Positional arguments in order: tensors, numbers, None."""
    constants: dict[str, Any]
    """`tl.constexpr` arguments by name."""
    num_warps: int
    num_stages: int = 1
    name: str = ""
    """What ships is called so, unless `shipped` says otherwise."""

    def run(self) -> None:
        """Launch, on the device of the tensors."""
        if 0 in self.grid:
            return
        device = next(a.device for a in self.arguments if isinstance(a, Tensor))
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                self._run()
        else:
            self._run()

    def _run(self) -> None:
        self.kernel[self.grid](
            *self.arguments,
            **self.constants,
            num_warps=self.num_warps,
            num_stages=self.num_stages,
            enable_fp_fusion=True,  # stated, since the default changes with Triton 3.10
        )

    def shipped(self, name: str = "", **budget: Any) -> Shipped:
        """This launch in the list of what ships; `budget` as the fields of `Shipped`."""
        arguments = tuple(a.dtype if isinstance(a, Tensor) else a for a in self.arguments)
        return Shipped(
            name or self.name,
            self.kernel,
            arguments,
            self.constants,
            self.num_warps,
            self.num_stages,
            **budget,
        )
