"""Data sets: the real lists are read as they are distributed, and what is written in their forms comes back."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalefast.cli import main
from scalefast.datasets import DATASETS, label_names, read_dataset
from scalefast.errors import InputError

SETTINGS = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = st.text("abcdefgXYZ0123456789-_", min_size=1, max_size=11)
UNIQUE = st.lists(WORDS, min_size=1, max_size=6, unique=True)
ENDS = st.sampled_from(["\n", "\r\n"])


def test_the_whole_of_ucf101(shared_data: Path, tmp_path: Path) -> None:
    """9,537 training and 3,783 test videos; labels of the test list, which has none, are those of the folders."""
    lists = shared_data / "annotations" / "ucf101"
    train = read_dataset("ucf101", videos=tmp_path, annotations=lists, split="train", fold=1)
    test = read_dataset("ucf101", videos=tmp_path, annotations=lists, split="test")
    assert (len(train), len(test)) == (9537, 3783)
    assert train.classes == test.classes == label_names("ucf101")
    assert train[0].id == "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"
    assert train[0].path == tmp_path / train[0].id and train[0].label == 0
    for videos in (train, test):
        assert all(label_names("ucf101")[int(e.label or 0)] == e.id.partition("/")[0] for e in videos)
        assert len(Counter(entry.label for entry in videos)) == 101
    assert not {entry.id for entry in train} & {entry.id for entry in test}


def test_hmdb51s_form(shared_data: Path, tmp_path: Path) -> None:
    """Flags 1 and 2 are train and test; a video that lies flat is found too."""
    lists = shared_data / "annotations" / "hmdb51_format"
    flat = "Become_a_Professional_Bartender_pour_u_cm_np1_fr_med_0.avi"
    (tmp_path / flat).touch()
    train, test = (
        read_dataset("hmdb51", videos=tmp_path, annotations=lists, split=s) for s in ("train", "test")
    )
    lines = [
        line.split() for file in lists.glob("*.txt") for line in file.read_text().splitlines() if line.strip()
    ]
    assert (len(train), len(test)) == tuple(sum(line[1] == flag for line in lines) for flag in "12")
    assert {label_names("hmdb51")[int(e.label or 0)] for e in train} == {"climb_stairs", "pour"}
    assert flat in {entry.id for entry in train}
    assert all("/" in entry.id for entry in [*train, *test] if entry.id != flat)


def test_kinetics_heads(shared_data: Path, tmp_path: Path) -> None:
    """K400 by the shipped names; of K600 and K700 a few rows do not tell the numbers, a file of names does."""
    lists = shared_data / "annotations" / "kinetics"
    k400 = read_dataset(
        "kinetics400", videos=tmp_path, annotations=lists / "kinetics-400_val_example_is_cc.csv", split="val"
    )
    assert [entry.id for entry in k400] == [
        "abseiling/-3B32lodo2M_000059_000069.mp4", "air drumming/_dbcJuKJQNs_000040_000050.mp4"
    ]  # fmt: skip
    assert [entry.label for entry in k400] == [0, 1] and k400.classes == label_names("kinetics400")
    head = lists / "kinetics-700_validate_example.csv"
    with pytest.raises(
        InputError, match="names 3 of the 700 classes of kinetics700, so their numbers are not known"
    ):
        read_dataset("kinetics700", videos=tmp_path, annotations=head, split="val")
    (tmp_path / "names.txt").write_text("air drumming\nbowling\ntestifying\nwashing feet\n")
    k700 = read_dataset(
        "kinetics700", videos=tmp_path, annotations=head, split="validate", classes=tmp_path / "names.txt"
    )
    assert [entry.label for entry in k700] == [2, 3, 0]


def test_something_something(shared_data: Path, tmp_path: Path) -> None:
    """Brackets go; the number is that of labels.json."""
    example = shared_data / "annotations" / "ssv2" / "train_example.json"
    (tmp_path / "42326.mp4").touch()
    videos = read_dataset("ssv2", videos=tmp_path, annotations=example, split="train")
    assert [entry.id for entry in videos] == ["78687.webm", "42326.mp4", "145274.webm"]
    numbers = json.loads((shared_data / "annotations" / "ssv2" / "labels_reconstructed.json").read_text())
    expected = ["Holding something next to something", "Spreading something onto something",
                "Moving something away from something"]  # fmt: skip
    assert [entry.label for entry in videos] == [int(numbers[name]) for name in expected]


@SETTINGS
@given(files=UNIQUE, end=ENDS, data=st.data())
def test_ucf101_round_trip(tmp_path: Path, files: list[str], end: str, data: st.DataObject) -> None:
    names = label_names("ucf101")
    labels = data.draw(st.lists(st.integers(0, 100), min_size=len(files), max_size=len(files)))
    paths = [f"{names[label]}/v_{file}.avi" for file, label in zip(files, labels, strict=True)]
    fold, numbered = data.draw(st.integers(1, 3)), data.draw(st.booleans())
    lines = [f"{path} {label + 1}" if numbered else path for path, label in zip(paths, labels, strict=True)]
    (tmp_path / f"trainlist0{fold}.txt").write_bytes(end.join(lines).encode())
    videos = read_dataset("ucf101", videos=tmp_path, split="training", fold=fold)
    assert [(entry.id, entry.label) for entry in videos] == list(zip(paths, labels, strict=True))


@SETTINGS
@given(data=st.data(), end=ENDS, below=st.sampled_from(["", "testTrainMulti_7030_splits"]))
def test_hmdb51_round_trip(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, end: str, below: str
) -> None:
    folder = tmp_path_factory.mktemp("hmdb")
    (folder / below).mkdir(exist_ok=True)
    classes = data.draw(st.lists(st.sampled_from(label_names("hmdb51")), min_size=1, max_size=3, unique=True))
    expected: dict[str, list[tuple[str, int]]] = {"0": [], "1": [], "2": []}
    for name in sorted(classes):
        flags = {f"{file}.avi": data.draw(st.sampled_from("012")) for file in data.draw(UNIQUE)}
        text = end.join(f"{file} {flag} " for file, flag in flags.items())
        (folder / below / f"{name}_test_split2.txt").write_bytes(text.encode())
        for file, flag in flags.items():
            expected[flag].append((f"{name}/{file}", label_names("hmdb51").index(name)))
    for split, flag in (("train", "1"), ("test", "2")):
        if not expected[flag]:
            with pytest.raises(InputError, match="holds no videos"):
                read_dataset("hmdb51", videos=folder, split=split, fold=2)
            continue
        videos = read_dataset("hmdb51", videos=folder, split=split, fold=2)
        assert [(entry.id, entry.label) for entry in videos] == expected[flag]


@SETTINGS
@given(ids=UNIQUE, data=st.data())
def test_ssv2_round_trip(tmp_path: Path, ids: list[str], data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, 173), min_size=len(ids), max_size=len(ids)))
    templates = [label_names("ssv2")[label].replace("something", "[something]") for label in labels]
    items = [{"id": name, "label": "", "template": t} for name, t in zip(ids, templates, strict=True)]
    (tmp_path / "something-something-v2-validation.json").write_text(json.dumps(items))
    (tmp_path / "something-something-v2-test.json").write_text(json.dumps([{"id": name} for name in ids]))
    videos = read_dataset("ssv2", videos=tmp_path, split="val")
    assert [(entry.id, entry.label) for entry in videos] == [
        (f"{name}.webm", label) for name, label in zip(ids, labels, strict=True)
    ]
    assert [entry.label for entry in read_dataset("ssv2", videos=tmp_path, split="test")] == [None] * len(ids)


@SETTINGS
@given(ids=UNIQUE, end=ENDS, data=st.data())
def test_kinetics_round_trip(tmp_path: Path, ids: list[str], end: str, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, 399), min_size=len(ids), max_size=len(ids)))
    starts = data.draw(st.lists(st.integers(0, 9999), min_size=len(ids), max_size=len(ids)))
    names = label_names("kinetics400")
    with open(tmp_path / "kinetics-400_train.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator=end)
        writer.writerow(["label", "youtube_id", "time_start", "time_end", "split", "is_cc"])
        for name, label, start in zip(ids, labels, starts, strict=True):
            writer.writerow([names[label], name, start, start + 10, "train", 0])
    videos = read_dataset("kinetics400", videos=tmp_path, split="train")
    assert [entry.label for entry in videos] == labels
    assert [entry.id for entry in videos] == [
        f"{names[label]}/{name}_{start:06d}_{start + 10:06d}.mp4"
        for name, label, start in zip(ids, labels, starts, strict=True)
    ]


@SETTINGS
@given(ids=UNIQUE, end=ENDS, data=st.data())
def test_lvu_round_trip(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], end: str, data: st.DataObject
) -> None:
    """Classes, views and likes; a file of any ending is found by its id."""
    folder = tmp_path_factory.mktemp("lvu")
    (folder / f"{ids[0]}.mkv").touch()
    counts = data.draw(
        st.lists(
            st.tuples(st.integers(1, 10**6), st.integers(0, 10**6)), min_size=len(ids), max_size=len(ids)
        )
    )
    lines = {
        "scene": ["label name id extra"] + [f"{i % 3} name{i % 3} {name} x" for i, name in enumerate(ids)],
        "view_count": ["views id extra"]
        + [f"{a} {name} x" for (a, _), name in zip(counts, ids, strict=True)],
        "like_ratio": ["likes dislikes id extra"]
        + [f"{a} {b} {name} x" for (a, b), name in zip(counts, ids, strict=True)],
    }
    found = {}
    for task, text in lines.items():
        (folder / "lvu_1.0" / task).mkdir(parents=True)
        (folder / "lvu_1.0" / task / "test.csv").write_bytes(end.join(text).encode())
        found[task] = read_dataset("lvu", videos=folder, split="test", task=task)
        assert [entry.id for entry in found[task]] == [f"{ids[0]}.mkv", *(f"{name}.mp4" for name in ids[1:])]
    assert [entry.label for entry in found["scene"]] == [i % 3 for i in range(len(ids))]
    assert found["scene"].classes == tuple(f"name{i}" for i in range(min(len(ids), 3)))
    for (likes, dislikes), views, ratio in zip(counts, found["view_count"], found["like_ratio"], strict=True):
        assert views.label == pytest.approx(math.log(likes) - 11.76425, abs=1e-5)
        assert ratio.label == pytest.approx(10 * likes / (likes + dislikes) - 9.13822, abs=1e-5)
    assert found["view_count"].classes is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "ucf10", "split": "train"}, "there is no data set 'ucf10'; did you mean 'ucf101'?"),
        ({"name": "ucf101", "split": "val"}, "ucf101 has no split 'val'; expected train or test"),
        ({"name": "ucf101", "split": "train", "fold": 4}, "ucf101 has the folds 1 to 3, not 4"),
        ({"name": "ssv2", "split": "train", "fold": 1}, "ssv2 is divided in one way only"),
        ({"name": "ssv2", "split": "train", "task": "scene"}, "ssv2 has no tasks"),
        ({"name": "lvu", "split": "train"}, "lvu needs one of its tasks, not None: relationship, way_speaking"),
        ({"name": "ucf101", "split": "train"}, "expected one of trainlist01.txt, ucfTrainTestlist/trainlist01.txt"),
        ({"name": "kinetics400", "split": "val"}, "holds no annotations of kinetics400 (split val); expected val.csv"),
        ({"name": "hmdb51", "split": "test", "fold": 3}, "expected CLASS_test_split3.txt"),
    ],
)  # fmt: skip
def test_what_is_asked_for_must_exist(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_dataset(arguments.pop("name"), videos=tmp_path, **arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "file, text, dataset, message",
    [
        ("trainlist01.txt", "Archery/a.avi 3\nJuggling/b.avi 9\n", "ucf101",
         "trainlist01.txt:2: class 'Juggling'; expected one of the 101 classes of ucf101"),
        ("trainlist01.txt", "Archery/a.avi 4\n", "ucf101", "trainlist01.txt:1: class number '4'; expected 3"),
        ("trainlist01.txt", "a.avi 4\n", "ucf101", "list01.txt:1: 'a.avi 4'; expected `Class/v_Class_g01_c01.avi`"),
        ("pour_test_split1.txt", "a.avi 3\n", "hmdb51", "pour_test_split1.txt:1: 'a.avi 3'; expected `video.avi flag`"),
        ("train.json", "{}", "ssv2", "train.json: expected a list of objects, got dict"),
        ("train.json", '[{"id": "1"}]', "ssv2", "train.json: item 1 (id 1) has no `template`"),
        ("train.json", "[", "ssv2", "train.json: is not JSON"),
        ("train.csv", "label,youtube_id,time_start,time_end\nflying,a,1,2\n", "kinetics400",
         "train.csv:2: class 'flying'; expected one of the 400 classes of kinetics400"),
    ],
)  # fmt: skip
def test_bad_lists_are_named_by_line(
    tmp_path: Path, file: str, text: str, dataset: str, message: str
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError) as caught:
        read_dataset(dataset, videos=tmp_path, split="train")  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`scan --dataset`: listed, found, bad and used; and what does not go together is refused."""
    folder = tmp_path / "Archery"
    folder.mkdir()
    (folder / "a.avi").write_text("no video")
    (tmp_path / "testlist02.txt").write_text("Archery/a.avi\r\nArchery/gone.avi\r\n")
    words = ["scan", str(tmp_path), "--dataset", "ucf101", "--out", str(tmp_path / "l.csv"), "--quiet"]
    assert main([*words, "--split", "test", "--fold", "2", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "2 listed = 0 ok + 0 short + 1 bad + 1 missing (bad: 1 unreadable); 1 found, 0 used"
    )
    for more, message in {
        ("--split", "test", "--root", "x"): "--root and --format are for lists",
        (): "--dataset ucf101 has a list for each split; name one with --split",
    }.items():
        assert main([*words, *more]) == 2 and message in capsys.readouterr().err
    assert main(["scan", str(tmp_path), "--out", "l.csv", "--fold", "1"]) == 2
    assert "--fold belongs to --dataset, which is not given" in capsys.readouterr().err


def test_every_data_set_is_named_in_the_documents() -> None:
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    assert all(f"`{name}`" in text and dataset.title in text for name, dataset in DATASETS.items())
