"""Philox against the published test vectors, and the properties that the rest relies on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast.kernels import RandomState, philox

# Random123's known-answer tests for philox4x32-10: counter, key -> words (Salmon et al. 2011).
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def as_int64(value: int) -> torch.Tensor:
    return torch.tensor(value - (1 << 64) if value >= 1 << 63 else value)


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS, ids=["zeros", "ones", "pi"])
def test_known_answers(counter, key, words):
    index, site, row, step = counter
    got = philox.philox_words(
        as_int64(key[0] | key[1] << 32),
        step=torch.tensor(step),
        row=torch.tensor([row]),
        site=site,
        index=torch.tensor([index]),
    )
    assert tuple(int(w) for w in got) == words


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 2**31),
    rows=st.lists(st.integers(0, 2**31), min_size=1, max_size=9),
)
def test_numbers_belong_to_the_row_not_to_the_batch(seed, step, rows):
    def draw(some):
        rng = RandomState.create(seed, step=step, rows=torch.tensor(some))
        bits = philox.uniform_bits(rng, site=philox.Site.MASK, count=5)
        blocks = torch.arange(3)
        return bits, philox.dropout_multiplier(
            rng, site=philox.Site.HIDDEN_DROPOUT, blocks=blocks, p=0.3, dtype=torch.float32
        )

    together = draw(rows)
    alone = [draw([row]) for row in rows]
    assert torch.equal(together[0], torch.cat([bits for bits, _ in alone]))
    assert torch.equal(together[1], torch.cat([keep for _, keep in alone]))


def test_batches_larger_than_a_piece_of_work_are_the_same(monkeypatch):
    rng = RandomState.create(5, rows=torch.arange(37))
    blocks = torch.arange(11)
    whole = philox.dropout_multiplier(rng, site=18, blocks=blocks, p=0.1, dtype=torch.float32, lanes=85)
    monkeypatch.setattr(philox, "_BLOCKS_AT_A_TIME", 24)
    pieces = philox.dropout_multiplier(rng, site=18, blocks=blocks, p=0.1, dtype=torch.float32, lanes=85)
    assert whole.shape == (37, 85)
    assert torch.equal(whole, pieces)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_the_expectation(p):
    rng = RandomState.create(1, step=3, rows=torch.arange(500))
    keep = philox.dropout_multiplier(rng, site=16, blocks=torch.arange(250), p=p, dtype=torch.float64)
    n = keep.numel()
    dropped = (keep == 0).double().mean().item()
    assert abs(dropped - p) <= 5 * (p * (1 - p) / n) ** 0.5 + 1 / 65536
    scale = 65536 / (65536 - round(p * 65536))
    assert set(keep.unique().tolist()) <= {0.0, scale}


def test_sites_layers_steps_and_seeds_differ():
    rows = torch.arange(4)

    def bits(seed=0, step=0, site=philox.Site.HIDDEN_DROPOUT, layer=0):
        rng = RandomState.create(seed, step=step, rows=rows).at_layer(layer)
        return philox.uniform_bits(rng, site=site, count=16)

    base = bits()
    for other in (
        bits(seed=1),
        bits(seed=1 << 40),
        bits(step=1),
        bits(site=philox.Site.OUTPUT_DROPOUT),
        bits(layer=1),
    ):
        assert (base == other).float().mean() < 0.05


def test_seed_and_step_are_read_on_the_device_and_can_be_advanced_in_place():
    rng = RandomState.create(9, step=0, rows=torch.arange(3))
    rng.state[1] += 4
    again = RandomState.create(9, step=4, rows=torch.arange(3))
    assert torch.equal(philox.uniform_bits(rng, site=1, count=7), philox.uniform_bits(again, site=1, count=7))


def test_wrong_state_is_refused():
    with pytest.raises(ValueError, match=r"state must be int64 \[2\]"):
        RandomState(torch.zeros(2), torch.arange(3))
    with pytest.raises(ValueError, match=r"rows must be int64 \[S\]"):
        RandomState(torch.zeros(2, dtype=torch.int64), torch.zeros(3))
    with pytest.raises(ValueError, match=r"seed must be an integer in \[0, 2\^63\)"):
        philox.check_seed(-1)
    rng = RandomState.create(0, rows=torch.arange(3))
    with pytest.raises(ValueError, match=r"p = 1\.0"):
        philox.dropout_multiplier(rng, site=16, blocks=torch.arange(1), p=1.0, dtype=torch.float32)


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 16), (4, 0, 3)], ids=str)
def test_activations_are_dropped_by_their_place_in_the_set(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    rng = RandomState.create(3, rows=torch.arange(4))
    out = philox.dropout(x, rng, site=philox.Site.HIDDEN_DROPOUT, p=0.25)
    numbers = x[0].numel()
    drawn = philox.dropout_multiplier(
        rng,
        site=philox.Site.HIDDEN_DROPOUT,
        blocks=torch.arange(-(-numbers // 8)),
        p=0.25,
        dtype=x.dtype,
        lanes=numbers,
    )
    assert torch.equal(out, x * drawn.view(shape))
    out.sum().backward()
    assert torch.equal(x.grad, drawn.view(shape))
    assert philox.dropout(x, rng, site=18, p=0.0) is x


def test_dropout_refuses_sets_that_are_not_the_states():
    rng = RandomState.create(3, rows=torch.arange(4))
    with pytest.raises(ValueError, match=r"floating \[4, ...\]; got \(3, 5\)"):
        philox.dropout(torch.randn(3, 5), rng, site=18, p=0.5)
    with pytest.raises(ValueError, match=r"p = -0\.5"):
        philox.dropout(torch.randn(4, 5), rng, site=18, p=-0.5)
