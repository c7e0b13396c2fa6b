"""What does a store cost beside decoding and the backbone? And does the program that compares ways of training run?"""

from __future__ import annotations

import importlib
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

OVERHEAD = 0.03  # of decoding and backbone, at most


@pytest.fixture(scope="module")
def programs() -> Iterator[SimpleNamespace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "programs"))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in ("extraction", "online")})


def test_extraction(benchmark, programs, tmp_path, smaller):
    """The same features with a store and without one, timed in turns; the median of the pairs counts."""
    benchmark.group = "extraction: with the store, beside decoding and backbone alone"
    program = programs.extraction
    videos = program.render_videos(
        tmp_path / "videos", videos=2 if smaller else 16, seconds=2 if smaller else 10
    )
    job = program.make_job(videos, backbone="r3d-tiny")
    program.check(job, tmp_path)
    count = 1 if smaller or not benchmark.enabled else 7
    rows = benchmark.pedantic(program.pairs, args=(job, tmp_path), kwargs={"number": count}, rounds=1)
    overhead = statistics.median(row["ratio"] for row in rows) - 1
    benchmark.extra_info.update(
        seconds={way: min(row[way] for row in rows) for way in ("bare", "whole")},
        pairs=rows,
        overhead=overhead,
        target=OVERHEAD,
        load=os.getloadavg()[0],
    )
    if benchmark.enabled and not smaller:
        print(f"\nextraction adds {overhead:+.2%} to decoding and backbone (target: below {OVERHEAD:.0%})")
        assert overhead < OVERHEAD


def test_online(programs, tmp_path):
    """All three ways end with a finite loss."""
    videos = programs.extraction.render_videos(tmp_path / "videos", videos=4, seconds=1)
    job = programs.extraction.make_job(videos, backbone="r3d-tiny")
    config = programs.online.PretrainConfig(epochs=1, batch_size=4, hidden_dim=32, head_dim=32, target_dim=32)
    for action in programs.online.ways(job, tmp_path, config).values():
        assert action().losses["loss"] > 0
