"""Several processes under torchrun give what one gives, dropout included, and resume to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scalefast import FeatureStore, kernels
from scalefast.training import PretrainConfig, load_run, pretrain
from scalefast.training.distributed import join_world
from scalefast.training.metrics import metrics_of
from scalefast.training.sampler import BatchPlan
from scalefast.training.state import build_task

LAST = "checkpoints/step-00000012.safetensors"


@pytest.fixture(scope="module")
def config(config: PretrainConfig) -> PretrainConfig:
    """With all three contrastive losses."""
    return config.replace(time_weight=0.25)


@pytest.fixture(scope="module", params=[2, 4], ids=["2 processes", "4 processes"])
def ranks(
    request: pytest.FixtureRequest,
    store: FeatureStore,
    config: PretrainConfig,
    tmp_path_factory: pytest.TempPathFactory,
    run_program: Callable,
) -> tuple[int, Path]:
    """Number of processes, and what they left. Batches are of 11 videos: the shares differ in size."""
    folder = tmp_path_factory.mktemp("ranks")
    done = run_program("ranks.py", store.path, folder, config.to_json(), processes=request.param)
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, folder


@pytest.mark.parametrize("step", [0, 3])
def test_loss_and_every_gradient_are_those_of_one_process(
    ranks: tuple[int, Path], step: int, store: FeatureStore, config: PretrainConfig
) -> None:
    processes, folder = ranks
    assert config.dropout > 0
    task = build_task(config, feature_dim=16).train()
    plan = BatchPlan(num_videos=25, batch_size=11, epochs=6, seed=config.seed)
    rows = plan.order(step // 2)[plan.share(step)]
    rng = kernels.RandomState.create(config.seed, step=step, rows=rows)
    losses = task(*kernels.sample_views(*store.load(), rows, views=4, rng=rng), rng=rng)
    losses.loss.backward()
    for rank in range(processes):
        left = load_file(folder / f"gradients-{step}-{rank}.safetensors")
        assert left.pop("loss").item() == pytest.approx(losses.loss.item(), rel=1e-5)
        early, buckets = left.pop("early").tolist()
        assert buckets > 1
        assert 0 < early <= buckets  # sums began while gradients were still computed
        assert left.keys() == dict(task.named_parameters()).keys()
        for name, parameter in task.named_parameters():
            assert parameter.grad is not None
            scale = parameter.grad.abs().max()
            assert scale > 0, name
            assert (left[name] - parameter.grad).abs().max() <= 1e-5 * scale + 1e-9, name


def test_the_whole_run_is_that_of_one_process(
    ranks: tuple[int, Path], store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    _, folder = ranks
    pretrain(store, out=tmp_path / "one", config=config, progress=False)
    one, many = load_run(tmp_path / "one"), load_run(folder / "run")
    assert [line["step"] for line in many.log()] == [5, 10, 12]
    for line, other in zip(one.log(), many.log(), strict=True):
        names = metrics_of(config.objective)
        assert [other[name] for name in names] == pytest.approx([line[name] for name in names], rel=1e-5)
    assert (folder / "run" / "run.json").read_bytes() == (tmp_path / "one" / "run.json").read_bytes()
    # Compared is what the weights do, not the weights: attention does not feel the bias of its keys, so their
    # gradient is rounding alone, and AdamW makes whole steps of it, in whichever direction.
    out, expected = many.model()(*store.load()), one.model()(*store.load())
    torch.testing.assert_close(out.video, expected.video, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out.clips, expected.clips, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("residence", ["resident", "stream"])
def test_the_batches_are_those_of_one_process(
    ranks: tuple[int, Path], residence: str, store: FeatureStore, config: PretrainConfig
) -> None:
    processes, folder = ranks
    left = [load_file(folder / f"batches-{residence}-{rank}.safetensors") for rank in range(processes)]
    plan = BatchPlan(num_videos=25, batch_size=11, epochs=6, seed=config.seed)
    for step in range(plan.total_steps):
        rows = plan.order(step // 2)[plan.share(step)]
        rng = kernels.RandomState.create(config.seed, step=step, rows=rows)
        features, positions = kernels.sample_views(*store.load(), rows, views=4, rng=rng)
        for name, whole in (("rows", rows), ("features", features), ("positions", positions)):
            assert torch.equal(torch.cat([part[f"{name}-{step}"] for part in left]), whole)


def test_each_process_holds_its_part_of_the_videos(ranks: tuple[int, Path], store: FeatureStore) -> None:
    processes, folder = ranks
    held = [load_file(folder / f"batches-resident-{rank}.safetensors")["held"] for rank in range(processes)]
    assert max(map(len, held)) - min(map(len, held)) <= 1
    assert torch.equal(torch.cat(held), store.load()[0])


def test_damage_that_one_process_meets_stops_all(ranks: tuple[int, Path]) -> None:
    processes, folder = ranks
    told = [json.loads((folder / f"damage-{rank}.json").read_text()) for rank in range(processes)]
    assert told[-1]["type"] == "StoreError"
    assert "do not match their checksum" in told[-1]["message"]
    for rank, other in enumerate(told[:-1]):
        assert other["type"] == "TrainingError"
        assert (
            other["message"]
            == f"process {rank} stops, since process {processes - 1} stopped: {told[-1]['message']}"
        )


def test_resumed_it_is_identical_to_the_bit(ranks: tuple[int, Path]) -> None:
    """With DistributedDataParallel it is not, from 3 processes on: see scalefast/training/gradients.py."""
    _, folder = ranks
    for name in (
        "model.safetensors",
        "pretraining.safetensors",
        "log.jsonl",
        "checkpoints/step-00000012.safetensors",
    ):
        assert (folder / "resumed" / name).read_bytes() == (folder / "run" / name).read_bytes(), name


@pytest.mark.parametrize("name", ["captured", "uncaptured"])
def test_captured_it_is_the_same_and_one_that_cannot_stops_capture_in_all(
    ranks: tuple[int, Path], name: str
) -> None:
    """By a stand-in for the capture: no GPU has run it."""
    processes, folder = ranks
    for file in ("pretraining.safetensors", "log.jsonl"):
        assert (folder / name / file).read_bytes() == (folder / "run" / file).read_bytes()
    for rank in range(processes):
        told = json.loads((folder / f"{name}-{rank}.json").read_text())
        assert len(told) == (name == "uncaptured"), told


def test_where_one_process_refuses_all_stop_with_its_reason(ranks: tuple[int, Path]) -> None:
    processes, folder = ranks
    first, *others = [json.loads((folder / f"refusal-{rank}.json").read_text()) for rank in range(processes)]
    assert first["type"] == "InputError"
    assert "already holds a run" in first["message"]
    for rank, other in enumerate(others, start=1):
        assert other["type"] == "TrainingError"
        assert other["message"] == f"process {rank} stops, since process 0 stopped: {first['message']}"


def test_a_process_that_is_alone_leaves_gradients_as_they_are() -> None:
    world, parameter = join_world("cpu"), torch.nn.Parameter(torch.zeros(2))
    world.average_gradients([parameter])
    assert (world.rank, world.size, world.is_main) == (0, 1, True)
    assert parameter.grad is None


def test_nothing_holds_the_group_after_the_run(run_program: Callable) -> None:
    """A Gloo group that lives until the interpreter ends aborts it, now and then, after all is done."""
    done = run_program("leaving.py", processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
