"""Label maps: those that ship are the data sets' own, and a user's file is read strictly."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalefast.datasets import LABEL_MAPS, label_names
from scalefast.datasets._labels import read_label_file
from scalefast.errors import DataError, InputError

SETTINGS = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = st.lists(
    st.text(st.characters(categories=("L", "Po", "Pd")), min_size=1, max_size=9),
    min_size=1,
    max_size=9,
    unique=True,
)


@pytest.mark.parametrize("name", LABEL_MAPS)
def test_maps_have_as_many_names_as_they_say(name: str) -> None:
    names = label_names(name)
    assert len(names) == len(set(names)) == LABEL_MAPS[name].classes


def test_maps_are_those_of_the_data_sets(shared_data: Path) -> None:
    """As the annotation files have them."""
    lists = shared_data / "annotations"
    index = [
        line.split() for line in (lists / "ucf101" / "classInd.txt").read_text().splitlines() if line.strip()
    ]
    assert label_names("ucf101") == tuple(name for _, name in index)
    assert [int(number) for number, _ in index] == list(range(1, 102))
    reconstructed = json.loads((lists / "ssv2" / "labels_reconstructed.json").read_text())
    assert {name: str(number) for number, name in enumerate(label_names("ssv2"))} == reconstructed
    for name, file in {
        "kinetics400": "kinetics/label_map_k400_mmaction2.txt",
        "hmdb51": "mmaction2/label_map_hmdb51.txt",
    }.items():
        assert "\n".join(label_names(name)) == (lists / file).read_text().strip()


def test_a_changed_map_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One letter is enough."""
    folder = tmp_path / "labels"
    folder.mkdir()
    text = "\n".join(label_names("hmdb51")) + "\n"
    (folder / "hmdb51.txt").write_text(text.replace("wave", "Wave"))
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(
        DataError, match=r"the label map of hmdb51 is damaged: SHA-256 [0-9a-f]{64}, expected c24c56"
    ):
        label_names("hmdb51")
    (folder / "hmdb51.txt").write_text(text)
    assert len(label_names("hmdb51")) == 51


def test_there_is_no_map_for_what_is_not_known() -> None:
    with pytest.raises(
        InputError, match="no label map ships for 'kinetics700'; there are maps for kinetics400, "
    ):
        label_names("kinetics700")


@SETTINGS
@given(names=NAMES, first=st.integers(0, 1), end=st.sampled_from(["\n", "\r\n"]))
def test_a_users_file_in_each_form(tmp_path: Path, names: list[str], first: int, end: str) -> None:
    """Lines, numbered lines and JSON say the same."""
    (tmp_path / "plain.txt").write_bytes(end.join(names).encode())
    numbered = [f"{number} {name}" for number, name in enumerate(names, start=first)]
    (tmp_path / "numbered.txt").write_bytes(end.join(numbered).encode())
    (tmp_path / "labels.json").write_text(json.dumps({name: str(i) for i, name in enumerate(names)}))
    for file in ("plain.txt", "numbered.txt", "labels.json"):
        assert read_label_file(tmp_path / file) == tuple(names)


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("c.txt", "", "c.txt: holds no names; expected a name a class"),
        ("c.txt", "run\njump\nrun\n", "c.txt: 'run' occurs twice"),
        ("c.txt", "1 run\n3 jump\n", "c.txt:2: class number 3; expected 2: numbers without a gap"),
        ("c.json", '{"run": "0", "jump": "2"}', "c.json: expected the class numbers 0 to 1, each once"),
        ("c.json", '["run"]', "c.json: expected a JSON object such as"),
    ],
)
def test_bad_label_files(tmp_path: Path, file: str, text: str, message: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError) as caught:
        read_label_file(tmp_path / file)
    assert message in str(caught.value)
