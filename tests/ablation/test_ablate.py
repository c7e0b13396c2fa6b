"""Ablations: every row is the run that it says it is; killed, cached and repeated ones leave the same tables."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

import scalefast.ablation.run as runner
from scalefast import FeatureStore
from scalefast.ablation import STUDIES, ablate, choose, plot
from scalefast.ablation.studies import variants_of
from scalefast.cli import main
from scalefast.errors import DataError, DivergedError, InputError, TrainingError
from scalefast.evaluation import evaluate
from scalefast.training import PretrainConfig, pretrain
from scalefast.training.recipes import RECIPES

TINY = PretrainConfig(
    epochs=2, batch_size=12, views=4, hidden_dim=32, num_layers=1, projection_dim=8, head_dim=16, target_dim=16,
    center_sets=True, calibrated=True, log_every=1, checkpoint_every=1,
)  # fmt: skip
Stores = tuple[Path, Path]
FILES = ("ablation.md", "ablation.json", "ablation.csv")


@pytest.fixture(scope="module")
def done(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The losses study with two seeds; not to be changed."""
    folder = tmp_path_factory.mktemp("ablation") / "done"
    ablate(stores[0], test=stores[1], out=folder, base=TINY, studies=["losses"], seeds=2, batched="off")
    return folder


def test_every_row_is_a_run_of_its_own(done: Path, stores: Stores, tmp_path: Path) -> None:
    table = json.loads((done / "ablation.json").read_text())
    assert [row["name"] for row in table["rows"]] == list(STUDIES["losses"])
    assert [row["name"] for row in table["rows"] if row["base"]] == ["MCM, SET"]
    row = table["rows"][1]
    config = PretrainConfig.from_dict(row["config"])
    assert (config.mcm_weight, config.set_weight) == (0.0, 0.5)
    pretrain(stores[0], out=tmp_path / "run", config=config.replace(seed=1), progress=False)
    results = evaluate(tmp_path / "run", train=stores[0], test=stores[1], device="cpu")
    for protocol in ("knn", "linear"):
        for name in ("cls", "recommended"):
            assert row["seeds"][1][protocol][name] == results.accuracies[protocol][name]
        for name in ("mean", "mean_std", "mean_time", "max"):
            assert table["baselines"][protocol][name] == results.accuracies[protocol][name]


def test_files_say_the_same(done: Path) -> None:
    table = json.loads((done / "ablation.json").read_text())
    lines = list(csv.DictReader((done / "ablation.csv").open()))
    runs = [line for line in lines if line["study"]]
    assert len(runs) == len(STUDIES["losses"]) * 2 * 2 * 2
    for line in runs:
        row = next(row for row in table["rows"] if row["name"] == line["value"])
        value = row["seeds"][int(line["run"])][line["protocol"]][line["representation"]]
        assert float(line["accuracy"]) == value
    seeds = [one["knn"]["cls"] for one in table["rows"][0]["seeds"]]
    text = (done / "ablation.md").read_text()
    assert f"| losses | MCM | 2 | {100 * sum(seeds) / 2:.1f} ± " in text
    assert "| losses | MCM, SET (base) | 2 |" in text
    assert "Without SCALE, on the same features: k-NN mean " in text
    assert not list(done.rglob("checkpoints"))


def test_a_killed_ablation_goes_on_where_it_was(
    done: Path, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = 6  # two in the second run
    program = Path(__file__).parent / "programs" / "killed.py"
    words = [*map(str, stores), str(tmp_path / "out"), TINY.to_json(), "losses", str(checkpoints), "off"]
    killed = subprocess.run([sys.executable, str(program), *words], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    finished = len(list((tmp_path / "out" / "runs").glob("*/result.json")))
    resumed = []

    def watched(*args, **options):
        result = pretrain(*args, **options)
        resumed.append(result.resumed_from)
        return result

    monkeypatch.setattr(runner, "pretrain", watched)
    ablate(
        stores[0], test=stores[1], out=tmp_path / "out", base=TINY, studies=["losses"], seeds=2, batched="off"
    )
    assert len(resumed) == 2 * len(STUDIES["losses"]) - (finished - 1)  # the baselines are a result too
    assert resumed[0] == (checkpoints - 1) % 4 + 1 and not any(resumed[1:])
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (done / name).read_bytes(), name


def test_a_finished_table_loses_nothing_when_it_is_stopped_again(
    done: Path, stores: Stores, tmp_path: Path
) -> None:
    shutil.copytree(done, tmp_path / "out")
    told: list[str] = []

    def stop(text: str) -> None:
        told.append(text)
        raise KeyboardInterrupt

    again = partial(ablate, stores[0], test=stores[1], out=tmp_path / "out", base=TINY, batched="off")
    with pytest.raises(KeyboardInterrupt):
        again(studies=["losses"], seeds=2, say=stop)
    assert told[0].endswith("seed 0 (done before)")
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (done / name).read_bytes(), name
    with pytest.raises(KeyboardInterrupt):  # of a new study nothing is known but its base
        again(studies=["losses", "same_video"], seeds=2, say=stop)
    rows = json.loads((tmp_path / "out" / "ablation.json").read_text())["rows"]
    assert [len(row["seeds"]) for row in rows if row["study"] == "losses"] == [2] * len(STUDIES["losses"])
    assert sorted(len(row["seeds"]) for row in rows if row["study"] == "same_video") == [0, 2]


def test_only_what_is_new_is_computed(
    done: Path, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done, tmp_path / "out")
    trained = []

    def watched(*args, **options):
        trained.append(options["config"])
        return pretrain(*args, **options)

    monkeypatch.setattr(runner, "pretrain", watched)
    ablate(
        stores[0], test=stores[1], out=tmp_path / "out", base=TINY, studies=["losses"], seeds=2, batched="off"
    )
    assert trained == []
    table = ablate(
        stores[0], test=stores[1], out=tmp_path / "out", base=TINY, studies=["same_video"], seeds=1
    )
    assert [config.same_video for config in trained] == ["exclude"]  # the base was there
    assert [len(row.found) for row in table.rows] == [1, 1]


def test_other_data_is_another_result(done: Path, stores: Stores, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "out")
    store = FeatureStore.open(stores[0])
    other = FeatureStore.create(
        tmp_path / "other", features=store.features[:] * 2, labels=store.labels, ids=store.ids,
        classes=store.classes, positions=store.positions[:], provenance=store.provenance,
    )  # fmt: skip
    before = len(list((tmp_path / "out" / "runs").iterdir()))
    ablate(other, test=stores[1], out=tmp_path / "out", base=TINY, studies=["same_video"])
    assert len(list((tmp_path / "out" / "runs").iterdir())) == before + 3


def test_a_run_that_diverges_is_a_row_and_a_full_disk_is_an_error(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*args, config, **options):
        if config.same_video == "exclude":
            raise DivergedError("the loss is not finite at step 3")
        return pretrain(*args, config=config, **options)

    monkeypatch.setattr(runner, "pretrain", diverge)
    table = ablate(stores[0], test=stores[1], out=tmp_path / "a", base=TINY, studies=["same_video"])
    assert "| same_video | exclude | 0, 1 failed | - | - | - | - |" in table.markdown()
    with pytest.raises(InputError, match="holds no finished row of the study 'losses'"):
        choose([tmp_path / "a"], study="losses")

    def full(*args, **options):
        raise TrainingError("No space left on device")

    monkeypatch.setattr(runner, "pretrain", full)
    with pytest.raises(TrainingError, match="No space"):
        ablate(stores[0], test=stores[1], out=tmp_path / "b", base=TINY, studies=["same_video"])


def test_a_damaged_result_is_named(done: Path, stores: Stores, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "out")
    broken = sorted((tmp_path / "out" / "runs").glob("*/result.json"))[0]
    broken.write_text(broken.read_text()[:40])
    with pytest.raises(DataError, match=str(broken)):
        ablate(
            stores[0],
            test=stores[1],
            out=tmp_path / "out",
            base=TINY,
            studies=["losses"],
            seeds=2,
            batched="off",
        )


def test_rows_that_need_more_clips_are_left_out() -> None:
    base = TINY.replace(views=2)
    assert [v.name for v in variants_of(base, studies=["views"], clips=8)] == ["2", "4"]
    halves = variants_of(base.replace(epochs=7), studies=["schedule"], clips=8)
    assert [variant.config.epochs for variant in halves] == [4, 7, 14]
    with pytest.raises(InputError, match="need 8 clips a video, but the store has 6"):
        variants_of(TINY, studies=["views"], clips=6)
    with pytest.raises(InputError, match=r"studies must be some of .*got moon"):
        variants_of(TINY, studies=["moon"], clips=16)


def test_every_study_gives_valid_configurations() -> None:
    variants = variants_of(TINY, studies=list(STUDIES), clips=16)
    assert {variant.study for variant in variants} == set(STUDIES)
    for study in STUDIES:
        configs = [variant.config for variant in variants if variant.study == study]
        assert len(configs) == len(set(map(PretrainConfig.to_json, configs))) > 1


def test_the_choice_is_the_best_mean_gain_over_the_sets(tmp_path: Path) -> None:
    def save(name: str, best: float, **rows: list[float]) -> Path:
        table = {
            "baselines": {"knn": {"mean": 0.1, "max": best}},
            "rows": [
                {"study": "s", "name": row, "seeds": [{"knn": {"recommended": value}} for value in values]}
                for row, values in rows.items()
            ],
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / "ablation.json").write_text(json.dumps(table))
        return tmp_path / name

    one = save("one", 0.5, steady=[0.6, 0.6], high=[0.9], failing=[1.0])
    two = save("two", 0.5, steady=[0.6], high=[0.4, 0.0], failing=[])
    found = choose([one, two], study="s")
    assert [choice.name for choice in found] == ["steady", "high"]
    assert found[0].gain == pytest.approx(0.1) and found[1].worst == pytest.approx(-0.3)
    with pytest.raises(InputError, match="no such file"):
        choose([tmp_path / "none"], study="s")
    (one / "ablation.json").write_text('{"rows": 3}')
    with pytest.raises(DataError, match="not the table of an ablation"):
        choose([one], study="s")


def test_plots_are_whole_and_the_same_again(done: Path, stores: Stores, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra report")
    table = ablate(stores[0], test=stores[1], out=done, base=TINY, studies=["losses"], seeds=2, batched="off")
    png, svg = plot(table, tmp_path / "a")
    assert png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size > 5000
    assert svg.read_text().rstrip().endswith("</svg>")


def test_the_command(stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tiny.json"
    config.write_text(TINY.to_json())
    words = ["ablate", str(stores[0]), "--test", str(stores[1]), "--out", str(tmp_path / "out")]
    words += ["--studies", "same_video", "--config", str(config), "--no-plots", "--device", "cpu"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert (tmp_path / "out" / "ablation.md").read_text() in printed.out
    assert "2 of 2: same_video = exclude, seed 0" in printed.err
    assert main([*words, "--epochs", "0"]) == 2
    assert main([*words[:2], "--test", str(stores[0]), *words[4:]]) == 2
    assert "error: " in capsys.readouterr().err


def test_every_study_can_be_asked_for() -> None:
    from scalefast.cli.ablate import _Study

    assert set(get_args(_Study)) == set(STUDIES)


@pytest.mark.parametrize("base", ["paper", "recommended"])
def test_both_recipes_are_rows_whatever_the_base(base: str) -> None:
    rows = {v.name: v.config for v in variants_of(RECIPES[base](), studies=["recipes"], clips=16)}
    for name, row in (
        ("paper", "paper"),
        ("recommended", "centred, mask .5, fixed, KoLeo, SET over time"),
    ):
        assert rows[row].objective == RECIPES[name]().objective
        assert rows[row].replace(parts=list(RECIPES[name]().parts)) == RECIPES[name]()
