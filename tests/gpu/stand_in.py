"""A CPU in the GPU's place, so that the tests of this folder can be run where there is none.

    SCALEFAST_GPU_STAND_IN=1 python -m pytest tests/gpu -m "not large"

It shows that they run: that they call what is there, in the way in which it is called now. Whether a GPU would agree is
not shown. A CUDA graph is a function that is called again; streams and events do nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from scalefast.kernels.ops import dispatch
from scalefast.training import step
from scalefast.training.batched import step as batched

__all__ = ["stand_in"]

PROPERTIES = SimpleNamespace(
    multi_processor_count=132, total_memory=80 << 30, major=9, minor=0, name="stand-in"
)


class OnTheHost(TorchFunctionMode):
    """What is asked of a CUDA device is done on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:  # a device may be named
            return func(*args, **(kwargs or {}))
        kwargs = {name: place(value) for name, value in (kwargs or {}).items() if name != "pin_memory"}
        return func(*map(place, args), **kwargs)


def place(value: Any) -> Any:
    asked = value.type if isinstance(value, torch.device) else value
    return torch.device("cpu") if isinstance(asked, str) and asked.split(":")[0] == "cuda" else value


class Idle:
    """A stream, or an event: nothing is late here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def wait_stream(self, other: Any) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass


@contextlib.contextmanager
def stand_in() -> Iterator[torch.device]:
    """The CPU under the name of a CUDA device."""
    with pytest.MonkeyPatch.context() as patch, OnTheHost():
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "set_device": lambda device: None,
            "current_device": lambda: 0,
            "get_device_name": lambda device=None: PROPERTIES.name,
            "get_device_properties": lambda device=None: PROPERTIES,
            "get_device_capability": lambda device=None: (9, 0),
            "mem_get_info": lambda device=None: (80 << 30, 80 << 30),
            "is_current_stream_capturing": lambda: False,
            "synchronize": lambda device=None: None,
            "current_stream": Idle,
            "Stream": Idle,
            "Event": Idle,
            "stream": lambda stream: contextlib.nullcontext(),
        }.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
        patch.setattr(dispatch, "_found_lacking", lambda index: None)
        for module in (step, batched):
            patch.setattr(module, "capture_graph", called_again)
        yield torch.device("cuda", 0)


def called_again(compute: Any) -> Any:
    """In `capture_graph`'s place: the same warm-up, a capture that computes nothing, replays that do."""
    for _ in range(step._WARM_UP):
        compute()
    return compute
