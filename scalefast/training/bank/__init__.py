"""The features that a run trains on: where they lie, and how a step's batch comes from there.

    resident   all of them on the device that trains, which draws the views of a step itself
    sharded    the same in several processes: each holds its part of the videos and sends what others train on
    streamed   on the disk: a thread reads the clips of the coming batches from the store's memory-mapped shards

All three give the same batches to the bit.
"""

from __future__ import annotations

from scalefast.training.bank.batch import Bank, BankSource, Batch
from scalefast.training.bank.loading import load_bank
from scalefast.training.bank.placing import Residence
from scalefast.training.bank.resident import ResidentBank
from scalefast.training.bank.sharded import ShardedBank
from scalefast.training.bank.streamed import StreamedBank

__all__ = [
    "Bank",
    "BankSource",
    "Batch",
    "Residence",
    "ResidentBank",
    "ShardedBank",
    "StreamedBank",
    "load_bank",
]
