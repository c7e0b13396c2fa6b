"""The C library's ops against the references: as exact as PyTorch in the same format, the same random draws, gradients.

Built here by CMake, as setup.py does; a machine without a compiler has no such library to test.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast import kernels
from scalefast.kernels.ops import philox
from scalefast.kernels.ops.native import calls
from scalefast.kernels.ops.philox import RandomState
from scalefast.kernels.ops.philox import native as drop_native
from scalefast.kernels.ops.set_attention import native as attention
from scalefast.kernels.ops.set_attention import reference as attention_reference
from scalefast.kernels.ops.set_embedding import native as embedding
from scalefast.kernels.ops.set_embedding import reference as embedding_reference
from scalefast.kernels.ops.sparse_infonce import native as infonce
from scalefast.kernels.ops.sparse_infonce import reference as infonce_reference

ROOT = Path(__file__).parents[2]
DTYPES = [torch.float32, torch.bfloat16]


pytestmark = pytest.mark.usefixtures("native_in_use")


def assert_as_exact(found: torch.Tensor, eager: torch.Tensor, truth: torch.Tensor) -> None:
    """At most twice PyTorch's own error in the same format, and a small share of the largest number."""
    assert found.dtype == eager.dtype
    assert found.shape == truth.shape
    most = 2 * (eager.double() - truth).abs().max() + 1e-6 * truth.abs().max()
    assert (found.double() - truth).abs().max() <= most


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def gradients(function, inputs, out_grad):
    """Output and the gradients of all inputs."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    out = function(*leaves)
    out.backward(out_grad.to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


ATTENTION = [
    # sets, tokens, heads, head dimension, lengths, dropout
    (5, 9, 8, 32, None, 0.0),
    (5, 9, 8, 32, None, 0.1),
    (3, 17, 2, 64, None, 0.3),
    (4, 24, 3, 128, None, 0.1),
    (2, 16, 1, 7, None, 0.5),
    (6, 9, 2, 32, [9, 1, 4, 0, 8, 3], 0.2),
    (1, 1, 1, 1, None, 0.0),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("sets", "tokens", "heads", "dim", "lengths", "p"), ATTENTION)
def test_attention_and_its_gradient(sets, tokens, heads, dim, lengths, p, dtype) -> None:
    qkv = numbers(sets, tokens, 3, heads, dim, dtype=dtype)
    grad = numbers(sets, tokens, heads, dim, seed=1)
    rng = RandomState.create(2**40 + 3, step=2**33 + 5, rows=torch.arange(sets) * 7 + 2**32).at_layer(1)
    given = None if lengths is None else torch.tensor(lengths)

    def reference(x: torch.Tensor) -> torch.Tensor:
        q, k, v = x.unbind(2)
        return attention_reference.padded_attention(q, k, v, lengths=given, dropout_p=p, rng=rng)

    def fast(x: torch.Tensor) -> torch.Tensor:
        return attention.attention_qkv(x, lengths=given, dropout_p=p, rng=rng)

    assert attention.serves_attention(qkv[:, :, 0], tokens=tokens)
    truth = gradients(reference, [qkv.double()], grad)
    eager = gradients(reference, [qkv], grad)
    for found, plain, exact in zip(gradients(fast, [qkv], grad), eager, truth, strict=True):
        assert_as_exact(found, plain, exact)


def test_a_state_that_advances_does_not_change_the_gradient_of_what_was_drawn() -> None:
    qkv, grad = numbers(4, 9, 3, 2, 32), numbers(4, 9, 2, 32, seed=1)
    rng = RandomState.create(5, step=3, rows=torch.arange(4))
    kept = qkv.clone().requires_grad_()
    out = kernels.set_attention_qkv(kept, dropout_p=0.4, rng=rng)
    rng.state[1] += 1
    out.backward(grad)
    fresh = RandomState.create(5, step=3, rows=torch.arange(4))
    expected = gradients(lambda x: kernels.set_attention_qkv(x, dropout_p=0.4, rng=fresh), [qkv], grad)[1]
    assert torch.equal(kept.grad, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 9, 32), (1, 1), (3, 4097), (2, 3, 5, 7), (4, 8)])
@pytest.mark.parametrize("p", [0.1, 0.5, 2.0**-16])
def test_dropout_and_its_gradient(shape, p, dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers are dropped, to the last one; what is kept is scaled in fp32 and rounded once."""
    x, grad = numbers(*shape, dtype=dtype), numbers(*shape, seed=1, dtype=dtype)
    rng = RandomState.create(2**50 + 1, step=2**32 + 3, rows=torch.arange(shape[0]) * 5 + 2**31).at_layer(1)

    def drop(x: torch.Tensor) -> torch.Tensor:
        return philox.dropout(x, rng, site=philox.Site.HIDDEN_DROPOUT, p=p)

    found, found_grad = gradients(drop, [x], grad)
    monkeypatch.setenv("SCALEFAST_NATIVE", "0")
    for got, before in ((found, x), (found_grad, grad)):
        factors = drop(torch.ones(shape, dtype=torch.float64))
        assert torch.equal(got, (before.double() * factors.float().double()).to(dtype))
    if dtype == torch.float32:
        assert torch.equal(found, drop(x))


def test_dropout_keeps_what_is_not_a_number() -> None:
    rng = RandomState.create(0, rows=torch.arange(2))
    x = torch.full((2, 64), float("nan"))
    assert philox.dropout(x, rng, site=philox.Site.HIDDEN_DROPOUT, p=0.5).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shape", [(5, 8, 32), (1, 1, 1), (3, 7, 33)])
def test_embedding_and_its_gradients(shape, masked, dtype) -> None:
    sets, clips, width = shape
    mask = torch.rand(sets, clips, generator=torch.Generator().manual_seed(3)) < 0.4 if masked else None
    inputs = [numbers(*shape, dtype=dtype), numbers(*shape, seed=1, dtype=dtype)]
    tokens = [numbers(width, seed=2), numbers(width, seed=3)]
    grad = numbers(sets, clips + 1, width, seed=4)

    def call(serving, *given):
        x, positions, mask_token, cls_token = given
        return serving.embed_sets(x, positions, mask, mask_token, cls_token)

    # The tokens stay fp32, rounded where they are used: the truth is of the rounded ones.
    rounded = [token.to(dtype).double() for token in tokens]
    truth = gradients(
        lambda *g: call(embedding_reference, *g),
        [x.double() for x in inputs] + rounded,
        grad.to(dtype).double(),
    )
    eager = gradients(lambda *g: call(embedding_reference, *g), inputs + tokens, grad)
    found = gradients(lambda *g: call(embedding, *g), inputs + tokens, grad)
    for one, plain, exact in zip(found, eager, truth, strict=True):
        if not masked and plain is None:
            assert one is None or not one.any()
            continue
        assert_as_exact(one, plain, exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "keys", "dim"), [(37, 101, 16), (1, 1, 3), (5, 4099, 128)])
@pytest.mark.parametrize("temperature", [0.2, 0.01])
def test_infonce_and_its_gradients(rows, keys, dim, temperature, dtype) -> None:
    queries, others = (
        torch.nn.functional.normalize(numbers(count, dim, seed=count), dim=1).to(dtype)
        for count in (rows, keys)
    )
    positives = torch.arange(rows) % keys
    positives[rows // 2] = -1 if rows > 1 else 0
    weights = numbers(rows, seed=5).abs()

    def run(serving, work):
        leaves = [x.to(work, copy=True).requires_grad_() for x in (queries, others)]
        t = torch.tensor(temperature, dtype=torch.float64 if work == torch.float64 else torch.float32)
        leaves.append(t.requires_grad_())
        found = serving.infonce_rows(leaves[0], leaves[1], positives, temperature=leaves[2])
        (found.rows * weights.to(found.rows.dtype)).sum().backward()
        return found, [leaf.grad for leaf in leaves]

    (found, by), (plain, plain_by), (exact, exact_by) = (
        run(infonce, dtype), run(infonce_reference, dtype), run(infonce_reference, torch.float64)
    )  # fmt: skip
    assert_as_exact(found.rows.detach(), plain.rows.detach(), exact.rows.detach())
    assert torch.equal(found.top1, plain.top1)
    assert torch.equal(found.positive_logit, plain.positive_logit)
    for one, other, truth in zip(by, plain_by, exact_by, strict=True):
        assert_as_exact(one, other, truth)


@pytest.mark.parametrize("keys", [1, 16, 17, 50])
def test_infonce_in_tiles_of_keys_is_infonce(keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 16 keys give what all keys at once give, wherever the positive lies and where there is none."""
    queries, others = numbers(40, 8), numbers(keys, 8, seed=1)
    positives = torch.arange(40) % keys
    positives[3] = -1

    def run() -> list[torch.Tensor]:
        leaves = [x.clone().requires_grad_() for x in (queries, others, torch.tensor(0.2))]
        found = infonce.infonce_rows(leaves[0], leaves[1], positives, temperature=leaves[2])
        found.rows.sum().backward()
        return [
            found.rows.detach(),
            found.positive_logit,
            found.top1.float(),
            *(leaf.grad for leaf in leaves),
        ]

    whole = run()
    monkeypatch.setattr(infonce, "MOST_KEYS", 16)
    for tiled, expected in zip(run(), whole, strict=True):
        assert (tiled - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_logit_that_is_not_a_number_makes_the_loss_none() -> None:
    queries = numbers(3, 8)
    queries[1, 2] = float("nan")
    found = infonce.infonce_rows(
        queries, numbers(70, 8, seed=1), torch.arange(3), temperature=torch.tensor(0.2)
    )
    assert found.rows.isnan().tolist() == [False, True, False]


@given(
    values=st.lists(st.lists(st.sampled_from([-3.0, -0.0, 0.0, 0.5, 0.5, 7.0, float("inf")]), min_size=5, max_size=5)
                    | st.lists(st.floats(width=32, allow_nan=False), min_size=5, max_size=5), min_size=1, max_size=60),
    k=st.integers(1, 70), cut=st.integers(1, 60),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_best_columns_are_those_of_a_stable_sort(values: list[list[float]], k: int, cut: int) -> None:
    """Columns in two parts, as tiles of a gallery come."""
    table = torch.tensor(values).T.contiguous()  # [5, columns]
    k = min(k, table.shape[1])
    best, place = table.new_empty(5, k), torch.empty(5, k, dtype=torch.int64)
    held = 0
    for start in range(0, table.shape[1], cut):
        part = table[:, start : start + cut].contiguous()
        assert calls.best_columns(part, first=start, best=best, place=place, held=held)
        held = min(k, held + part.shape[1])
    expected, order = table.sort(dim=1, descending=True, stable=True)
    assert torch.equal(best, expected[:, :k])
    assert torch.equal(place, order[:, :k])


def test_the_ops_are_sound_for_torch() -> None:
    qkv, state, rows = numbers(2, 3, 3, 2, 4).requires_grad_(), torch.tensor([1, 2]), torch.arange(2)
    torch.library.opcheck(attention._forward, (qkv, None, state, rows, 0, 0.3))
    torch.library.opcheck(drop_native.dropout, (numbers(2, 9).requires_grad_(), state, rows, 17, 0.3))
    x, token = numbers(2, 3, 4).requires_grad_(), numbers(4).requires_grad_()
    torch.library.opcheck(
        embedding._forward, (x, x.detach().clone(), torch.rand(2, 3) < 0.5, token, token.detach())
    )
    q, k = numbers(3, 4).requires_grad_(), numbers(5, 4, seed=1).requires_grad_()
    torch.library.opcheck(infonce._forward, (q, k, torch.tensor(0.2), torch.tensor([0, -1, 4])))
