"""What does a grid of runs cost when they are trained at once, against one after another?

Eight models that differ in learning rate, temperature and mask ratio, perhaps in seeds; a round is three steps of each.
On a CPU sizes at which a step is mostly Python; on a GPU those of Kinetics-400 too.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from scalefast import FeatureStore
from scalefast.training import recommended
from scalefast.training.bank import load_bank
from scalefast.training.batched.step import StackedStep
from scalefast.training.distributed import join_world
from scalefast.training.progress import Progress
from scalefast.training.run_folder import RunFolder
from scalefast.training.session import Session
from scalefast.training.state import build_task
from scalefast.training.step import Step

STEPS, MODELS = 3, 8
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = {  # videos of a batch, views, D, width, width of the heads
    "D64": (32, 4, 64, 64, 128),
    "D128": (64, 4, 128, 64, 256),
    "D256": (64, 8, 256, 128, 512),
    "K400": (512, 8, 768, 256, 4096),
}
VARIED = [
    {"learning_rate": rate, "temperature": temperature, "mask_ratio": ratio}
    for rate, temperature, ratio in itertools.product((3e-4, 1e-3), (0.1, 0.2), (0.25, 0.5))
]


def sizes():
    return [name for name in SIZES if name != "K400" or DEVICE == "cuda"]


@pytest.fixture(params=sizes())
def size(request, smaller):
    return SIZES["D64" if smaller else request.param]


def opened(folder, size, *, target, seeds):
    """Sessions of the models, on a store of random features; `seeds` of them have a seed of their own."""
    batch, views, dim, width, head = size
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, 2 * views, dim, generator=generator)
    store = FeatureStore.create(folder / "store", features=features)
    world = join_world(DEVICE)
    bank = load_bank(store, views=views, world=world)
    base = recommended().replace(
        calibrated=False, target=target, batch_size=batch, views=views, hidden_dim=width, head_dim=head,
        target_dim=head // 2, precision="bf16" if DEVICE == "cuda" else "fp32",
    )  # fmt: skip

    def one(number, changes):
        config = base.replace(seed=number * seeds // MODELS, **changes)
        task = build_task(config, feature_dim=dim).to(DEVICE).train()
        run = RunFolder(folder / f"run-{number}")
        return Session(
            config=config, world=world, folder=run, bank=bank, task=task, progress=Progress(shown=False)
        )

    return lambda: [one(number, changes) for number, changes in enumerate(VARIED)]


def batches_of(session):
    return session.bank.batches(session.plan, start=0, views=session.config.views)


def at_once(sessions):
    step = StackedStep(sessions)
    sources = [batches_of(session) for session in step.plans()]
    rates = [session.config.learning_rate for session in sessions]

    def run():
        for _ in range(STEPS):
            losses = step([next(source) for source in sources], rates=rates)
        return losses[0].tolist()

    return run


def one_by_one(sessions):
    steps = [(Step(session), batches_of(session), session.config.learning_rate) for session in sessions]

    def run():
        found = []
        for step, source, rate in steps:
            for _ in range(STEPS):
                losses = step(next(source), learning_rate=rate)
            found.append(losses.loss)
        return torch.stack(found).tolist()

    return run


@pytest.mark.parametrize(("target", "seeds"), [("fixed", 1), ("fixed", 4), ("trained", 1)])
def test_grid(benchmark, side_by_side, tmp_path, size, target, seeds):
    benchmark.group = f"{MODELS} models, {STEPS} steps, {DEVICE}"
    make = opened(tmp_path, size, target=target, seeds=seeds)
    ours, theirs = at_once(make()), one_by_one(make())
    tolerance = 2e-2 if DEVICE == "cuda" else 1e-4
    assert ours() == pytest.approx(theirs(), rel=tolerance)
    side_by_side.race(benchmark, ours, {"one after another": theirs}, rounds=3)
