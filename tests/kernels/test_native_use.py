"""The C library in use: the public ops, whole steps, neighbours, other numbers of threads, compiled graphs."""

from __future__ import annotations

import pytest
import torch

from scalefast import SCALE, SCALEPretraining, kernels
from scalefast.evaluation import _pooling, topk
from scalefast.kernels.ops.native import calls
from scalefast.kernels.ops.philox import RandomState
from scalefast.kernels.ops.set_attention import native as attention

pytestmark = pytest.mark.usefixtures("native_in_use")


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_attention_is_the_ops_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the public functions, q, k and v apart and as one; what it does not serve goes elsewhere."""
    qkv, rng = numbers(4, 9, 3, 2, 32), RandomState.create(1, rows=torch.arange(4))
    seen: list[tuple[int, ...]] = []
    real = attention.attend
    monkeypatch.setattr(attention, "attend", lambda x, **more: (seen.append(x.shape), real(x, **more))[1])
    whole = kernels.set_attention_qkv(qkv, dropout_p=0.1, rng=rng)
    apart = kernels.set_attention(*qkv.unbind(2), dropout_p=0.1, rng=rng)
    assert torch.equal(whole, apart)
    assert len(seen) == 2
    kernels.set_attention_qkv(numbers(1, attention.MAX_TOKENS + 1, 3, 2, 32))
    kernels.set_attention_qkv(qkv.double())
    kernels.set_attention(*numbers(18, 3, 2, 32).unbind(1), lengths=torch.tensor([9, 9]))
    assert len(seen) == 2


def test_neighbours_are_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them equal ones, and a row that is not a number, which is left to PyTorch."""
    gallery = numbers(700, 12).round(decimals=1)
    gallery[350:] = gallery[:350]
    queries = gallery[::9]
    found = topk.nearest_rows(queries, gallery, k=20, query_rows=30, gallery_rows=128)
    spoilt = queries.clone()
    spoilt[2, 3] = float("nan")
    whole = topk.nearest_rows(spoilt, gallery, k=20, query_rows=30, gallery_rows=128)
    monkeypatch.setenv("SCALEFAST_NATIVE", "0")
    expected = topk.nearest_rows(queries, gallery, k=20, query_rows=30, gallery_rows=128)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    plain = topk.nearest_rows(spoilt, gallery, k=20, query_rows=30, gallery_rows=128)
    assert torch.equal(whole[1], plain[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [None, [7, 1, 3, 7, 2]])
def test_moments_of_sets_are_those_of_pytorch(dtype, lengths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a view with a gap between sets, numbers far from 0, padding that is NaN; NaN where a clip is."""
    tokens = (numbers(5, 8, 133) + 100).to(dtype)
    given = None if lengths is None else torch.tensor(lengths)
    clips = tokens[:, 1:]
    if given is not None:
        clips.masked_fill_((torch.arange(7) >= given[:, None])[..., None], float("nan"))
    clips[3, 1, 4] = float("nan")
    seen = []
    real = _pooling.moments
    monkeypatch.setattr(_pooling, "moments", lambda *args: (seen.append(1), real(*args))[1])
    found = _pooling.pool_moments(clips, given)
    assert seen == [1]
    monkeypatch.setenv("SCALEFAST_NATIVE", "0")
    for got, expected in zip(found, _pooling.pool_moments(clips, given), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4, equal_nan=True)
        assert got.isnan().sum() == 1
        assert got.dtype == torch.float32


def test_the_number_of_threads_changes_no_bit() -> None:
    qkv, rng = numbers(13, 9, 3, 8, 32), RandomState.create(1, rows=torch.arange(13))
    logits = numbers(40, 500)

    def everything() -> list[torch.Tensor]:
        return [kernels.set_attention_qkv(qkv, dropout_p=0.1, rng=rng), *calls.infonce_rows(logits)]

    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(everything())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_training_step_is_that_of_the_references(dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    task = SCALEPretraining(SCALE(48, hidden_dim=64, dropout=0.1), head_dim=128, target_dim=96).train()
    features, positions = numbers(12, 2, 8, 48), numbers(12, 2, 8, 7, seed=1)
    rng = RandomState.create(3, step=4, rows=torch.arange(12) + 9)

    def step() -> tuple[torch.Tensor, list[torch.Tensor]]:
        task.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            loss = task(features, positions, rng=rng).loss
        loss.backward()
        return loss.detach(), [weight.grad.clone() for weight in task.parameters()]

    loss, grads = step()
    monkeypatch.setenv("SCALEFAST_NATIVE", "0")
    expected, expected_grads = step()
    share = 1e-5 if dtype is None else 2e-2
    assert loss.item() == pytest.approx(expected.item(), rel=share)
    for grad, plain in zip(grads, expected_grads, strict=True):
        assert (grad - plain).abs().max() <= 5 * share * plain.abs().max() + 1e-9


def test_a_compiled_graph_holds_them_whole() -> None:
    """`torch.compile(fullgraph=True)`: nothing of the choice is traced, values are those of eager."""
    torch._dynamo.reset()
    qkv, x, token = numbers(3, 5, 3, 2, 8), numbers(3, 4, 8), numbers(8)
    queries, keys = numbers(3, 8), numbers(6, 8, seed=1)

    def everything() -> list[torch.Tensor]:
        loss = kernels.sparse_infonce(queries, keys, torch.tensor([0, 1, 5]), temperature=0.2)
        return [
            kernels.set_attention_qkv(qkv),
            kernels.embed_sets(x, x, None, token, token),
            loss.rows,
        ]

    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(), everything(), strict=True):
        assert torch.equal(found, expected)
