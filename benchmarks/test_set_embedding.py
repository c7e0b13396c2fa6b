"""Set embedding, the gather and view sampling beside plain PyTorch, torch.compile and one copy of the same bytes.

On a GPU `extra_info` holds device times (graph replay over inputs that do not fit its cache together, us) and the
share of the copy's speed; pytest-benchmark's own figures are eager wall time, launches included. On a CPU the same file
times the reference at a small shape. Results are compared with fp64 before anything is timed.
"""

from __future__ import annotations

import pytest
import torch

from scalefast import kernels
from scalefast.kernels import RandomState

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
DTYPE = torch.bfloat16 if CUDA else torch.float32
SHAPES = [(1024, 8, 256), (512, 16, 512)] if CUDA else [(32, 8, 64)]
ROTATE = 8  # inputs of 25 MB and more each, against a cache of 50 MB
VIDEOS = 20_000 if CUDA else 50


def plain_embedding(x, position, mask, mask_token, cls_token):
    tokens = torch.where(mask[..., None], mask_token.to(x.dtype), x) + position
    return torch.cat([cls_token.to(x.dtype).expand(len(x), 1, x.shape[2]), tokens], dim=1)


def plain_views(bank, positions, rows, *, views):
    order = torch.argsort(torch.rand(len(rows), bank.shape[1], device=rows.device), dim=1)
    chosen = order[:, : 2 * views].reshape(-1, 2, views)
    video = rows[:, None, None]
    return bank[video, chosen], positions[video, chosen]


def with_backward(function):
    def step(x, position, mask, mask_token, cls_token, grad):
        leaves = (x, position, mask_token, cls_token)
        return torch.autograd.grad(function(x, position, mask, mask_token, cls_token), leaves, grad)

    return step


def check(got, truth):
    error = (got.double() - truth).abs().max() / truth.abs().max()
    # The peers round the tokens' gradients to x's dtype before they return them in fp32.
    assert error < (2e-2 if CUDA else 1e-5), f"wrong by {error:.2g}"


def inputs(shape, seed):
    g = torch.Generator(DEVICE).manual_seed(seed)
    sets, clips, width = shape

    def randn(*size, dtype=DTYPE):
        return torch.randn(*size, generator=g, device=DEVICE).to(dtype)

    mask = torch.rand(sets, clips, generator=g, device=DEVICE) < 0.25
    leaves = [
        randn(*shape),
        randn(*shape),
        randn(width, dtype=torch.float32),
        randn(width, dtype=torch.float32),
    ]
    x, position, token, cls = (t.requires_grad_() for t in leaves)
    return x, position, mask, token, cls, randn(sets, clips + 1, width)


def measure(benchmark, timing, ours, peers, rounds, moved, check):
    """Ours in wall time; on a GPU ours, the peers and a copy of as many bytes in device time too."""
    check(ours)
    info = benchmark.extra_info
    if CUDA:
        timing.time_beside_peers(
            info, {"ours": ours}, peers, check=check, inputs_to_rotate=rounds, repeats=100
        )
        copies = [
            tuple(torch.empty(moved // 2, dtype=torch.uint8, device="cuda") for _ in "ab") for _ in rounds
        ]
        copy = timing.graph_replay_seconds(lambda a, b: a.copy_(b), inputs_to_rotate=copies, repeats=100)
        info["bytes"], info["copy"] = moved, timing.spread(copy)
        for found in (info["ours"], *info["peers"].values()):
            found["share_of_copy"] = info["copy"]["p50_us"] / found["p50_us"]
    benchmark.pedantic(timing.finished(ours, *rounds[0]), rounds=20, warmup_rounds=3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("passes", ["forward", "both"])
def test_embed_sets(benchmark, timing, shape, passes):
    rounds = [inputs(shape, seed) for seed in range(ROTATE if CUDA else 1)]
    count = 5 if passes == "forward" else 6

    def form(function):
        return function if passes == "forward" else with_backward(function)

    first = rounds[0][:count]
    exact = [t.detach().double().requires_grad_() if t.is_floating_point() else t for t in first]
    truth = as_tuple(form(plain_embedding)(*exact))

    def check_all(function):
        for got, want in zip(as_tuple(function(*first)), truth, strict=True):
            check(got, want)

    x, mask = first[0], first[2]
    read_x = x.element_size() * shape[2] * int((~mask).sum())  # masked features are not read
    tokens = x.element_size() * x.numel()
    out = tokens + x.element_size() * shape[0] * shape[2]
    moved = read_x + tokens + out + (out + 2 * tokens if passes == "both" else 0)
    peers = {
        "eager": lambda: form(plain_embedding),
        "torch.compile": lambda: form(timing.compiled(plain_embedding)),
    }
    rounds = [r[:count] for r in rounds]
    check_all(form(plain_embedding))
    measure(benchmark, timing, form(kernels.embed_sets), peers, rounds, moved, check_all)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gather_masked(benchmark, timing, shape):
    rounds = [inputs(shape, seed)[0:3:2] for seed in range(ROTATE if CUDA else 1)]
    capacity = kernels.default_capacity(shape[0] * shape[1], probability=0.25)

    def ours(x, mask):
        return kernels.gather_masked(x, mask, capacity=capacity)[0]

    x, mask = rounds[0]
    count = int(mask.sum())

    def check_rows(function):
        got = function(x, mask)
        assert torch.equal(got[:count], x[mask]) and not got[count:].any()

    def indexing():
        raise RuntimeError("x[mask] waits for the host and cannot be captured")

    moved = x.element_size() * shape[2] * (count + capacity)
    measure(benchmark, timing, ours, {"eager": indexing}, rounds, moved, check_rows)


@pytest.mark.parametrize("views", [8])
def test_sample_views(benchmark, timing, views):
    bank = torch.randn(VIDEOS, 16, 768, device=DEVICE, dtype=torch.float16)
    positions = torch.rand(VIDEOS, 16, 7, device=DEVICE)
    batch = 512 if CUDA else 32
    state = torch.tensor([0, 1], device=DEVICE)
    rounds = [(torch.randperm(VIDEOS, device=DEVICE)[:batch],) for _ in range(ROTATE if CUDA else 1)]

    def ours(rows):
        return kernels.sample_views(bank, positions, rows, views=views, rng=state)

    def plain(rows):
        return plain_views(bank, positions, rows, views=views)

    (rows,) = rounds[0]
    chosen = kernels.draw_views(RandomState(state, rows), clips=16, views=views)
    assert torch.equal(ours(rows)[0], bank[rows[:, None, None], chosen])

    def check_clips(function):
        """Distinct clips of the right videos; which ones is drawn otherwise by each peer."""
        features, _ = function(rows)
        same = (features.flatten(1, 2)[:, :, None, :8] == bank[rows][:, None, :, :8]).all(-1)
        assert (same.sum(2) == 1).all() and (same.sum(1) <= 1).all()

    peers = {"eager": lambda: plain, "torch.compile": lambda: timing.compiled(plain)}
    moved = 2 * batch * 2 * views * (768 * 2 + 7 * 4)
    check_clips(plain)
    measure(benchmark, timing, ours, peers, rounds, moved, check_clips)


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)
