"""Time on a GPU: a captured CUDA graph replayed over rotating inputs, beside peers, and what the chip itself can do.

Inputs rotate so that the 50 MB cache of an H100 does not hold them from one replay to the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = [
    "compiled",
    "copy_bandwidth",
    "finished",
    "graph_replay_seconds",
    "matmul_rate",
    "spread",
    "time_beside_peers",
]


def graph_replay_seconds(
    function: Callable[..., Any],
    *,
    inputs_to_rotate: Sequence[tuple[Any, ...]] | None = None,
    repeats: int = 50,
) -> list[float]:
    """Seconds of each replay of `function(*inputs)`, launches excluded.

    One graph is captured for each tuple of inputs; replays take turns. Gradients of leaves among the inputs are
    set to None before capture, as a training step would leave them.
    """
    rounds = list(inputs_to_rotate or [()])
    graphs = []
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for inputs in rounds:
            for _ in range(3):
                function(*inputs)
                _clear_gradients(inputs)
    torch.cuda.current_stream().wait_stream(stream)
    for inputs in rounds:
        graph = torch.cuda.CUDAGraph()
        _clear_gradients(inputs)
        with torch.cuda.graph(graph):
            function(*inputs)
        graphs.append(graph)
    for graph in graphs:
        graph.replay()
    events = [(torch.cuda.Event(True), torch.cuda.Event(True)) for _ in range(repeats)]
    torch.cuda.synchronize()
    for i, (start, end) in enumerate(events):
        start.record()
        graphs[i % len(graphs)].replay()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in events]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Microseconds at the 20th, 50th and 80th percentile."""
    cuts = statistics.quantiles(seconds, n=5, method="inclusive")
    return {
        "p20_us": cuts[0] * 1e6,
        "p50_us": statistics.median(seconds) * 1e6,
        "p80_us": cuts[3] * 1e6,
    }


def time_beside_peers(
    info: dict[str, Any],
    ours: dict[str, Callable[..., Any]],
    peers: dict[str, Callable[[], Callable[..., Any]]],
    *,
    check: Callable[[Callable[..., Any]], None],
    inputs_to_rotate: Sequence[tuple[Any, ...]],
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function,
    repeats: int = 50,
) -> None:
    """Fill `info` (pytest-benchmark's `extra_info`) with the device time of ours and of every peer that can be had.

    A peer is a function of nothing that makes it, so that one that is not installed fails there. `check` refuses a
    wrong result; `wrap` turns a function into what is timed, with its backward pass say. Peers that are absent, refuse
    or are wrong are listed under "absent" with their reason.
    """

    def device_time(function: Callable[..., Any]) -> dict[str, float]:
        return spread(
            graph_replay_seconds(wrap(function), inputs_to_rotate=inputs_to_rotate, repeats=repeats)
        )

    info["gpu"], info["torch"] = torch.cuda.get_device_name(), torch.__version__
    for name, function in ours.items():
        info[name] = device_time(function)
    info["peers"], info["absent"] = {}, {}
    for name, build in peers.items():
        try:
            function = build()
            check(function)
            info["peers"][name] = device_time(function)
        except Exception as error:  # a peer may fail in any way of its own: it is said, and not timed
            info["absent"][name] = f"{type(error).__name__}: {error}"[:200]
            torch.cuda.synchronize()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A peer under `torch.compile`, for the shapes that it is called with.

    By itself torch compiles a function that it has seen with another shape for any shape, which is slower.
    """
    torch.compiler.reset()
    return torch.compile(function, dynamic=False, fullgraph=True)


def finished(function: Callable[..., Any], *inputs: Any) -> Callable[[], None]:
    """A call that returns when the GPU, if there is one, is done: for wall time."""

    def call() -> None:
        function(*inputs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return call


def copy_bandwidth(megabytes: int = 512) -> float:
    """Bytes/s of one device copy, read and written bytes together."""
    source = torch.empty(megabytes << 20, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds = statistics.median(graph_replay_seconds(lambda: target.copy_(source), repeats=20))
    return 2 * source.numel() / seconds


def matmul_rate(size: int = 8192) -> float:
    """FLOP/s of a bf16 matrix product."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    seconds = statistics.median(graph_replay_seconds(lambda: torch.mm(a, b, out=out), repeats=10))
    return 2 * size**3 / seconds


def _clear_gradients(inputs: Sequence[Any]) -> None:
    for tensor in inputs:
        if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
            tensor.grad = None
