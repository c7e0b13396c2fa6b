"""Set embedding and the gather through torch's machinery: opcheck, compile, capture."""

from __future__ import annotations

import pytest
import torch

from scalefast import kernels
from scalefast.kernels import RandomState
from scalefast.kernels.ops.set_embedding import embed_drawn_sets, reference

CUDA = torch.cuda.is_available()


def test_opcheck(device, cases):
    floats, mask = cases.make((5, 3, 8), "some", torch.float32, device)
    leaves = [t.detach().requires_grad_() for t in floats]
    x, position, token, cls = leaves
    rng = RandomState.create(1, rows=torch.arange(5, device=device))
    ops = torch.ops.scalefast
    kernels.embed_sets(*floats[:2], mask, *floats[2:])  # registers the ops
    torch.library.opcheck(ops.embed_sets_forward.default, (x, position, mask, token, cls))
    torch.library.opcheck(ops.embed_sets_forward.default, (x, position, None, token, cls))
    torch.library.opcheck(
        ops.embed_drawn_forward.default, (x, position, token, cls, rng.state, rng.rows, 1 << 30)
    )
    torch.library.opcheck(ops.draw_mask.default, (rng.state, rng.rows, 7, 1 << 31))
    grad, f32 = torch.randn(5, 4, 8, device=device), torch.float32
    torch.library.opcheck(ops.embed_sets_backward.default, (grad, mask, f32, f32, f32, True, False))
    torch.library.opcheck(ops.gather_masked_forward.default, (x, mask, 10))
    rank = torch.tensor([0, -1, 1] * 5, dtype=torch.int32, device=device)
    torch.library.opcheck(ops.gather_masked_backward.default, (torch.randn(2, 8, device=device), rank, 5, 3))


def test_compiled_whole(device, cases):
    floats, mask = cases.make((6, 4, 16), "some", torch.float32, device)

    def step(x, position, token, cls):
        tokens = kernels.embed_sets(x, position, mask, token, cls)
        rows, index, count = kernels.gather_masked(tokens[:, 1:], mask, capacity=24)
        return rows.square().sum() + tokens.sin().sum(), index, count

    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        leaves = [t.detach().requires_grad_() for t in floats]
        loss, index, count = function(*leaves)
        results.append((loss.detach(), index, count, *torch.autograd.grad(loss, leaves)))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_bad_input(device, cases):
    floats, mask = cases.make((3, 4, 8), "some", torch.float32, device)
    with pytest.raises(ValueError, match=r"mask must be bool \(3, 4\)"):
        kernels.embed_sets(*floats[:2], mask[:, :3], *floats[2:])
    rng = RandomState.create(0, rows=torch.arange(4, device=device))
    with pytest.raises(ValueError, match="one row for each of 3 sets; got 4"):
        embed_drawn_sets(*floats, rng=rng, probability=0.5)
    with pytest.raises(ValueError, match=r"probability = 1\.5"):
        embed_drawn_sets(*floats, rng=rng.with_rows(torch.arange(3, device=device)), probability=1.5)
    with pytest.raises(ValueError, match="capacity = 0"):
        kernels.gather_masked(floats[0], mask, capacity=0)


# On a GPU only


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
def test_captured_step_draws_anew(device, cases):
    floats, _ = cases.make((64, 8, 32), "absent", torch.float32, device)
    rng = RandomState.create(5, rows=torch.arange(64, device=device))

    def step():
        tokens, mask = embed_drawn_sets(*floats, rng=rng, probability=0.25)
        return mask, *kernels.gather_masked(tokens[:, 1:], mask, capacity=192)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mask, rows, index, count = step()
    for number in (1, 2):
        rng.state[1] = number
        graph.replay()
        wanted = reference.draw_mask(rng, clips=8, threshold=1 << 30)
        assert torch.equal(mask, wanted)
        assert int(count) == int(wanted.sum())
        tokens = reference.embed_sets(floats[0], floats[1], wanted, *floats[2:])
        for have, want in zip(
            (rows, index), reference.gather_masked(tokens[:, 1:], wanted, capacity=192), strict=False
        ):
            assert torch.equal(have, want)
