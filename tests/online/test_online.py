"""Pretraining straight from videos: fresh clips, nothing replaced, and a killed run ends as an uninterrupted one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from scalefast import kernels
from scalefast.errors import DataError, InputError, StoreError
from scalefast.features import FeatureStore, _job, extract
from scalefast.kernels import RandomState
from scalefast.online import OnlineVideos
from scalefast.training import PretrainConfig, load_run, pretrain
from scalefast.training.distributed import World
from scalefast.training.sampler import BatchPlan
from scalefast.video import VideoList, load_clips, normalize_positions, read_ledger
from scalefast.video import test_recipe as views_recipe

Make = Callable[..., OnlineVideos]
PROGRAM = Path(__file__).with_name("online_run.py")
LOST = {"gone.mp4": "missing", "text.mp4": "bad"}
SAME = ("run.json", "log.jsonl", "model.safetensors", "pretraining.safetensors", "ledger.csv")


def files_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SAME}


def train(source: OnlineVideos, out: Path, config: PretrainConfig, **more: Any) -> Any:
    return pretrain(source, out=out, config=config, device="cpu", progress=False, **more)


def batches(source: OnlineVideos, config: PretrainConfig, folder: Path, *, start: int = 0) -> list[Any]:
    """All batches of a run from a step on."""
    folder.mkdir(exist_ok=True)
    world = World(rank=0, size=1, device=torch.device("cpu"))
    bank = source.open_bank(config=config, world=world, folder=folder, say=lambda text: None)
    plan = plan_of(source, config)
    return list(bank.batches(plan, start=start, views=config.views))


def plan_of(source: OnlineVideos, config: PretrainConfig) -> BatchPlan:
    return BatchPlan(
        num_videos=len(source.videos), batch_size=config.batch_size, epochs=config.epochs, seed=config.seed
    )


def test_every_epoch_has_fresh_clips(online: Make, config: PretrainConfig, tiny: Any, tmp_path: Path) -> None:
    """Each video's features are those of the clips of (seed, epoch, id), and a step draws its sets of them."""
    source = online()
    found = batches(source, config, tmp_path)
    plan = plan_of(source, config)
    assert len(found) == plan.total_steps == 6
    for (step, rows), batch in zip(plan.batches(0), found, strict=True):
        names = [source.videos[row].id for row in rows.tolist()]
        kept = [row for row, name in zip(rows.tolist(), names, strict=True) if name not in LOST]
        assert batch.rows.tolist() == kept and batch.features.shape == (len(kept), 2, 2, 6)
        rng = RandomState.create(config.seed, step=step, rows=batch.rows)
        chosen = kernels.draw_views(rng, clips=4, views=2)
        for place, row in enumerate(kept):
            entry = source.videos[row]
            clips, raw, meta, _ = load_clips(
                entry.path,
                source.recipe,
                seed=config.seed,
                video_id=entry.id,
                epoch=step // plan.steps_per_epoch,
            )
            features = tiny.TinyBackbone()(torch.from_numpy(clips)).half()
            positions = torch.from_numpy(normalize_positions(raw, mode="paper", duration=meta.duration))
            assert torch.equal(batch.features[place][..., :5], features[chosen[place]][..., :5])
            assert torch.equal(batch.positions[place], positions[chosen[place]])


def test_batches_follow_from_the_step_alone(online: Make, config: PretrainConfig, tmp_path: Path) -> None:
    """From the middle of an epoch on, and by two workers: the same."""
    whole = batches(online(), config, tmp_path)
    rest = batches(online(workers=2), config, tmp_path, start=3)
    assert len(rest) == 3
    for one, other in zip(whole[3:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_run_and_what_it_leaves(
    online: Make, config: PretrainConfig, videos: VideoList, tmp_path: Path
) -> None:
    """A model, a ledger of every video that was read, and the counts in words; the same bytes again."""
    result = train(online(), tmp_path / "one", config)
    assert result.steps == 6 and load_run(tmp_path / "one").model().feature_dim == 6
    rows = {row.path: row.status for row in read_ledger(tmp_path / "one" / "ledger.csv")}
    assert {name: status for name, status in rows.items() if status in ("bad", "missing")} == LOST
    assert list(rows) == [entry.id for entry in videos if entry.id in rows]
    assert sorted(note for note in result.notes if note.startswith("left out")) == [
        "left out: gone.mp4: missing", "left out: text.mp4: unreadable"
    ]  # fmt: skip
    unread = 11 - len(rows)
    assert (
        f"11 listed = {9 - unread} ok + 0 short + 1 bad + 1 missing + {unread} not read" in result.notes[-1]
    )
    assert re.search(r" used; of the time: decode \d+% backbone \d+% write 0%$", result.notes[-1])
    train(online(workers=2), tmp_path / "two", config)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    record = json.loads((tmp_path / "one" / "run.json").read_text())["store"]
    assert record["online"] == "fresh clips" and record["provenance"]["backbone"]["name"] == "tiny"


@pytest.mark.parametrize("keep", [False, True], ids=["fresh", "kept"])
def test_kill_9_and_resume(
    online: Make, config: PretrainConfig, videos: VideoList, tmp_path: Path, keep: bool
) -> None:
    """Killed in an epoch's middle, the run ends with the bytes of one that was left alone, and so does its store."""
    source, out = Path(videos.source), tmp_path / "run"
    kept = [str(tmp_path / name) if keep else "" for name in ("store-1", "store-2")]
    command = [sys.executable, str(PROGRAM), str(source), str(out), kept[0], "0.1"]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
    try:
        while process.poll() is None and not list(out.glob("checkpoints/*")):
            time.sleep(0.01)
        time.sleep(0.1)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.wait()
    assert not (out / "model.safetensors").exists()
    resumed = train(online(keep=kept[0] or None), out, config, resume=True)
    assert 0 < resumed.resumed_from < 6
    train(online(keep=kept[1] or None), tmp_path / "quiet", config)
    assert files_of(out) == files_of(tmp_path / "quiet")
    if keep:
        stores = [{p.name: p.read_bytes() for p in Path(name).iterdir()} for name in kept]
        assert stores[0] == stores[1]


def test_dali_decodes_for_a_run(online: Make, config: PretrainConfig, tmp_path: Path) -> None:
    """Epoch by epoch, on the CPU here: the videos and sets of PyAV, features almost, bad files left out."""
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install 'scalefast[dali]'")
    expected = batches(online(), config, tmp_path / "pyav")
    found = batches(online(decoder="dali"), config, tmp_path / "dali")
    assert len(found) == len(expected) == 6
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.rows, other.rows) and torch.equal(one.positions, other.positions)
        assert torch.allclose(one.features[..., :5].float(), other.features[..., :5].float(), atol=0.1)
    ledgers = [(tmp_path / name / "ledger.csv").read_bytes() for name in ("pyav", "dali")]
    assert ledgers[0] == ledgers[1]


def test_the_kept_store_is_that_of_an_extraction(
    online: Make, config: PretrainConfig, tiny: Any, tmp_path: Path, videos: VideoList
) -> None:
    """Of the list in the first epoch's order; and every epoch trains on its clips, without decoding again."""
    source, log = online(keep=tmp_path / "kept"), tmp_path / "log"
    counting = sys.modules["counting_job"].CountingJob
    with mock.patch.object(_job, "DecodeJob", lambda **given: counting(**given, log=str(log))):
        first = train(source, tmp_path / "one", config)
        assert sorted(log.read_text().splitlines()) == sorted(entry.id for entry in videos)
        again = train(online(keep=tmp_path / "kept"), tmp_path / "two", config)
        assert len(log.read_text().splitlines()) == len(videos)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two") and first.losses == again.losses
    assert first.notes[-1].startswith("videos: 11 listed = 9 ok + 0 short + 1 bad + 1 missing + 0 not read")
    order = plan_of(source, config).order(0).tolist()
    permuted = replace(videos, entries=tuple(videos[row] for row in order))
    extract(
        permuted, backbone=source.backbone, recipe=source.recipe, seed=config.seed, batch_clips=4,
        out=tmp_path / "extracted", workers=1, progress=False,
    )  # fmt: skip
    files = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("kept", "extracted")]
    assert files[0] == files[1]
    store = FeatureStore.open(tmp_path / "kept")
    for batch in batches(online(keep=tmp_path / "kept"), config, tmp_path / "folder"):
        for row, features in zip(batch.rows.tolist(), batch.features, strict=True):
            own = store.features[store.ids.index(videos[row].id)]
            assert all(any(torch.equal(clip, other) for other in own) for clip in features.flatten(0, 1))


def test_two_processes(online: Make, config: PretrainConfig, videos: VideoList, tmp_path: Path) -> None:
    """Each decodes its part of every batch: the losses of one process to rounding, and one ledger."""
    train(online(), tmp_path / "one", config)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(PROGRAM), videos.source, str(tmp_path / "two"), "", "0"]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [line["loss"] for line in logs[1]] == pytest.approx([line["loss"] for line in logs[0]], rel=2e-3)
    assert (tmp_path / "one" / "ledger.csv").read_bytes() == (tmp_path / "two" / "ledger.csv").read_bytes()


def test_a_store_of_another_seed_is_refused(online: Make, config: PretrainConfig, tmp_path: Path) -> None:
    """Its list stands in another order. And so is a folder of something else; the run's folder is free afterwards."""
    train(online(keep=tmp_path / "kept"), tmp_path / "one", config)
    with pytest.raises(StoreError, match=r"was made from something else.*seed: 4 there, 5 now"):
        train(online(keep=tmp_path / "kept"), tmp_path / "two", config.replace(seed=5))
    with pytest.raises(StoreError, match=r"a new store needs an empty folder"):
        train(online(keep=tmp_path / "one" / "checkpoints"), tmp_path / "two", config)
    train(online(keep=tmp_path / "other"), tmp_path / "two", config)


def test_a_batch_in_which_nothing_decodes(online: Make, config: PretrainConfig, tmp_path: Path) -> None:
    """The run stops, and says at which step."""
    for number in range(4):
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / f"{number}.mp4").write_text("no video")
    videos = VideoList.read(tmp_path / "videos")
    with pytest.raises(DataError, match="none of the 4 videos of step 1 can be decoded"):
        train(online(videos=videos), tmp_path / "run", config)
    with pytest.raises(DataError, match="none of the 4 videos of step 1 can be decoded"):
        train(online(videos=videos, keep=tmp_path / "kept"), tmp_path / "other", config)


def test_what_does_not_fit_is_refused(
    online: Make, config: PretrainConfig, tiny: Any, tmp_path: Path
) -> None:
    """Before anything is decoded."""
    with pytest.raises(InputError, match="views=3 need 6 clips a video; the recipe has 4"):
        train(online(), tmp_path / "run", config.replace(views=3))
    with pytest.raises(InputError, match="training takes random clips, not those of the recipe 'test'"):
        online(recipe=views_recipe(num_frames=4, stride=2, size=16))
    world = World(rank=0, size=2, device=torch.device("cpu"))
    with pytest.raises(InputError, match="keep fills a store from one process"):
        online(keep=tmp_path / "s").open_bank(config=config, world=world, folder=tmp_path, say=print)
    assert not (tmp_path / "s").exists()


def test_the_example_of_the_documents_runs(
    videos: VideoList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/extraction.md, as it stands but for a smaller model."""
    page = Path(__file__).parents[2] / "docs" / "extraction.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").symlink_to(videos.source)
    exec(code.replace("epochs=1", "epochs=1, hidden_dim=32, head_dim=32, target_dim=32"), {})
    assert load_run(tmp_path / "run").finished
