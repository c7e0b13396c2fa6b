"""Run an ablation and kill this process, without warning, when so many checkpoints have been written."""

from __future__ import annotations

import os
import signal
import sys

import torch

from scalefast.ablation import ablate
from scalefast.training import PretrainConfig
from scalefast.training.session import Session

torch.set_num_threads(1)
train, test, out, config, study, checkpoints, batched = sys.argv[1:]
save, written = Session.save, []


def save_and_die(self: Session, step: int) -> None:
    save(self, step)
    written.append(step)
    if len(written) == int(checkpoints):
        os.kill(os.getpid(), signal.SIGKILL)


Session.save = save_and_die  # type: ignore[method-assign]
base = PretrainConfig.from_json(config)
ablate(train, test=test, out=out, base=base, studies=[study], seeds=2, batched=batched)  # type: ignore[arg-type]
