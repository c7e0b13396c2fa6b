"""One of two processes: `ranks.py RANK FOLDER`; leaves the loss and the averaged gradients of its half of a batch."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from scalefast.cvrl import CVRLTask


class Encoder(nn.Module):
    """A projection of flattened clips: nothing in it looks at other videos."""

    feature_dim = 12

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 2 * 4 * 4, 12)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.linear(clips.flatten(1)).tanh()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of clips of five videos: unequal shares for two processes."""
    g = torch.Generator().manual_seed(1)
    return torch.randn(5, 3, 2, 4, 4, generator=g), torch.randn(5, 3, 2, 4, 4, generator=g)


def step(share: slice) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Loss, accuracy and gradients of the part of the batch that a process takes."""
    torch.manual_seed(0)
    task = CVRLTask(Encoder(), hidden_layers=0, projection_dim=6)
    first, second = batch()
    losses = task(first[share], second[share])
    losses.loss.backward()
    return losses.loss.detach(), losses.accuracy, [p.grad for p in task.parameters()]


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    loss, accuracy, grads = step(slice(0, 2) if rank == 0 else slice(2, 5))
    for grad in grads:
        dist.all_reduce(grad)
        grad /= 2
    torch.save([loss, accuracy, grads], folder / f"{rank}.pt")
    dist.destroy_process_group()
