"""What every process of a `torchrun` does: `ranks.py STORE FOLDER CONFIG_JSON`; leaves files in FOLDER."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from scalefast import FeatureStore, kernels
from scalefast.errors import ScalefastError
from scalefast.training import PretrainConfig, pretrain
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
    losses = task(*kernels.sample_views(features, positions, rows, views=config.views, rng=rng), rng=rng)
    losses.loss.backward()
    world.average_gradients(list(task.parameters()))
    left = {name: parameter.grad for name, parameter in task.named_parameters()}
    left["loss"] = losses.loss.detach()
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


def main(store: Path, folder: Path, config: PretrainConfig) -> None:
    torch.set_num_threads(1)
    pretrain(store, out=folder / "run", config=config, progress=False)
    world = join_world("cpu")
    for step in (0, 3):
        leave_gradients(world, store, folder, config, step=step)
    leave_batches(world, store, folder, config)
    leave_damage(world, folder, config)
    leave_refusal(world, store, folder, config)
    leave_resumed(world, store, folder, config)


main(Path(sys.argv[1]), Path(sys.argv[2]), PretrainConfig.from_json(sys.argv[3]))
