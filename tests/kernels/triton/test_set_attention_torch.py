"""Set attention through torch's machinery: opcheck, compile, capture, and who serves what."""

from __future__ import annotations

import pytest
import torch

from scalefast import kernels
from scalefast.kernels import RandomState, SetLayout
from scalefast.kernels.ops.set_attention import set_attention_qkv
from scalefast.kernels.ops.set_attention import triton as fused

CUDA = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not CUDA, reason="needs CUDA")


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_one_projection_gives_the_same_bits_and_its_gradient_in_one_piece(packed, device, monkeypatch, cases):
    lengths = torch.tensor([3, 0, 5], device=device)
    layout = SetLayout.from_lengths(lengths)
    qkv, grad = cases.make((8, 2, 16) if packed else (3, 5, 2, 16), torch.float32, device)
    given = {"dropout_p": 0.3, "rng": cases.state(device, 3, 0.3)}
    given |= {"layout": layout} if packed else {"lengths": lengths}
    separate = cases.run(lambda *t: kernels.set_attention(*t, **given), qkv, grad)
    compiled = torch.compile(lambda x: set_attention_qkv(x, **given), fullgraph=True, backend="aot_eager")
    for function in (lambda x: set_attention_qkv(x, **given), compiled):
        leaf = qkv.clone().requires_grad_()
        out = function(leaf)
        out.backward(grad)
        assert torch.equal(out, separate[0])
        assert torch.equal(leaf.grad, torch.stack(separate[1:], dim=-3))
    drawn = (given["rng"].state, given["rng"].rows)
    where = (None, *layout.tiles(), layout.offsets) if packed else (lengths, None, None, None)
    arguments = (qkv.clone().requires_grad_(), *where, *drawn, 5, 0.3, 1)
    torch.library.opcheck(fused._forward_qkv, arguments)
    with pytest.raises(ValueError, match="qkv must be"):
        set_attention_qkv(qkv.flatten(0, -2))


def op_arguments(cases, device, *, packed, p, dtype=torch.float32):
    lengths = torch.tensor([3, 1, 5], device=device)
    rng = cases.state(device, 3, p)
    drawn = (None, None, 0) if rng is None else (rng.state, rng.rows, rng.layer)
    if packed:
        layout = SetLayout.from_lengths(lengths)
        qkv, _ = cases.make((9, 2, 16), dtype, device)
        where = (None, *layout.tiles(), layout.offsets)
    else:
        qkv, _ = cases.make((3, 5, 2, 16), dtype, device)
        where = (lengths, None, None, None)
    tensors = [t.detach().requires_grad_() for t in qkv.unbind(-3)]
    return (*tensors, *where, *drawn[:2], 5, p, drawn[2])


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("p", [0.0, 0.3], ids=["no dropout", "dropout"])
def test_opcheck(packed, p, device, cases):
    arguments = op_arguments(cases, device, packed=packed, p=p)
    torch.library.opcheck(fused._forward, arguments)
    grad = torch.randn_like(arguments[0])
    torch.library.opcheck(
        fused._backward, (grad, *(a.detach() if i < 3 else a for i, a in enumerate(arguments)))
    )


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_compiles_without_a_graph_break(packed, device, cases):
    qkv, grad = cases.make((9, 2, 16) if packed else (3, 5, 2, 16), torch.float32, device)
    lengths = torch.tensor([3, 1, 5], device=device)
    rng = cases.state(device, 3, 0.3)
    where = {"layout": SetLayout.from_lengths(lengths)} if packed else {"lengths": lengths}

    def attend(q, k, v):
        return kernels.set_attention(q * 1.0, k, v, dropout_p=0.3, rng=rng, **where)

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    for one, two in zip(cases.run(compiled, qkv, grad), cases.run(attend, qkv, grad), strict=True):
        assert torch.equal(one, two)


def test_auto_takes_the_kernels_and_leaves_what_they_do_not_serve(device, monkeypatch):
    calls = []
    monkeypatch.setattr(fused, "padded_attention", lambda q, *a, **k: calls.append(q.shape) or q)
    served = torch.zeros(1, 128, 1, 128, device=device, dtype=torch.float16)
    assert kernels.set_attention(served, served, served).shape == served.shape
    for shape, dtype in (
        ((1, 65, 1, 16), torch.float32),
        ((1, 129, 1, 16), torch.float16),
        ((1, 2, 1, 129), torch.float32),
        ((1, 2, 1, 16), torch.float64),
    ):
        q = torch.zeros(shape, dtype=dtype, device=device)
        kernels.set_attention(q, q, q)
        with pytest.raises(
            ValueError, match=r"'triton' (serves sets of up to (64|128)|cannot serve this call: its kernels)"
        ):
            kernels.set_attention(q, q, q, attention_backend="triton")
    assert calls == [served.shape]


@needs_cuda
def test_inputs_on_two_devices_are_refused(device):
    q = torch.zeros(2, 3, 1, 16, device=device)
    with pytest.raises(ValueError, match="lengths must be on the device of q"):
        kernels.set_attention(q, q, q, lengths=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="layout must be on the device of q"):
        kernels.set_attention(q[0], q[0], q[0], layout=SetLayout.from_lengths(torch.tensor([1, 2])))
    with pytest.raises(ValueError, match="rng must be on the device of q"):
        rng = RandomState.create(0, rows=torch.arange(2))
        kernels.set_attention(q, q, q, dropout_p=0.1, rng=rng)


@needs_cuda
def test_a_captured_graph_draws_anew_at_every_step(device, cases):
    """Forward and backward without synchronisation; the step tensor alone decides what is dropped."""
    qkv, grad = cases.make((40, 9, 2, 32), torch.bfloat16, device)
    lengths = torch.full((40,), 7, device=device)
    rng = cases.state(device, 40, 0.3)

    def step():
        return cases.run(
            lambda *t: kernels.set_attention(*t, lengths=lengths, dropout_p=0.3, rng=rng), qkv, grad
        )

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    seen = []
    for number in (5, 6):
        rng.state[1] = number
        graph.replay()
        for one, two in zip(captured, step(), strict=True):
            assert torch.equal(one, two)
        seen.append(captured[0].clone())
    assert not torch.equal(*seen)


@needs_cuda
def test_nothing_synchronises(device, cases):
    qkv, grad = cases.make((40, 9, 2, 32), torch.bfloat16, device)
    lengths = torch.full((40,), 7, device=device)
    rng = cases.state(device, 40, 0.3)
    layout = SetLayout.from_lengths(lengths)
    packed, packed_grad = cases.make((280, 2, 32), torch.bfloat16, device)
    calls = [
        (lambda *t: kernels.set_attention(*t, lengths=lengths, dropout_p=0.3, rng=rng), qkv, grad),
        (lambda *t: kernels.set_attention(*t, layout=layout, dropout_p=0.3, rng=rng), packed, packed_grad),
    ]
    for call in calls:
        cases.run(*call)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for call in calls:
            cases.run(*call)
    finally:
        torch.cuda.set_sync_debug_mode("default")
