"""What every process of a `torchrun` does: `ranks.py STORE FOLDER CONFIG_JSON`; leaves files in FOLDER."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from scalefast import FeatureStore, _collectives, kernels
from scalefast.errors import ScalefastError
from scalefast.pretraining import PretrainingLosses
from scalefast.training import PretrainConfig, gradients, pretrain
from scalefast.training import step as step_module
from scalefast.training.bank import ShardedBank, load_bank
from scalefast.training.distributed import World, join_world
from scalefast.training.sampler import BatchPlan
from scalefast.training.state import build_task


def leave_gradients(world: World, store: Path, folder: Path, config: PretrainConfig, *, step: int) -> None:
    """Loss on every process and averaged gradients of one step, dropout and all."""
    features, positions = FeatureStore.open(store).load()
    task = build_task(config, feature_dim=features.shape[-1]).train()
    plan = BatchPlan(
        num_videos=len(features), batch_size=config.batch_size, epochs=config.epochs, seed=config.seed
    )
    rows = plan.order(step // plan.steps_per_epoch)[plan.share(step, rank=world.rank, world_size=world.size)]
    rng = kernels.RandomState.create(config.seed, step=step, rows=rows)
    sets = kernels.sample_views(features, positions, rows, views=config.views, rng=rng)
    average = gradients.GradientAverage(task.trained_parameters(), processes=world.size)
    with pytest.MonkeyPatch.context() as patch:
        asked = "ranks that know their shares asked each other for them"
        patch.setattr(_collectives, "_row_counts", lambda *_: pytest.fail(asked))
        losses = task(*sets, rng=rng, shares=plan.shares(world.size))
    losses.loss.backward()
    early = average._sent
    average.finish()
    left = {name: parameter.grad for name, parameter in task.named_parameters()}
    at_once = build_task(config, feature_dim=features.shape[-1]).train()
    at_once(*sets, rng=rng).loss.backward()
    world.average_gradients(at_once.trained_parameters())
    for parameter, other in zip(task.parameters(), at_once.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad)
    left |= {"loss": losses.loss.detach(), "early": torch.tensor([early, len(average._buckets)])}
    save_file(left, folder / f"gradients-{step}-{world.rank}.safetensors")


def leave_batches(world: World, store: Path, folder: Path, config: PretrainConfig) -> None:
    """What this process gets of every batch, from a bank in parts and from one on the disk."""
    for residence in ("resident", "stream"):
        bank = load_bank(store, views=config.views, world=world, residence=residence)
        plan = BatchPlan(
            num_videos=len(bank), batch_size=config.batch_size, epochs=config.epochs, seed=config.seed
        )
        left = {}
        for step, batch in enumerate(bank.batches(plan, start=0, views=config.views)):
            rng = kernels.RandomState.create(config.seed, step=step, rows=batch.rows)
            features, positions = bank.sets(batch, views=config.views, rng=rng)
            left |= {f"rows-{step}": batch.rows, f"features-{step}": features, f"positions-{step}": positions}
        held = bank.features if isinstance(bank, ShardedBank) else torch.empty(0)
        save_file({**left, "held": held}, folder / f"batches-{residence}-{world.rank}.safetensors")


def leave_damage(world: World, folder: Path, config: PretrainConfig) -> None:
    """What each process raises where the part that the last one reads is damaged."""
    damaged = folder / "damaged"
    if world.is_main:  # 4 MiB under 4 checksums: with up to 4 processes one alone reads the last
        FeatureStore.create(damaged, features=torch.ones(8, 8, 1 << 15, dtype=torch.float16))
        last = sorted(damaged.glob("shard-*"))[-1]
        content = bytearray(last.read_bytes())
        content[-100] ^= 1
        last.write_bytes(content)
    dist.barrier()
    try:
        load_bank(damaged, views=config.views, world=world)
    except ScalefastError as error:
        told = {"type": type(error).__name__, "message": str(error)}
        (folder / f"damage-{world.rank}.json").write_text(json.dumps(told))


def leave_refusal(world: World, store: Path, folder: Path, config: PretrainConfig) -> None:
    """What each process raises where the first one refuses: nobody waits for ever."""
    try:
        pretrain(store, out=folder / "run", config=config, progress=False)
    except ScalefastError as error:
        told = {"type": type(error).__name__, "message": str(error)}
        (folder / f"refusal-{world.rank}.json").write_text(json.dumps(told))


def leave_resumed(world: World, store: Path, folder: Path, config: PretrainConfig) -> None:
    """The run again, resumed from step 8 of 12."""
    if world.is_main:
        shutil.copytree(folder / "run", folder / "resumed")
        for name in ("model.safetensors", "pretraining.safetensors", "checkpoints/step-00000012.safetensors"):
            (folder / "resumed" / name).unlink()
    dist.barrier()
    result = pretrain(store, out=folder / "resumed", config=config, resume=True, progress=False)
    assert result.resumed_from == 8
    assert result.is_main == world.is_main


def leave_captured(world: World, store: Path, folder: Path, config: PretrainConfig) -> None:
    """The run as if steps were captured, in all processes, and then in all but the last."""

    def capture(compute: Callable[[], PretrainingLosses]) -> Callable[[], PretrainingLosses]:
        for _ in range(step_module._WARM_UP):
            compute()
        if fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        return compute

    for name, refuses in (("captured", False), ("uncaptured", True)):
        fails = refuses and world.rank == world.size - 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step_module, "captures", lambda **_: (True, ""))
            patch.setattr(step_module, "capture_graph", capture)
            result = pretrain(store, out=folder / name, config=config, progress=False)
        told = [note for note in result.notes if "not permitted when stream is capturing" in note]
        (folder / f"{name}-{world.rank}.json").write_text(json.dumps(told))


def main(store: Path, folder: Path, config: PretrainConfig) -> None:
    torch.set_num_threads(1)
    gradients.BUCKET_BYTES = 1 << 13  # several, of a model of 60 kB
    pretrain(store, out=folder / "run", config=config, progress=False)
    world = join_world("cpu")
    for step in (0, 3):
        leave_gradients(world, store, folder, config, step=step)
    leave_batches(world, store, folder, config)
    leave_damage(world, folder, config)
    leave_refusal(world, store, folder, config)
    leave_resumed(world, store, folder, config)
    leave_captured(world, store, folder, config)


main(Path(sys.argv[1]), Path(sys.argv[2]), PretrainConfig.from_json(sys.argv[3]))
