"""The masked-clip loss of a batch of 16,384 videos within a limit of memory: `large_batch.py MIB TOO_FEW`.

All 262,144 keys, of the 65,536 queries as many as take a second: the rows of logits of the others would come one strip
after the other in the same memory. Exits 0 if it fits into MIB and does not fit into TOO_FEW.
"""

from __future__ import annotations

import resource
import sys

import torch

from scalefast import kernels

VIDEOS, VIEWS, DIM, QUERIES = 16_384, 8, 16, 1024


def take(queries: torch.Tensor, keys: torch.Tensor) -> float:
    """Loss and gradients."""
    keys.grad = queries.grad = None
    found = kernels.sparse_infonce(queries, keys, torch.arange(len(queries)), temperature=0.2)
    found.loss.backward()
    assert keys.grad is not None and keys.grad.abs().sum() > 0
    return float(found.loss.detach())


def main(mebibytes: int, too_few: int) -> None:
    torch.set_num_threads(1)
    keys = torch.nn.functional.normalize(torch.randn(2 * VIDEOS * VIEWS, DIM), dim=1).requires_grad_()
    queries = torch.nn.functional.normalize(torch.randn(QUERIES, DIM), dim=1).requires_grad_()
    # What a first call loads is not the loss's.
    take(queries[:8].detach().requires_grad_(), keys[:64].detach().requires_grad_())
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    most = taken + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (taken + (too_few << 20), most))
    try:
        take(queries, keys)
    except (MemoryError, RuntimeError) as error:
        assert "memory" in str(error), error
    else:
        raise AssertionError("the limit limits nothing")
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    assert 0 < take(queries, keys) < 20


main(int(sys.argv[1]), int(sys.argv[2]))
