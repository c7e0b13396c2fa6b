"""A finished (or interrupted) run, read from its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scalefast.hub import load_weights
from scalefast.model import SCALE
from scalefast.pretraining import SCALEPretraining
from scalefast.training.config import PretrainConfig
from scalefast.training.logs import LOG_NAME, SPEED_NAME, read_log
from scalefast.training.run_folder import TASK_NAME, read_record
from scalefast.training.state import build_task

__all__ = ["Run", "load_run"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run folder holds; weights and logs are read when asked for."""

    folder: Path
    """The run folder."""

    config: PretrainConfig
    """The resolved configuration."""

    record: dict[str, Any]
    """run.json: `config`, `model` (arguments of SCALE), `store` (sizes, checksums, provenance),
    `versions`."""

    @property
    def finished(self) -> bool:
        """Whether the run came to its end and left its weights."""
        return (self.folder / TASK_NAME).is_file()

    def model(self, *, device: str | torch.device = "cpu") -> SCALE:
        """The trained aggregator, in eval mode.

        Raises:
            InputError: the run is not finished. DataError: a damaged file.
        """
        return SCALE.from_pretrained(self.folder, device=device)

    def task(self, *, device: str | torch.device = "cpu") -> SCALEPretraining:
        """The aggregator with the heads and losses that trained it, in eval mode.

        Raises:
            DataError: the run is not finished, or a damaged file.
        """
        task = build_task(self.config, feature_dim=self.record["model"]["feature_dim"])
        load_weights(task, self.folder / TASK_NAME)
        return task.to(device).eval()

    def log(self) -> list[dict[str, Any]]:
        """Lines of the log: `step`, `epoch`, losses, accuracies, `learning_rate`."""
        return read_log(self.folder / LOG_NAME)

    def speed(self) -> list[dict[str, Any]]:
        """For the same steps: `seconds` in this session, `videos_per_second`, `clips_per_second`."""
        return read_log(self.folder / SPEED_NAME)


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run folder.

    Raises:
        InputError: the folder holds no run. DataError: run.json is damaged or has an unknown field.
    """
    path = Path(folder)
    record = read_record(path)
    return Run(folder=path, config=PretrainConfig.from_dict(record["config"]), record=record)
