"""Two small stores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scalefast.demo.feature_sets import FeatureSet, write_feature_set


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Training and test store, 24 videos of 8 clips each."""
    folder = tmp_path_factory.mktemp("sets")
    drawn = FeatureSet(structure="spread", clips=8, feature_dim=16)
    found = write_feature_set(folder, drawn, videos={"train": 24, "test": 24})
    return found["train"].path, found["test"].path
