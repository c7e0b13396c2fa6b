"""What does a store cost beside decoding and the backbone? And does the program that compares ways of training run?"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest
import torch

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="module")
def program() -> dict:
    return runpy.run_path(str(PROGRAMS / "extraction.py"))


@pytest.mark.parametrize("way", ["bare", "whole"])
def test_extraction(benchmark, program, tmp_path, smaller, way):
    """The same features with a store and without one."""
    benchmark.group = "extraction: decoding and backbone alone, and with the store"
    videos = program["render_videos"](
        tmp_path / "videos", videos=2 if smaller else 16, seconds=2 if smaller else 10
    )
    job = program["make_job"](videos, backbone="r3d-tiny")
    actions = {
        "bare": lambda: program["bare"](job),
        "whole": lambda: program["whole"](job, tmp_path / "store"),
    }
    expected = program["bare"](job)
    result = benchmark.pedantic(actions[way], rounds=3, warmup_rounds=0)
    assert torch.equal(result, expected)
    benchmark.extra_info["load"] = os.getloadavg()[0]


def test_online(program, tmp_path):
    """All three ways end with a finite loss."""
    online = runpy.run_path(str(PROGRAMS / "online.py"))
    videos = program["render_videos"](tmp_path / "videos", videos=4, seconds=1)
    job = program["make_job"](videos, backbone="r3d-tiny")
    config = online["PretrainConfig"](epochs=1, batch_size=4, hidden_dim=32, head_dim=32, target_dim=32)
    for action in online["ways"](job, tmp_path, config).values():
        assert action().losses["loss"] > 0
