"""Ray as the engine: the store of one process, also when decoders and backbone actors are killed on the way.

Needs Ray, which is large: CI installs it for this file alone.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scalefast.cli import main
from scalefast.errors import DataError, InputError, StoreError
from scalefast.features import FeatureStore, extract_on_ray
from scalefast.video import VideoList

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'scalefast[ray]'")
pytest.importorskip("pyarrow", reason="Ray Data needs pyarrow: pip install 'scalefast[ray]'")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two CPUs; its processes find scalefast and the modules of these tests."""
    here = str(Path(__file__).parent)
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "disabled")
    patch.syspath_prepend(here)
    path = os.pathsep.join([here, str(Path(__file__).parents[2])])
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False,
        runtime_env={"env_vars": {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}},
    )  # fmt: skip
    yield
    ray.shutdown()
    patch.undo()


@pytest.fixture
def reference(tiny: Any, video_folder: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files of one process."""
    tiny.extract(video_folder, tmp_path / "reference", tmp_path / "reference.log")
    return files_of(tmp_path / "reference")


@pytest.fixture
def loading() -> Any:
    """The module ray_loading, as the actors import it."""
    return importlib.import_module("ray_loading")


def files_of(folder: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in sorted(folder.iterdir())}


def run(tiny: Any, videos: Path, out: Path, *, load: Callable[[str], Any], **more: Any) -> Any:
    given = {"recipe": tiny.recipe(), "batch_clips": 4, "shard_videos": 3, "progress": False, **more}
    return extract_on_ray(VideoList.read(videos), load=load, out=out, **given)


def traces(folder: Path) -> tuple[list[int], list[tuple[int, str]]]:
    """Processes that loaded a backbone; (process of a decoder, id) of each video."""
    loaded = [int(path.name.partition("-")[2]) for path in folder.glob("backbone-*")]
    log = folder / "decoders"
    lines = log.read_text().splitlines() if log.exists() else []
    words = [line.partition(" ") for line in lines]
    return loaded, [(int(pid), name) for pid, _, name in words]


def test_the_store_of_one_process(
    tiny: Any, loading: Any, video_folder: Path, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """By two backbone actors with a decoder each; then there is nothing left to do."""
    load = loading.TracedLoad(str(tmp_path))
    summary = run(tiny, video_folder, tmp_path / "s", load=load, backbones=2, decoders=2)
    assert (summary.listed, summary.ok, summary.short, summary.bad, summary.missing) == (11, 8, 1, 1, 1)
    assert summary.decoded == 11 and files_of(tmp_path / "s") == reference
    loaded, decoded = traces(tmp_path)
    assert len(set(loaded)) == 2 and len({pid for pid, _ in decoded}) == 2
    assert sorted(name for _, name in decoded) == sorted(entry.id for entry in VideoList.read(video_folder))
    assert 0 < summary.stages["decode"] <= 1 and summary.speed(price_per_hour=1.0)
    again = run(tiny, video_folder, tmp_path / "s", load=load, decoders=1)
    assert again.decoded == 0 and len(traces(tmp_path)[1]) == 11
    assert len(FeatureStore.open(tmp_path / "s")) == 9


@pytest.mark.parametrize("victim", ["decoder", "backbone"])
def test_killed_actors_are_replaced(
    tiny: Any,
    loading: Any,
    video_folder: Path,
    tmp_path: Path,
    reference: dict[str, bytes],
    capsys: Any,
    victim: str,
) -> None:
    """`kill -9` in the middle: what was not finished is done again, and the bytes are the same."""
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            loaded, decoded = traces(tmp_path)
            if len(decoded) >= 4:
                killed.append(decoded[-1][0] if victim == "decoder" else loaded[-1])
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    load = loading.TracedLoad(str(tmp_path), pause=0.1)
    summary = run(tiny, video_folder, tmp_path / "s", load=load, backbones=1, decoders=1, progress=True)
    killer.join(10)
    loaded, decoded = traces(tmp_path)
    if victim == "backbone":
        assert len(set(loaded)) == 2 and "a backbone actor died" in capsys.readouterr().err
    else:
        assert len(set(loaded)) == 1 and len({pid for pid, _ in decoded}) == 2
    assert len(decoded) > 11, "the interrupted videos are decoded again"
    assert summary.used == 9 and files_of(tmp_path / "s") == reference


def test_errors_keep_their_words(tiny: Any, loading: Any, video_folder: Path, tmp_path: Path) -> None:
    """What an actor raises reaches the user as if there were no cluster."""
    load = loading.TracedLoad(str(tmp_path))
    with pytest.raises(InputError, match="there is no backbone 'nosuch'"):
        run(tiny, video_folder, tmp_path / "s", load=loading.refuse)
    with pytest.raises(InputError, match="the clip recipe gives 5 frames"):
        run(tiny, video_folder, tmp_path / "s", load=load, recipe=tiny.recipe(num_frames=5))
    assert not (tmp_path / "s").exists()
    with pytest.raises(InputError, match="as many decoders, got 2 and 1"):
        run(tiny, video_folder, tmp_path / "s", load=load, backbones=2, decoders=1)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.mp4").write_text("no video")
    with pytest.raises(DataError, match="none of the 1 listed videos can be decoded"):
        run(tiny, tmp_path / "none", tmp_path / "s", load=load, decoders=1)
    tiny.extract(video_folder, tmp_path / "other", tmp_path / "log", seed=3)
    with pytest.raises(StoreError, match=r"was made from something else.*seed: 3 there, 0 now"):
        run(tiny, video_folder, tmp_path / "other", load=load)


def test_the_verb(video_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a user types it, with a backbone that the library has; the other engine finds nothing left to do."""
    words = ["extract", str(video_folder), "--backbone", "r3d-tiny", "--clips", "2", "--precision", "fp32"]
    words += ["--out", str(tmp_path / "s"), "--device", "cpu", "--workers", "1"]
    assert main([*words, "--engine", "ray"]) == 0
    assert "10 found, 9 used" in capsys.readouterr().out
    assert main(words) == 0
    assert "complete already; nothing to do" in capsys.readouterr().err
