"""How the tests of rendered videos look at them, as fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scalefast.demo.scene import FRAME_SIZE


@pytest.fixture(scope="session")
def frames_of() -> Callable[[Path], np.ndarray]:
    """A file -> uint8 [T, H, W, 3]."""

    def read(path: Path) -> np.ndarray:
        import av

        with av.open(str(path)) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

    return read


@pytest.fixture(scope="session")
def path_of_centre() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Frames -> centre y and x of what differs from the video's median, in every frame."""

    def path(shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = np.abs(shown - np.median(shown, axis=0)).sum(-1)
        weight = moved / moved.sum((1, 2), keepdims=True).clip(1e-6)
        rows, columns = (np.arange(size) for size in FRAME_SIZE)
        return (weight * rows[None, :, None]).sum((1, 2)), (weight * columns[None, None, :]).sum((1, 2))

    return path


@pytest.fixture(scope="session")
def left_out_accuracy() -> Callable[[np.ndarray, np.ndarray], float]:
    """Hint [N, K] and labels [N] -> accuracy of 5 nearest neighbours on the standardised hint, each video left out in
    turn."""

    def accuracy(hint: np.ndarray, labels: np.ndarray) -> float:
        places = (hint - hint.mean(0)) / hint.std(0)
        distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
        np.fill_diagonal(distance, np.inf)
        votes = np.eye(labels.max() + 1)[labels[np.argsort(distance, axis=1)[:, :5]]].sum(1)
        return float((votes.argmax(1) == labels).mean())

    return accuracy
