"""Numbers to files, tables and sentences, and back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest

from scalefast.errors import DataError, InputError
from scalefast.evaluation import (
    Difference,
    details_path,
    read_results,
    results_table,
    verdict,
    write_results,
)

GOOD = {"knn": {"mean": 0.5, "cls": 0.25, "ensemble": 0.625}, "linear": {"mean": 1.0, "ensemble": 0.0}}


def test_file_holds_exactly_the_accuracies(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "results.json"
    write_results(out, GOOD, details={"seed": 3})
    assert json.loads(out.read_text()) == GOOD
    assert read_results(out) == (GOOD, {"seed": 3})
    assert sorted(path.name for path in out.parent.iterdir()) == ["results-details.json", "results.json"]


def test_details_are_optional(tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", GOOD)
    assert read_results(tmp_path / "r.json") == (GOOD, {})
    assert details_path(tmp_path / "r.json").name == "r-details.json"


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan])
def test_accuracy_outside_its_range_is_not_written(tmp_path: Path, value: float) -> None:
    out = tmp_path / "r.json"
    write_results(out, GOOD)
    with pytest.raises(InputError, match=r"accuracies lie in \[0, 1\], got knn\.mean"):
        write_results(out, {"knn": {"mean": value}})
    assert read_results(out)[0] == GOOD


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "r.json"
    write_results(out, GOOD)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_results(out, {"knn": {"mean": 0.1, "ensemble": 0.1}})
    assert read_results(out)[0] == GOOD
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_place_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is a folder; expected the name of a file"):
        write_results(tmp_path, GOOD)


def test_place_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"r\.json: the folder .*file cannot be made"):
        write_results(tmp_path / "file" / "r.json", GOOD)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable JSON"),
        ("[1]", "expected a JSON object, got list"),
        ("{}", "no results in it"),
        ('{"knn": 3}', "field 'knn': expected {representation: accuracy in"),
        ('{"knn": {"mean": 0.5}}', "'mean' and 'ensemble' among the representations"),
        ('{"knn": {"mean": 50, "ensemble": 60}}', r"got .*50"),
        ('{"knn": {"mean": true, "ensemble": 0.5}}', "field 'knn'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_results(tmp_path / "r.json")
    assert str(tmp_path / "r.json") in str(caught.value)


def test_missing_file_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; `scalefast evaluate` writes results\.json"):
        read_results(tmp_path / "r.json")


def test_table_is_aligned_and_in_percent() -> None:
    lines = results_table(GOOD).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["k-NN", "50.0", "25.0", "62.5"],
        ["linear", "100.0", "-", "0.0"],
    ]
    assert len({len(line) for line in lines}) == 1
    ends = [
        line.rindex(cell) + len(cell) for line, cell in zip(lines, ("ensemble", "62.5", "0.0"), strict=True)
    ]
    assert len(set(ends)) == 1


def test_each_measure_has_a_head_of_its_own() -> None:
    row = {"mean": 0.5, "ensemble": 0.625}
    protocols = ("knn", "retrieval_r5", "clustering_nmi", "clustering_ari", "linear", "regression")
    lines = results_table({protocol: row for protocol in protocols}).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "accuracy, %", "k-NN", "linear", "recall, %", "retrieval R@5", "NMI, %", "clustering NMI", "ARI, %",
        "clustering ARI", "R2, %", "regression, R2",
    ]  # fmt: skip
    assert all(line.split()[-2:] == ["mean", "ensemble"] for line in lines if ", %" in line)
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("ours", "mean", "expected"),
    [
        (0.7, 0.6, "k-NN: SCALE (ensemble) is 10.0 points above mean pooling, 70.0% against 60.0%."),
        (0.6, 0.7, "k-NN: SCALE (ensemble) is 10.0 points below mean pooling, 60.0% against 70.0%."),
        (0.5, 0.5, "k-NN: SCALE (ensemble) is equal to mean pooling, 50.0% against 50.0%."),
    ],
)
def test_verdict_is_plain(ours: float, mean: float, expected: str) -> None:
    assert verdict("knn", {"ensemble": ours, "mean": mean}) == expected


def test_verdict_says_when_the_interval_holds_zero() -> None:
    row = {"ensemble": 0.7, "mean": 0.6}
    unclear = verdict("knn", row, Difference(value=0.1, low=-0.02, high=0.22))
    assert unclear.endswith(
        "(95% interval -2.0 to +22.0, so the test videos are too few to tell them apart)."
    )
    clear = verdict("knn", row, Difference(value=0.1, low=0.02, high=0.18))
    assert clear.endswith("(95% interval +2.0 to +18.0).")


def test_difference_is_paired() -> None:
    """Both right on 60, only ours on 25, only theirs on 10, both wrong on 5: near the normal interval, whose
    ends lie between two hundredths."""
    ours = torch.tensor([True] * 85 + [False] * 15)
    theirs = torch.tensor([True] * 60 + [False] * 25 + [True] * 10 + [False] * 5)
    found = Difference.paired(ours, theirs)
    assert found.value == pytest.approx(0.15)
    error = math.sqrt((0.35 - 0.15**2) * 100 / 99 / 100)
    assert found.low == pytest.approx(0.15 - 1.96 * error, abs=0.01)
    assert found.high == pytest.approx(0.15 + 1.96 * error, abs=0.01)
    assert found.p_value == pytest.approx(binomtest(25, 35).pvalue)


def test_intervals_stand_below_the_accuracies() -> None:
    intervals = {"knn": {"mean": (0.412, 0.588), "ensemble": (1.0, 1.0), "cls": (-math.inf, math.inf)}}
    lines = results_table(GOOD, intervals).splitlines()
    assert lines[2].split() == ["95%", "41.2-58.8", "-", "100.0-100.0"]
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1


def test_difference_of_one_video_knows_nothing() -> None:
    found = Difference.paired(torch.tensor([True]), torch.tensor([False]))
    assert (found.value, found.low, found.high) == (1.0, -1.0, 1.0)
