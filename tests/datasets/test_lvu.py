"""LVU's lists as they are distributed: numbers without a name, splits without a class, a class called \\N.

The lists are written here in their form (header, words, gaps); ids are invented. All 27 real ones were read by
hand, see docs/datasets.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scalefast.datasets import read_dataset
from scalefast.errors import InputError

HEADER = "class_id class_name youtube_id imdb_id"
WRITERS = {
    "train": r"0 \N -a0_bcdefgh tt0000001|2 nm0000002 b0cdefghijk tt0000002|5 nm0000005 c-defghijkl tt0000003",
    "val": r"0 \N d0efghijklm tt0000004",
    "test": r"5 nm0000005 e0fghijklmn tt0000005|2 nm0000002 _f0ghijklmn tt0000006",
}
NAMES = (r"\N", "class 1", "nm0000002", "class 3", "class 4", "nm0000005")


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    return write(tmp_path, "writer", WRITERS)


def write(folder: Path, task: str, lines: dict[str, str]) -> Path:
    (folder / "lvu_1.0" / task).mkdir(parents=True)
    for split, text in lines.items():
        text = "\n".join([HEADER, *text.split("|"), ""])
        (folder / "lvu_1.0" / task / f"{split}.csv").write_text(text)
    return folder


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_all_splits_have_the_classes_of_all_lists(lists: Path, split: str) -> None:
    videos = read_dataset("lvu", videos=lists, split=split, task="writer")
    assert videos.classes == NAMES
    rows = [line.split() for line in WRITERS[split].split("|")]
    assert [(entry.id, entry.label) for entry in videos] == [(f"{row[2]}.mp4", int(row[0])) for row in rows]
    assert [NAMES[int(entry.label or 0)] for entry in videos] == [row[1] for row in rows]


def test_a_list_by_itself_has_its_own_classes(lists: Path) -> None:
    """Given by another name, it is read alone; numbers stay what they are."""
    alone = (lists / "lvu_1.0" / "writer" / "val.csv").rename(lists / "mine.csv")
    videos = read_dataset("lvu", videos=lists, annotations=alone, split="val", task="writer")
    assert videos.classes == (r"\N",)
    # The others no longer have it beside them, and lack nothing for that.
    assert read_dataset("lvu", videos=lists, split="test", task="writer").classes == NAMES


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "2 nm0000009 g0hijklmnop tt0000007",
            "val.csv:2: label 2 called 'nm0000009'; expected 'nm0000002', as before",
        ),
        ("1000 nm0000009 g0hijklmnop tt0000007", "val.csv:2: label 1000; expected an integer from 0 to 999"),
        ("-1 nm0000009 g0hijklmnop tt0000007", "val.csv:2: label -1; expected an integer from 0 to 999"),
        (
            "two nm0000009 g0hijklmnop tt0000007",
            "val.csv:2: two nm0000009 g0hijklmnop tt0000007; expected `class_id",
        ),
        (
            "2 two words g0hijklmnop tt0000007",
            "val.csv:2: 5 words; expected `class_id class_name youtube_id imdb_id`",
        ),
    ],
)
def test_a_line_that_is_none_is_named_whichever_split_is_read(
    tmp_path: Path, line: str, message: str
) -> None:
    write(tmp_path, "writer", {**WRITERS, "val": line})
    for split in ("train", "val"):
        with pytest.raises(InputError) as caught:
            read_dataset("lvu", videos=tmp_path, split=split, task="writer")
        other = "called" in message and split == "val"  # then the training list is the one that differs
        assert ("train.csv:3" if other else message) in str(caught.value)
