"""The Python examples of docs/cvrl.md run, in order."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np

from scalefast.features import FeatureStore
from scalefast.video import VideoList

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cvrl.md"


def store(path: Path) -> FeatureStore:
    features = np.random.default_rng(len(path.name)).standard_normal((12, 3, 5)).astype(np.float32)
    ids = [f"{path.name}-{number}" for number in range(12)]
    return FeatureStore.create(path, features=features, labels=np.arange(12) % 3, ids=ids)


def test_examples_run(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        shutil.copytree(videos.source, tmp_path / "videos" / split)
    text = PAGE.read_text(encoding="utf-8").replace("FinetuneConfig(label_share=0.1)", "SHORT")
    first, second = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(first, str(PAGE), "exec"), names)
    assert 0 <= names["result"].losses["accuracy"] <= 1  # type: ignore[attr-defined]
    assert (tmp_path / "encoder" / "model.safetensors").is_file()
    from scalefast.cvrl import ClipTraining, FinetuneConfig

    short = ClipTraining(epochs=1, batch_size=8, learning_rate=0.01)
    names |= {
        "SHORT": FinetuneConfig(label_share=0.1, temporal=1, spatial=1, training=short),
        "train_store": store(tmp_path / "one"),
        "test_store": store(tmp_path / "other"),
        **{f"{split}_videos": VideoList.read("videos", split=split) for split in ("train", "test")},
    }
    exec(compile(second, str(PAGE), "exec"), names)
    assert (tmp_path / "tuned" / "head.safetensors").is_file()
