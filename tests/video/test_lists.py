"""Annotation lists: what is written is read, and what is wrong is said with file, line and expected form."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalefast.errors import InputError
from scalefast.video import VideoList

SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# Paths hold blanks, commas, quotes and letters of any script, but neither line ends nor blanks at their ends.
_WORD = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\x00/\ufeff"),
    min_size=1,
    max_size=8,
)
_NAME = _WORD.map(lambda word: word.strip()).filter(lambda word: word and word not in (".", ".."))
PATHS = st.lists(
    st.lists(_NAME, min_size=1, max_size=3).map(lambda parts: "/".join(parts) + ".mp4"),
    min_size=1,
    max_size=8,
    unique=True,
)
LABELS = st.integers(0, 10**6)


@SETTINGS
@given(paths=PATHS, data=st.data())
def test_list_round_trip(tmp_path: Path, paths: list[str], data: st.DataObject) -> None:
    labels = data.draw(st.lists(LABELS, min_size=len(paths), max_size=len(paths)))
    blanks = data.draw(
        st.lists(st.sampled_from([" ", "  ", "\t", " \t "]), min_size=len(paths), max_size=len(paths))
    )
    end, mark = data.draw(st.sampled_from(["\n", "\r\n"])), data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    lines = [f"{path}{blank}{label}" for path, blank, label in zip(paths, blanks, labels, strict=True)]
    source = tmp_path / "list.txt"
    source.write_bytes(mark + (end.join(lines) + data.draw(st.sampled_from(["", end, end * 3]))).encode())
    videos = VideoList.read(source, format="list")
    assert [video.id for video in videos] == paths
    assert [video.label for video in videos] == labels
    assert [video.path for video in videos] == [tmp_path / path for path in paths]
    assert videos.classes is None and videos.source == str(source)


@SETTINGS
@given(
    paths=PATHS, delimiter=st.sampled_from([",", "\t"]), end=st.sampled_from(["\n", "\r\n"]), data=st.data()
)
def test_table_round_trip(
    tmp_path: Path, paths: list[str], delimiter: str, end: str, data: st.DataObject
) -> None:
    labels = data.draw(st.lists(LABELS, min_size=len(paths), max_size=len(paths)))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerow(["label", "note", "path"])
    writer.writerows([label, "x, y", path] for path, label in zip(paths, labels, strict=True))
    source = tmp_path / "table.csv"
    source.write_text("\ufeff" + text.getvalue(), encoding="utf-8", newline="")
    videos = VideoList.read(source)
    assert [(video.id, video.label) for video in videos] == list(zip(paths, labels, strict=True))


@SETTINGS
@given(names=st.lists(_NAME, min_size=1, max_size=9))
def test_table_of_names_ranks_them(tmp_path: Path, names: list[str]) -> None:
    names = [f"c{name}" for name in names]
    source = tmp_path / "table.csv"
    with open(source, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label"), *((f"{i}.mp4", name) for i, name in enumerate(names))])
    videos = VideoList.read(source)
    assert videos.classes == tuple(sorted(set(names)))
    assert [videos.classes[video.label] for video in videos] == names


def _write(tmp_path: Path, text: str, name: str = "list.txt") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_more_integers_make_a_list_multi_label(tmp_path: Path) -> None:
    videos = VideoList.read(_write(tmp_path, "a.mp4 0 3\nb c.mp4  7\nd.mp4 2 2 4\n"))
    assert [(video.id, video.label) for video in videos] == [
        ("a.mp4", (0, 3)),
        ("b c.mp4", (7,)),
        ("d.mp4", (2, 4)),
    ]


def test_file_called_like_a_path_and_a_label(tmp_path: Path) -> None:
    (tmp_path / "part 2").write_bytes(b"")
    source = _write(tmp_path, "part 2 5\npart 3 5\n")
    assert [(v.id, v.label) for v in VideoList.read(source)] == [("part 2", (5,)), ("part", (3, 5))]


def test_list_of_paths_alone_has_no_labels(tmp_path: Path) -> None:
    videos = VideoList.read(_write(tmp_path, "a.mp4\n\nsub/b.mp4\n"))
    assert [(video.id, video.label) for video in videos] == [("a.mp4", None), ("sub/b.mp4", None)]


def test_root_and_absolute_paths(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    videos = VideoList.read(_write(tmp_path, f"a.mp4 0\n{tmp_path}/b.mp4 1\n"), root=root)
    assert [video.path for video in videos] == [root / "a.mp4", tmp_path / "b.mp4"]


def test_table_of_one_split(tmp_path: Path) -> None:
    source = _write(tmp_path, "path\tlabel\tsplit\na.mp4\t0\ttrain\nb.mp4\t1 2\tvalidation\n", "t.tsv")
    assert [video.id for video in VideoList.read(source)] == ["a.mp4", "b.mp4"]
    (video,) = VideoList.read(source, split="val")
    assert (video.id, video.label) == ("b.mp4", (1, 2))


KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"


def test_kinetics(tmp_path: Path) -> None:
    text = KINETICS + 'zumba,_abc,59,69,val,0\n"air drumming",-x-y,8,18,val,0\nzumba,q,0,10,train,1\n'
    videos = VideoList.read(_write(tmp_path, text, "k.csv"))
    assert videos.classes == ("air drumming", "zumba")
    assert [(video.id, video.label) for video in videos] == [
        ("zumba/_abc_000059_000069.mp4", 1),
        ("air drumming/-x-y_000008_000018.mp4", 0),
        ("zumba/q_000000_000010.mp4", 1),
    ]
    assert [video.id for video in VideoList.read(tmp_path / "k.csv", split="validate")] == [
        "zumba/_abc_000059_000069.mp4",
        "air drumming/-x-y_000008_000018.mp4",
    ]


@pytest.mark.parametrize(
    "layout", ["air drumming", "air_drumming", "val/air drumming", "val/air_drumming", "."]
)
def test_kinetics_layouts(tmp_path: Path, layout: str) -> None:
    file = tmp_path / "root" / layout / "x_000001_000011.mp4"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    source = _write(tmp_path, KINETICS + "air drumming,x,1,11,validate,0\n", "k.csv")
    (video,) = VideoList.read(source, root=tmp_path / "root")
    assert video.path == file and (tmp_path / "root" / video.id).samefile(file)


BAD = {
    "empty file": ("list.txt", "", r"list\.txt: holds no videos"),
    "blank lines only": ("list.txt", "\n \r\n", r"list\.txt: holds no videos"),
    "table without rows": ("t.csv", "path,label\n", r"t\.csv: holds no videos"),
    "no integer": (
        "list.txt",
        "a.mp4 0\nb.mp4 dog\n",
        r"list\.txt:2: label 'dog'; expected an integer from 0 on",
    ),
    "float": ("list.txt", "a.mp4 1.5\n", r"list\.txt:1: label '1\.5'; expected an integer from 0 on"),
    "negative": ("list.txt", "a.mp4 -1\n", r"list\.txt:1: label '-1'; expected an integer from 0 on"),
    "no label": ("list.txt", "a.mp4 0\r\nb.mp4\r\n", r"list\.txt:2: 'b\.mp4'; expected `path label`"),
    "twice": ("list.txt", "a.mp4 0\nb.mp4 1\na.mp4 1\n", r"list\.txt:3: 'a\.mp4' again \(first in line 1\)"),
    "twice, spelt differently": (
        "list.txt",
        "a.mp4 0\n./x/../a.mp4 1\n",
        r"list\.txt:2: .* \(first in line 1\)",
    ),
    "integers and names": (
        "t.csv",
        "path,label\na,1\nb,dog\n",
        r"t\.csv:3: label 'dog'; expected an integer",
    ),
    "column missing": (
        "t.csv",
        "path,lable\na,1\n",
        r"t\.csv:1: the header lacks label; expected path, label",
    ),
    "cell missing": ("t.csv", "path,label\na,1\nb\n", r"t\.csv:3: 1 cells; expected 2: path, label"),
    "cell empty": ("t.csv", "path,label\na,1\nb,\n", r"t\.csv:3: an empty cell; expected a path and a label"),
    "torn quote": ("t.csv", 'path,label\n"a,1\n', r"t\.csv:\d: .*; expected CSV or TSV"),
    "time": (
        "k.csv",
        KINETICS + "a,b,x,9,val,0\n",
        r"k\.csv:2: time_start 'x', time_end '9'; expected seconds",
    ),
    "no id": ("k.csv", KINETICS + "a,,1,9,val,0\n", r"k\.csv:2: an empty label or youtube_id"),
    "kinetics twice": ("k.csv", KINETICS + "a,b,1,9,val,0\na,b,1,9,val,0\n", r"k\.csv:3: .* again"),
}


@pytest.mark.parametrize("name, text, message", BAD.values(), ids=BAD)
def test_bad_lists(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        VideoList.read(_write(tmp_path, text, name))
    assert "\n" not in str(caught.value)


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"nowhere: no such file or folder; expected a folder of videos or a list"
    ):
        VideoList.read(tmp_path / "nowhere")
    (tmp_path / "video.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42\xff\xfe\x80")
    with pytest.raises(
        InputError, match=r"video\.mp4: is not UTF-8 text; expected an annotation list or a folder"
    ):
        VideoList.read(tmp_path / "video.mp4")
    source = _write(tmp_path, "a.mp4 0\n")
    with pytest.raises(InputError, match="format 'folder' does not fit a file"):
        VideoList.read(source, format="folder")
    with pytest.raises(InputError, match=r"expected format 'auto', .*got 'csv'"):
        VideoList.read(source, format="csv")  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"no such folder; expected the folder that list\.txt's paths belong to"
    ):
        VideoList.read(source, root=tmp_path / "nowhere")
    with pytest.raises(InputError, match="a `path label` list has no splits"):
        VideoList.read(source, split="train")
    table = _write(tmp_path, "path,label\na,1\n", "t.csv")
    with pytest.raises(InputError, match="has no column `split`"):
        VideoList.read(table, split="train")
    split = _write(tmp_path, "path,label,split\na,1,train\n", "s.csv")
    with pytest.raises(InputError, match=r"holds no videos of split 'test'"):
        VideoList.read(split, split="test")


def test_slices_and_indices(tmp_path: Path) -> None:
    videos = VideoList.read(_write(tmp_path, "a 0\nb 1\nc 2\n"))
    assert len(videos) == 3 and videos[-1].id == "c"
    assert [video.id for video in videos[1:]] == ["b", "c"] and videos[1:].source == videos.source
    with pytest.raises(InputError, match="the id 'a' occurs twice"):
        VideoList(entries=(videos[0], videos[0]))


def test_real_lists(shared_data: Path) -> None:
    lists = shared_data / "annotations"
    train = VideoList.read(lists / "ucf101" / "trainlist01.txt")
    assert (len(train), train[0].id, train[0].label) == (
        9537,
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
        1,
    )
    assert {video.label for video in train} == set(range(1, 102))
    test = VideoList.read(lists / "ucf101" / "testlist01.txt")
    assert len(test) == 3783 and all(video.label is None for video in test)
    pour = VideoList.read(lists / "hmdb51_format" / "pour_test_split1.txt")
    assert len(pour) == 55 and {video.label for video in pour} == {1, 2}
    raw = VideoList.read(lists / "mmaction2" / "rawvideo_test_anno.txt")
    assert [(video.id, video.label) for video in raw] == [("rawvideo_dataset", (1, 2, 0))]
    with pytest.raises(InputError, match=r"video_test_list_multi_label\.txt:2: 'test\.mp4' again"):
        VideoList.read(lists / "mmaction2" / "video_test_list_multi_label.txt")
    kinetics = lists / "kinetics"
    k400 = VideoList.read(kinetics / "kinetics-400_val_example_is_cc.csv")
    assert [(video.id, video.label) for video in k400] == [
        ("abseiling/-3B32lodo2M_000059_000069.mp4", 0),
        ("air drumming/_dbcJuKJQNs_000040_000050.mp4", 1),
    ]
    assert len(VideoList.read(kinetics / "kinetics-600_val_head.csv")) == 5
    k700 = VideoList.read(kinetics / "kinetics-700_validate_example.csv", split="val")
    assert k700.classes == ("air drumming", "testifying", "washing feet") and len(k700) == 3
