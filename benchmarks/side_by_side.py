"""Contenders timed in one run, turn by turn, so that whatever else the machine does falls on all of them."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["available", "race"]


def available(
    peers: Mapping[str, Callable[[], Callable[[], Any]]],
) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Peers that can be made here, and why the others cannot."""
    made, absent = {}, {}
    for name, make in peers.items():
        try:
            made[name] = make()
        except (ImportError, importlib.metadata.PackageNotFoundError) as error:
            absent[name] = str(error)
    return made, absent


def race(
    benchmark: Any,
    ours: Callable[[], Any],
    peers: Mapping[str, Callable[[], Any]],
    *,
    absent: Mapping[str, str] | None = None,
    rounds: int = 7,
) -> dict[str, float]:
    """Time `ours` for the table, and all in turns: best seconds of each, also in the benchmark's extra_info.

    `extra_info` gets `seconds` (name -> best of `rounds`), `ours is faster than` (name -> ratio) and `absent`. Disabled
    (`--benchmark-disable`) every contender runs once.
    """
    contenders = {"ours": ours, **peers}
    if not benchmark.enabled:
        rounds = 1
    else:
        for contender in contenders.values():
            contender()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            seconds[name].append(_timed(contender))
    best = {name: min(times) for name, times in seconds.items()}
    benchmark.extra_info["seconds"] = best
    benchmark.extra_info["ours is faster than"] = {name: best[name] / best["ours"] for name in peers}
    benchmark.extra_info["absent"] = dict(absent or {})
    benchmark.pedantic(ours, rounds=rounds, iterations=1)
    return best


def _timed(action: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
