"""Extraction on a Ray cluster: Ray Data's CPU actors decode, GPU actors run the backbone, this process writes.

Every backbone actor is given shards and reads their videos, in order, from a Ray Data pipeline that decodes them
wherever there are CPUs; finished shards come back here. Ray restarts decoders that die and decodes their videos
again; a backbone actor that dies is replaced here and its unfinished shards are done again. Within a decoder the
file is still opened by a process of its own, so that a file which crashes or hangs it is `bad`, and is not tried
for ever.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from scalefast.errors import InputError, ScalefastError, StoreError, require
from scalefast.features._decode import Decoded, DecodeJob, Item, limit_of, verdict_on
from scalefast.features._job import Extraction, build_shard, item_of
from scalefast.features._shard import ShardContent
from scalefast.features._stages import Stage, StageClock

if TYPE_CHECKING:
    from scalefast.backbones import FrozenBackbone
    from scalefast.video import VideoEntry

__all__ = ["RayCluster"]

_ATTEMPTS = 4  # of one backbone actor's shards, before the run gives up


class RayCluster:
    """A Ray cluster that builds shards; a context manager.

    Args:
        load: device -> backbone, called in every backbone actor; must be picklable.
        arguments: those of `Extraction` without the backbone.
        address: of a running cluster, as `ray.init` takes it; None: RAY_ADDRESS, or one on this machine.
        backbones: backbone actors; None: one for each GPU of the cluster, or one on CPUs.
        decoders: decoding actors, in all; None: one for each CPU of the cluster.

    Raises:
        MissingExtraError: Ray is not installed. InputError: numbers below 1, or the cluster cannot be reached.
    """

    def __init__(
        self,
        load: Callable[[str], FrozenBackbone],
        *,
        arguments: dict[str, Any],
        address: str | None = None,
        backbones: int | None = None,
        decoders: int | None = None,
    ) -> None:
        self._ray = require("ray", extra="ray", needed_for="extraction on a Ray cluster")
        require("ray.data", extra="ray", needed_for="extraction on a Ray cluster")
        self._own = not self._ray.is_initialized()
        self._join(address)
        resources = self._ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        self.backbones = max(gpus, 1) if backbones is None else backbones
        self.decoders = max(int(resources.get("CPU", 1)), self.backbones) if decoders is None else decoders
        if self.backbones < 1 or self.decoders < self.backbones:
            self.close()
            raise InputError(
                f"expected at least 1 backbone actor and as many decoders, got {self.backbones} and {self.decoders}"
            )
        self.on_gpu = gpus > 0
        self._actor = self._ray.remote(num_cpus=0, num_gpus=1 if self.on_gpu else 0)(_BackboneActor)
        self._given = self._ray.put((load, arguments))
        self._spare: list[Any] = []  # the actor that has said the plan, until it is given shards

    def _join(self, address: str | None) -> None:
        if self._ray.is_initialized():
            return
        here: dict[str, Any] = {}
        if address is None:
            # On this machine the workers import scalefast, and what the caller has made, from where this process does.
            path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            here = {"include_dashboard": False, "runtime_env": {"env_vars": {"PYTHONPATH": path}}}
        try:
            self._ray.init(address=address, log_to_driver=False, **here)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the Ray cluster {address or 'on this machine'} cannot be reached: {error}"
            ) from error

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; one that was started for this extraction ends."""
        if self._own:
            self._ray.shutdown()

    def plan(self) -> dict[str, Any]:
        """`Extraction.plan()`, as a backbone actor knows it: its device decides the precision.

        Raises:
            ScalefastError: the actor cannot load the backbone, or refuses the arguments.
        """
        self._spare.append(self._actor.remote(self._given))
        try:
            found: dict[str, Any] = self._ray.get(self._spare[0].plan.remote())
        except self._ray.exceptions.RayTaskError as error:
            raise _own_error(error) from error
        except self._ray.exceptions.RayError as error:
            raise ScalefastError(f"a backbone actor of Ray cannot be started: {error}") from error
        return found

    def build(
        self, todo: Sequence[int], *, clock: StageClock, say: Callable[[str], None]
    ) -> Generator[tuple[int, ShardContent], None, None]:
        """The shards with these numbers, as they are finished; `say` tells of actors that died.

        Raises:
            ScalefastError: an actor died again and again, or an error concerns all files.
        """
        shares = [list(todo[start :: self.backbones]) for start in range(self.backbones)]
        running = {self._start(share): (share, 1) for share in shares if share}
        while running:
            (stream,), _ = self._ray.wait(list(running), num_returns=1, fetch_local=False)
            share, attempt = running.pop(stream)
            try:
                index, content, seconds = self._ray.get(next(stream))
            except StopIteration:
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise _own_error(error) from error
            except self._ray.exceptions.RayError as error:
                if attempt == _ATTEMPTS:
                    raise ScalefastError(
                        f"a backbone actor of Ray died {_ATTEMPTS} times: {error}"
                    ) from error
                say(
                    f"extract: a backbone actor died ({type(error).__name__}); another does its {len(share)} shards"
                )
                running[self._start(share)] = (share, attempt + 1)
                continue
            share.remove(index)
            for stage, spent in seconds.items():
                clock.seconds[stage] += spent / self.backbones
            running[stream] = (share, attempt)
            yield index, content

    def _start(self, share: Sequence[int]) -> Any:
        """An actor that builds these shards, as a stream of results; the actor lives as long as its stream."""
        actor = self._spare.pop() if self._spare else self._actor.remote(self._given)
        return actor.build.options(num_returns="streaming").remote(
            list(share), self.decoders // self.backbones
        )


class _BackboneActor:
    """Runs in a process of the cluster, on a GPU of its own if there is one."""

    def __init__(self, given: tuple[Callable[[str], FrozenBackbone], dict[str, Any]]) -> None:
        self._given = given

    @cached_property
    def _job(self) -> Extraction:
        # Not in the constructor: what is raised there reaches the caller as an actor that died.
        import torch

        load, arguments = self._given
        return Extraction(backbone=load("cuda" if torch.cuda.is_available() else "cpu"), **arguments)

    def plan(self) -> dict[str, Any]:
        return self._job.plan()

    def build(
        self, todo: Sequence[int], decoders: int
    ) -> Iterator[tuple[int, ShardContent, dict[Stage, float]]]:
        parts = self._job.parts
        items = [item_of(entry) for index in todo for entry in parts[index]]
        with closing(
            decoded_by_ray(self._job.decode, items, timeout=self._job.timeout, actors=decoders)
        ) as decoded:
            for index in todo:
                clock = StageClock()
                shard = self._job.builder(clock)()
                yield (
                    index,
                    build_shard(shard, parts[index], decoded, clock=clock, told=_nobody),
                    clock.seconds,
                )


def _nobody(entry: VideoEntry, result: Decoded) -> None:
    """Is told what became of each video: the shard's ledger has it too."""


def decoded_by_ray(
    job: DecodeJob, items: Sequence[Item], *, timeout: float, actors: int
) -> Generator[Decoded, None, None]:
    """What became of each item, in their order, from a Ray Data pipeline of `actors` decoding actors."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    rows: Any = ray.data.from_items([{"item": pickle.dumps(item)} for item in items])
    decoded = rows.map(
        _Decoder,
        fn_constructor_kwargs={"job": job, "timeout": timeout},
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
        num_cpus=1,
    )
    for row in decoded.iter_rows():
        yield pickle.loads(row["decoded"])


class _Decoder:
    """Runs in decoding actors: one file at a time, in a process of its own."""

    def __init__(self, *, job: DecodeJob, timeout: float) -> None:
        from scalefast.video import IsolatedPool

        self._pool = IsolatedPool(job, workers=1, timeout=partial(limit_of, seconds=timeout))

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        outcome = next(iter(self._pool.map([pickle.loads(row["item"])])))
        return {"decoded": pickle.dumps(verdict_on(outcome), protocol=5)}


def _own_error(error: Any) -> ScalefastError:
    """The error of ours that a task raised, or one that quotes what it raised."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ScalefastError) and type(cause).__module__.startswith("scalefast"):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    text = str(error).strip().splitlines()
    return StoreError(f"extraction on Ray failed: {text[-1] if text else type(error).__name__}")
