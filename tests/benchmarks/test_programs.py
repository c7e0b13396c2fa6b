"""The programs beside the benchmarks: what they write down, fit and draw is what was measured."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def programs() -> Iterator[SimpleNamespace]:
    """The modules, which belong to no package."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("", "programs", "plots"):
            patch.syspath_prepend(str(ROOT / folder))
        names = ("side_by_side", "results", "growth", "roofline", "draw", "whole_run", "loss_curves")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def test_a_steps_operations_are_those_of_the_method(programs) -> None:
    """390 GFLOP at 512 videos, 2 x 8 clips of 768 numbers, of which the target head has 270."""
    parts = programs.roofline.step_flops()
    assert sum(parts.values()) == pytest.approx(3.9e11, rel=0.01)
    assert parts["target head"] == pytest.approx(2.7e11, rel=0.01)
    assert parts["transformer"] == pytest.approx(5.8e10, rel=0.01)
    assert parts["set head"] == pytest.approx(1.0e10, rel=0.05)


def test_the_products_of_a_step_are_counted_as_they_are_done(programs) -> None:
    """PyTorch's own counter over the plain form of the step, where every clip goes through the prediction head."""
    from torch.utils.flop_counter import FlopCounterMode

    from scalefast import SCALE

    batch, views, dim = 4, 3, 40
    train_step = importlib.import_module("train_step")
    model = SCALE(dim, dropout=0.0)
    features, positions = torch.randn(2 * batch, views, dim), torch.rand(2 * batch, views, 7)
    with FlopCounterMode(display=False) as counter:
        train_step.plain_tokens(model, features, positions).sum().backward()
    tokens = 2 * batch * (views + 1)
    scores = 6 * 2 * model.num_layers * tokens * (views + 1) * 256  # inside sets, which the table leaves out
    parts = programs.roofline.step_flops(batch=batch, views=views, dim=dim)
    expected = parts["transformer"] + parts["input and position projections"] + scores
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.02)


def test_an_exponent_is_that_of_a_power(programs) -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    assert programs.growth.exponent(values, [3 * value**1.5 for value in values]) == pytest.approx(1.5)
    assert programs.growth.exponent(values, [7.0] * 4) == pytest.approx(0.0)


def test_growth_measures_points_and_fits_them(programs) -> None:
    rows = list(programs.growth.measure("videos", device=torch.device("cpu"), limit=60.0, largest=10**4))
    assert [row["value"] for row in rows if row.get("what") == "drawing a batch" and "value" in row] == [
        1000,
        10000,
    ]
    assert all(row["seconds"] > 0 for row in rows if "seconds" in row)
    assert {row["what"] for row in rows if "exponent" in row} == {"order of an epoch", "drawing a batch"}


def test_growth_ends_before_a_point_that_takes_too_long(programs, monkeypatch) -> None:
    monkeypatch.setattr(programs.growth, "_point", lambda axis, value, device, rounds: {"step": value / 128})
    rows = list(programs.growth.measure("batch", device=torch.device("cpu"), limit=10.0))
    assert [row["value"] for row in rows if "value" in row] == [128, 256, 512, 1024]
    assert rows[-1]["exponent"] == 1.0


def test_growth_of_one_axis_keeps_the_other_curves(programs, tmp_path: Path, monkeypatch) -> None:
    def run(axes: list[str], seconds: float) -> list[dict]:
        monkeypatch.setattr(
            programs.growth, "_point", lambda axis, value, device, rounds: {"step": seconds * value}
        )
        words = ["--axes", *axes, "--name", "grown", "--out", str(tmp_path), "--device", "cpu"]
        monkeypatch.setattr("sys.argv", ["growth.py", *words])
        programs.growth.main()
        return programs.results.read_rows(tmp_path / "grown.json")

    monkeypatch.setattr(programs.growth, "keep_freed_memory", lambda: False)
    whole = run(["dim", "views"], 1e-6)
    assert [row["axis"] for row in whole] == ["views"] * 6 + ["dim"] * 5
    again = run(["dim"], 2e-6)
    assert again[:6] == whole[:6]
    assert [row.get("seconds") for row in again[6:10]] == [2e-6 * value for value in (256, 512, 1024, 2048)]


def test_growth_goes_on_from_the_points_that_stand(programs, monkeypatch) -> None:
    """A long point has fewer rounds, and the exponent is of all points."""
    asked = []

    def point(axis: str, value: int, *, device: torch.device, rounds: int) -> dict[str, float]:
        asked.append((value, rounds))
        return {"step": value**2 / 2**22}

    monkeypatch.setattr(programs.growth, "_point", point)
    given = {"device": torch.device("cpu"), "limit": 40.0}
    *points, fit = programs.growth.measure("small", largest=4096, **given)
    *all_points, whole = programs.growth.measure("small", known=points, **given)
    assert asked == [(128 * 2**i, 2 if i < 6 else 0) for i in range(7)]
    assert (fit["exponent"], whole["exponent"], whole["points"]) == (2.0, 2.0, 7)
    assert [row["value"] for row in all_points] == [value for value, _ in asked]


def test_results_say_what_they_were_measured_on(programs, tmp_path: Path) -> None:
    measured = {
        "benchmarks": [
            {
                "fullname": "benchmarks/test_x.py::test_a",
                "stats": {"min": 0.5},
                "extra_info": {
                    "seconds": {"ours": 0.5, "peer": 2.0},
                    "absent": {"other": "No module named 'other'"},
                },
            },
            {"fullname": "benchmarks/test_y.py::test_b", "stats": {"min": 3.0}, "extra_info": {}},
            {"fullname": "c", "stats": {"min": 1.0}, "extra_info": {"seconds": {"a part": 0.25}}},
        ]
    }
    rows = programs.results.rows_of_benchmarks(measured)
    paths = programs.results.write_rows(rows, name="found", folder=tmp_path)
    whole = json.loads(paths[0].read_text())
    assert whole["rows"] == rows == programs.results.read_rows(paths[0])
    assert whole["versions"]["torch"] == torch.__version__
    assert {"hardware", "date", "commit", "threads", "gpus"} <= whole.keys()
    table = list(csv.DictReader(paths[1].open()))
    assert [(row["contender"], row["seconds"], row["ours_is_faster"], row["absent"]) for row in table] == [
        ("ours", "0.5", "1.0", ""), ("peer", "2.0", "4.0", ""), ("other", "", "", "No module named 'other'"),
        ("ours", "3.0", "", ""), ("a part", "0.25", "", ""),
    ]  # fmt: skip
    assert all(row["date"] == whole["date"] and row["commit"] == whole["commit"] for row in table)
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    programs.draw.draw_peers(whole, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_contenders_take_turns_and_absent_ones_are_listed(programs) -> None:
    order: list[str] = []
    benchmark = SimpleNamespace(enabled=True, extra_info={}, pedantic=lambda *_, **__: None)

    def missing():
        importlib.import_module("surely_not_there")

    made, absent = programs.side_by_side.available({"a": lambda: lambda: order.append("a"), "b": missing})
    programs.side_by_side.race(benchmark, lambda: order.append("ours"), made, absent=absent, rounds=2)
    assert order == ["ours", "a"] * 3  # once to warm up
    assert benchmark.extra_info["absent"] == {"b": "No module named 'surely_not_there'"}
    assert set(benchmark.extra_info["seconds"]) == {"ours", "a"}
    assert set(benchmark.extra_info["ours is faster than"]) == {"a"}


def test_a_whole_run_is_timed(programs, tmp_path: Path) -> None:
    from scalefast.training import PretrainConfig

    store = programs.whole_run.make_store(tmp_path / "store", videos=20, dim=16)
    config = PretrainConfig(
        epochs=2, batch_size=10, hidden_dim=32, head_dim=32, target_dim=32, precision="fp32"
    )
    found = programs.whole_run.timed_run(store, config=config, bank="stream")
    assert found["steps"] == 4
    assert 0 < found["seconds_of_steps"] < found["seconds"]
    assert found["ms_a_step"] == pytest.approx(1e3 * found["seconds_of_steps"] / 4)


def test_loss_curves_of_both_precisions_are_compared(programs, tmp_path: Path, monkeypatch, capsys) -> None:
    from scalefast import FeatureStore

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(6)
    for name in ("train", "test"):
        features = torch.randn(4, 1, 16, generator=torch.Generator().manual_seed(9))[labels] + torch.randn(
            24, 16, 16, generator=generator
        )
        ids = [f"{name}-{i}" for i in range(24)]
        FeatureStore.create(tmp_path / name, features=features.half(), labels=labels, ids=ids)
    words = [
        str(tmp_path / "train"),
        str(tmp_path / "test"),
        "--epochs",
        "6",
        "--batch",
        "12",
        "--head-dim",
        "32",
        "--control",
    ]
    words += ["--recipe", "recommended", "--name", "curves", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["loss_curves.py", *words, "--seeds", "0"])
    assert programs.loss_curves.main() == 0
    (kept,) = programs.results.read_rows(tmp_path / "curves.json")
    one, whole = (json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{"))
    assert (one["recipe"], one["seed"], one["steps"]) == ("recommended", 0, 12)
    assert kept == one
    assert (kept["knn_fp32"], kept["knn_bf16"]) == tuple(whole["knn"][name][0] for name in ("fp32", "bf16"))
    for name in ("rounding", "bf16"):
        assert 0 < one[f"{name}_largest"] == whole[f"{name}_largest"] < 0.01
        assert one[f"{name}_steps_apart"] == 0
    assert one["all_bf16_largest"] > one["bf16_largest"]  # the run without the first steps in fp32
    assert one["all_bf16_at_step"] != one["bf16_at_step"] or one["all_bf16_mean"] != one["bf16_mean"]
    assert one["rounding_largest"] != one["bf16_largest"]  # the weights part from the second step on
    assert set(whole["knn"]) == {"fp32", "bf16"}
    monkeypatch.setattr(programs.loss_curves, "MOST", 0.0)
    assert programs.loss_curves.main() == 1


def test_a_curve_is_compared_step_by_step(programs) -> None:
    found = programs.loss_curves.apart([1.0, 2.0, 4.0], [1.0, 1.9, 4.1], name="bf16")
    assert found["bf16_largest"] == pytest.approx(0.05)
    assert (found["bf16_at_step"], found["bf16_steps_apart"]) == (2, 2)
    assert found["bf16_mean"] == pytest.approx((0.025 - 0.05) / 3)
    with pytest.raises(ValueError, match="zip"):  # a step is missing
        programs.loss_curves.apart([1.0, 2.0], [1.0], name="bf16")
