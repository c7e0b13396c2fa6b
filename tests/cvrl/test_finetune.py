"""Fine-tuning with labels, and linear evaluation: what they learn, what they leave, what they refuse."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from scalefast.backbones import R3D, R3DConfig, load_backbone, save_r3d
from scalefast.cvrl import ClipTraining, FinetuneConfig, evaluate_linear, finetune
from scalefast.errors import DataError, InputError
from scalefast.features import FeatureStore
from scalefast.video import VideoList


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """An untrained backbone folder; group normalisation, so that few videos suffice."""
    folder = tmp_path_factory.mktemp("start") / "start"
    save_r3d(R3D(R3DConfig(depth="tiny", width=0.25, num_frames=4, stride=2, size=32, norm="group")), folder)
    return folder


@pytest.fixture(scope="module")
def settings():
    training = ClipTraining(
        epochs=15,
        batch_size=8,
        optimizer="adamw",
        learning_rate=5e-3,
        warmup_epochs=1,
        precision="fp32",
        log_every=10,
    )
    return FinetuneConfig(temporal=2, spatial=1, training=training)


@pytest.fixture(scope="module")
def tuned(videos, start, settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "run"
    return finetune(start, train=videos, test=videos, out=out, config=settings, workers=2, progress=False)


@pytest.fixture
def judged(tuned, videos, start, settings):
    """Judges the finished run by some test videos."""

    def judge(test):
        return finetune(
            start,
            train=videos,
            test=test,
            out=tuned.run.folder,
            config=settings,
            resume=True,
            workers=1,
            progress=False,
        )

    return judge


def test_it_learns_its_training_videos(tuned):
    assert tuned.labelled == 8 and tuned.accuracy.video >= 0.75
    told = json.loads((tuned.run.folder / "results.json").read_text())
    assert told["finetune"] == dataclasses.asdict(tuned.accuracy) and told["test_videos"] == 8


def test_test_videos_that_were_trained_on_are_counted(tuned, videos, judged, tmp_path):
    assert tuned.trained_on == 8
    link, copy = tmp_path / "link.mp4", tmp_path / "copy.mp4"
    link.symlink_to(videos[0].path)
    shutil.copy(videos[1].path, copy)
    test = [dataclasses.replace(videos[i], path=path) for i, path in enumerate((link, copy))]
    assert judged(VideoList(entries=tuple(test), classes=videos.classes)).trained_on == 1
    assert json.loads((tuned.run.folder / "results.json").read_text())["trained_on"] == 1


def test_the_folder_is_a_backbone(tuned, start):
    before, after = load_backbone(start), load_backbone(tuned.run.folder)
    assert after.describe()["source"]["kind"] == "fine-tuned" and after.weights_hash != before.weights_hash


def test_a_finished_run_judges_the_same_again(tuned, videos, judged):
    again = judged(videos)
    assert again.accuracy == tuned.accuracy and again.run.resumed_from == again.run.steps


def test_a_share_of_the_labels(videos, start, settings, tmp_path):
    one = dataclasses.replace(
        settings, label_share=0.25, training=dataclasses.replace(settings.training, epochs=1)
    )
    run = finetune(
        start, train=videos, test=videos, out=tmp_path / "run", config=one, workers=1, progress=False
    )
    assert run.labelled == 2
    assert json.loads((run.run.folder / "run.json").read_text())["config"]["label_share"] == 0.25


def test_another_backbone_is_not_resumed(tuned, videos, settings, tmp_path):
    save_r3d(
        R3D(R3DConfig(depth="tiny", width=0.25, num_frames=4, stride=2, size=32, norm="group", seed=1)),
        tmp_path / "start",
    )
    with pytest.raises(InputError, match=r"config\.weights was"):
        finetune(
            tmp_path / "start",
            train=videos,
            test=videos,
            out=tuned.run.folder,
            config=settings,
            resume=True,
            progress=False,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "needs one label a video, found None"),
        ({"label": (0, 1)}, r"needs one label a video, found \(0, 1\)"),
        ({"label": 7}, r"classes \[7\] have no training video"),
    ],
)
def test_labels_that_do_not_fit(videos, start, settings, tmp_path, change, message):
    entries = (dataclasses.replace(videos[0], **change), *videos.entries[1:])
    test = VideoList(entries=entries, source="the test list")
    with pytest.raises(InputError, match=message):
        finetune(start, train=videos, test=test, out=tmp_path / "run", config=settings, progress=False)
    assert not (tmp_path / "run").exists()


def test_names_decide_which_class_a_number_means(videos, judged):
    """A folder of test videos without one of the classes numbers the others anew: "right" is its 0, not its 1."""
    right = [entry for entry in videos if videos.classes[entry.label] == "right"]
    alone = VideoList(
        entries=tuple(dataclasses.replace(entry, label=0) for entry in right), classes=("right",)
    )
    same = VideoList(entries=tuple(right), classes=videos.classes)
    found = [judged(test).accuracy for test in (alone, same)]
    assert found[0] == found[1] and found[0].video > 0.5


def test_class_names_without_a_training_video(videos, start, tmp_path):
    entries = tuple(dataclasses.replace(entry, label=0) for entry in videos)
    odd = VideoList(entries=entries, classes=("left",), source="the test list")
    with pytest.raises(InputError, match=r"the test list: classes \['left'\] have no training video"):
        finetune(start, train=videos, test=odd, out=tmp_path / "run", progress=False)
    one = VideoList(entries=videos.entries[4:], classes=videos.classes)
    assert len({entry.label for entry in one}) == 1
    with pytest.raises(InputError, match="2 classes at least, found 1"):
        finetune(start, train=one, test=videos, out=tmp_path / "run", progress=False)
    halved = VideoList(entries=videos.entries, classes=videos.classes, source="the test list")
    with pytest.raises(InputError, match=r"classes \['down'\] have no training video"):
        many = [dataclasses.replace(e, label=1 + i % 2) for i, e in enumerate(videos)]
        train = VideoList(entries=tuple(many), classes=("down", "right", "up"))
        finetune(start, train=train, test=halved, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_test_video_that_is_lost_while_training_is_named(videos, judged, tmp_path):
    judged(videos)  # all are sound: these are not scanned again
    absent = dataclasses.replace(videos[0], path=tmp_path / "absent.mp4")
    test = VideoList(entries=(absent, *videos.entries[1:]))
    with pytest.raises(DataError, match=f"{absent.id}: the test video does not decode"):
        judged(test)


def test_test_videos_are_looked_at_before_training(videos, start, settings, tmp_path):
    """Minutes or hours before they are needed; mended, the same run goes on."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(videos[0].path).read_bytes()[:900])
    test = VideoList(
        entries=(dataclasses.replace(videos[0], path=broken), *videos.entries[1:]), source="the list"
    )
    short = dataclasses.replace(settings, training=dataclasses.replace(settings.training, epochs=1))

    def run(**options):
        given = {"train": videos, "test": test, "config": short, "workers": 1, "progress": False}
        return finetune(start, out=tmp_path / "run", **given, **options)

    with pytest.raises(DataError) as caught:
        run()
    assert str(caught.value) == (
        f"the list: 1 of 8 test videos cannot be decoded ({videos[0].id}: unreadable; see "
        f"{tmp_path / 'run' / 'scan-test.csv'}); mend them or take them out of the list"
    )
    assert not (tmp_path / "run" / "checkpoints").exists()
    shutil.copy(videos[0].path, broken)
    assert run(resume=True).run.steps == 1


@pytest.mark.parametrize(
    "changes", [{"label_share": 0.0}, {"label_share": 1.5}, {"temporal": 0}, {"spatial": 2}]
)
def test_settings_that_cannot_be(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        FinetuneConfig(**changes)


def store(tmp_path, name, *, views, noise, seed):
    """60 videos of 3 classes: clips of a class lie in one direction, with noise; each clip of another length."""
    random = np.random.default_rng(seed)
    centres = np.eye(3, 12)
    labels = np.arange(60) % 3
    features = centres[labels][:, None] + noise * random.standard_normal((60, views, 12))
    features *= random.uniform(0.1, 10, (60, views, 1))  # which L2 normalisation takes away
    ids = [f"{name}{i}" for i in range(60)]
    return FeatureStore.create(tmp_path / name, features=features.astype(np.float32), labels=labels, ids=ids)


def test_views_together_are_worth_more_than_one(tmp_path):
    train = store(tmp_path, "train", views=4, noise=0.5, seed=0)
    test = store(tmp_path, "test", views=8, noise=0.5, seed=1)
    accuracy = evaluate_linear(train, test)
    assert 0.5 < accuracy.clip < accuracy.video and accuracy.video > 0.9
    few = evaluate_linear(train, test, label_share=0.05)
    assert few.video < accuracy.video


def test_lengths_do_not_matter(tmp_path):
    train, test = (
        store(tmp_path, name, views=2, noise=0.02, seed=i) for i, name in enumerate(("train", "test"))
    )
    assert evaluate_linear(train, test) == evaluate_linear(train, test)
    assert evaluate_linear(train, test).clip == 1.0


def test_sets_of_different_sizes_are_refused(tmp_path):
    train = store(tmp_path, "train", views=2, noise=0.1, seed=0)
    parts = [torch.rand(1 + i % 2, 12) for i in range(6)]
    ragged = FeatureStore.create(
        tmp_path / "ragged", features=parts, labels=np.arange(6) % 3, ids=list("abcdef")
    )
    with pytest.raises(InputError, match="different numbers of clips"):
        evaluate_linear(train, ragged)
