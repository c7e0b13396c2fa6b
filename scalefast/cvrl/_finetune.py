"""Fine-tuning a backbone with labels, all of them or a part (semi-supervised), judged on clips and on videos."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from scalefast._files import write_atomically
from scalefast._precision import resolve_precision
from scalefast.backbones.loading import load_backbone
from scalefast.backbones.saved import write_backbone
from scalefast.cvrl._classify import Classifier, Classify
from scalefast.cvrl._decode import ClipItem, ClipJob, RandomPlan, time_limit
from scalefast.cvrl._launch import ClipRunResult, RunOptions, launch, resolved, spread
from scalefast.cvrl._ledger import check_test_videos
from scalefast.cvrl._run import ClipTask
from scalefast.cvrl.config import ClipTraining
from scalefast.errors import DataError, InputError
from scalefast.hub import save_weights
from scalefast.training.distributed import join_world
from scalefast.video import ClipRecipe, VideoEntry, VideoList, isolated_map, test_recipe, train_recipe

__all__ = ["ClipAccuracy", "FinetuneConfig", "Finetuned", "finetune"]

HEAD_NAME, RESULTS_NAME = "head.safetensors", "results.json"


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """A fine-tuning run, apart from its backbone and videos.

    Raises:
        InputError: a field is out of its range.
    """

    label_share: float = 1.0
    """Share of each class's training videos that keep their labels and are trained on; .01 and .1 are CVRL's."""
    temporal: int = 10
    """Starts of a test video's views (CVRL: 10 x 3)."""
    spatial: int = 3
    """Places in the frame of each start, 1 or 3."""
    training: ClipTraining = field(
        default_factory=lambda: ClipTraining(epochs=50, batch_size=128, learning_rate=0.02, weight_decay=1e-5)
    )
    """Schedule and optimiser."""

    def __post_init__(self) -> None:
        if not 0.0 < self.label_share <= 1.0:
            raise InputError(f"label_share must be above 0 and at most 1, not {self.label_share!r}")
        if self.temporal < 1 or self.spatial not in (1, 3):
            raise InputError(
                f"expected temporal >= 1 and spatial 1 or 3, got {self.temporal}, {self.spatial}"
            )


@dataclass(frozen=True, kw_only=True)
class ClipAccuracy:
    """Share of test clips, and of test videos, that get their class, in [0, 1]."""

    clip: float
    """Each view judged alone."""
    video: float
    """Each video by the mean of its views' probabilities."""


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What `finetune` leaves behind."""

    run: ClipRunResult
    """The run folder, a backbone folder with the head beside it."""
    labelled: int
    """Training videos whose labels were used."""
    trained_on: int
    """Test videos whose very files were trained on: their labels were known, so the accuracy promises too much."""
    accuracy: ClipAccuracy | None
    """On the test videos; None in the processes that are not the first."""


def finetune(
    backbone: str | os.PathLike[str],
    *,
    train: VideoList,
    test: VideoList,
    out: str | os.PathLike[str],
    config: FinetuneConfig | None = None,
    device: str | torch.device | None = None,
    **options: Unpack[RunOptions],
) -> Finetuned:
    """Train a backbone and a linear layer on it with labels, a random clip of every video in each epoch.

    The last epoch counts; nothing is chosen on the test videos.

    Args:
        backbone: name, folder or hub id, as of `load_backbone`.
        train: labelled videos; of each class `label_share` are trained on, drawn by the seed.
        test: labelled videos of the same classes; where both lists name theirs, the names decide.
        out: the run folder: backbone, `head.safetensors`, `results.json`, log and checkpoints.
        config: None: every label, 50 epochs.
        device, options: as of `train_cvrl`; a ledger is that of the training videos in use.

    Raises:
        InputError: a video without a label, or with several; classes that do not fit; and as `train_cvrl`.
        DataError: a file does not decode; of the test videos this is found before training.
        TrainingError: as `train_cvrl`.
    """
    world, config = join_world(device), config or FinetuneConfig()
    training = resolved(config.training, device=world.device)
    config = dataclasses.replace(config, training=training)
    labels = _labels(train)
    classes = sorted(set(labels))
    test = _labelled_as(train, test)
    _same_classes(classes, test)
    chosen = _labelled(train, labels, share=config.label_share, seed=training.seed)
    loaded = load_backbone(os.fspath(backbone))
    spec, workers = loaded.spec, options.get("workers")
    views = test_recipe(
        num_frames=spec.num_frames,
        stride=spec.stride,
        size=spec.size,
        temporal=config.temporal,
        spatial=config.spatial,
    )
    autocast = resolve_precision(training.precision, device=world.device)  # type: ignore[arg-type]

    built: list[Classify] = []

    def build(entries: list[VideoEntry]) -> ClipTask:
        check_test_videos(test, folder=Path(out), recipe=views, world=world, workers=workers)
        wanted = torch.tensor([classes.index(_label(entry)) for entry in entries])
        network = Classifier(loaded, num_classes=len(classes), seed=training.seed)
        built.append(Classify(spread(network, world), labels=wanted, autocast=autocast))
        return built[0]

    def finish(task: Any, entries: list[VideoEntry], folder: Path) -> None:
        source = {"kind": "fine-tuned", "start": spec.name, "videos": len(entries), "epochs": training.epochs}
        write_backbone(task.encoder, spec, folder, source=source)
        save_weights(task.module.head.state_dict(), folder / HEAD_NAME)

    run = launch(
        chosen,
        label="finetune",
        out=out,
        world=world,
        config={**dataclasses.asdict(config), "backbone": spec.name, "weights": loaded.weights_hash},
        training=training,
        clips=RandomPlan(
            recipe=train_recipe(num_frames=spec.num_frames, stride=spec.stride, size=spec.size, clips=1),
            seed=training.seed,
        ),
        build=build,
        finish=finish,
        **options,
    )
    accuracy = world.on_main(lambda: _judge(built[0], test, classes=classes, views=views, workers=workers))
    trained_on = _in_both(chosen, test)
    world.on_main(
        lambda: _write_results(
            run.folder, accuracy, labelled_videos=len(chosen), test_videos=len(test), trained_on=trained_on
        )
    )
    return Finetuned(run=run, labelled=len(chosen), trained_on=trained_on, accuracy=accuracy)


def _judge(
    task: Classify,
    test: VideoList,
    *,
    classes: Sequence[int],
    views: ClipRecipe,
    workers: int | None,
) -> ClipAccuracy:
    job = ClipJob(plan=RandomPlan(recipe=views, seed=0))  # even views draw nothing
    items = (ClipItem(str(entry.path), entry.id, 0, None) for entry in test)
    task.module.eval()
    clips = videos = judged = 0
    for entry, outcome in zip(
        test, isolated_map(job, items, workers=workers, timeout=time_limit), strict=True
    ):
        if outcome.value is None:
            raise DataError(f"{entry.id}: the test video does not decode: {outcome.message}")
        decoded = torch.from_numpy(outcome.value.clips).to(next(task.module.parameters()).device)
        with torch.inference_mode():
            likely = task.logits(decoded).softmax(1)
        wanted = classes.index(_label(entry))
        clips += int((likely.argmax(1) == wanted).sum())
        videos += int(likely.mean(0).argmax() == wanted)
        judged += len(likely)
    return ClipAccuracy(clip=clips / judged, video=videos / len(test))


def _in_both(train: VideoList, test: VideoList) -> int:
    """Test videos whose file is a training video's: links count, copies do not."""

    def place(entry: VideoEntry) -> str:
        return entry.path if isinstance(entry.path, str) else os.path.realpath(entry.path)

    known = {place(entry) for entry in train}
    return sum(place(entry) in known for entry in test)


def _write_results(folder: Path, accuracy: ClipAccuracy, **counts: int) -> None:
    told = {"finetune": dataclasses.asdict(accuracy), **counts}
    write_atomically(folder / RESULTS_NAME, (json.dumps(told, indent=2) + "\n").encode())


def _label(entry: VideoEntry) -> int:
    if not isinstance(entry.label, int):
        raise InputError(f"{entry.id}: fine-tuning needs one label a video, found {entry.label!r}")
    return entry.label


def _labels(videos: VideoList) -> list[int]:
    return [_label(entry) for entry in videos]


def _labelled_as(train: VideoList, test: VideoList) -> VideoList:
    """The test videos with the training list's numbers for their classes.

    A list numbers the classes that it names itself, so of two lists that do not name the same ones equal numbers mean
    different classes; their names decide.
    """
    if train.classes is None or test.classes is None or train.classes == test.classes:
        return test
    number = {name: label for label, name in enumerate(train.classes)}
    names = [test.classes[label] for label in _labels(test)]
    if unknown := sorted(set(names) - number.keys()):
        raise InputError(f"{test.source}: classes {unknown[:8]} have no training video in {train.source}")
    entries = (replace(entry, label=number[name]) for entry, name in zip(test, names, strict=True))
    return VideoList(entries=tuple(entries), classes=train.classes, source=test.source)


def _same_classes(classes: Sequence[int], test: VideoList) -> None:
    if len(classes) < 2:
        raise InputError(f"fine-tuning needs training videos of 2 classes at least, found {len(classes)}")
    if unknown := sorted(set(_labels(test)) - set(classes)):
        named = unknown if test.classes is None else [test.classes[label] for label in unknown]
        raise InputError(f"{test.source}: classes {named[:8]} have no training video")


def _labelled(videos: VideoList, labels: Sequence[int], *, share: float, seed: int) -> VideoList:
    """The videos that keep their labels: of each class `share`, rounded, one at least (as the low-shot protocol)."""
    if share == 1.0:
        return videos
    from scalefast.evaluation import draw_shots

    kept = draw_shots(torch.tensor(labels), float(share), draw=0, seed=seed)
    entries = tuple(entry for entry, keeps in zip(videos, np.asarray(kept).tolist(), strict=True) if keeps)
    return VideoList(entries=entries, classes=videos.classes, source=videos.source)
