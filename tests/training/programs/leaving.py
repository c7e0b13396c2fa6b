"""What every process of a `torchrun` does: `leaving.py`; fails if a group outlives its destruction."""

from __future__ import annotations

import gc
import sys

import torch
import torch.distributed as dist

from scalefast.training.distributed import join_world

join_world("cpu")
# Imports what may take the group for a default argument.
torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))], fused=True)
group = dist.group.WORLD
dist.destroy_process_group()
gc.collect()
assert sys.getrefcount(group) == 2, f"{sys.getrefcount(group) - 2} others hold the group"
