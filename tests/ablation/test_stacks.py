"""Grids whose runs are trained at once: the same folders and tables as one after another, killed or not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import scalefast.ablation.run as runner
import scalefast.ablation.stacks as stacking
from scalefast import FeatureStore
from scalefast.ablation import STUDIES, ablate
from scalefast.ablation.stacks import stacks_of
from scalefast.cli import main
from scalefast.errors import InputError
from scalefast.training import PretrainConfig, load_run

TINY = PretrainConfig(
    epochs=2, batch_size=12, views=4, hidden_dim=32, num_layers=1, projection_dim=8, head_dim=16, target_dim=16,
    center_sets=True, calibrated=True, log_every=1, checkpoint_every=1,
    precision="fp32",
)  # fmt: skip
Stores = tuple[Path, Path]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The losses study with two seeds, one after another and at once; not to be changed."""
    root = tmp_path_factory.mktemp("grid")
    for batched in ("off", "on"):
        ablate(
            stores[0], test=stores[1], out=root / batched, base=TINY, studies=["losses"], seeds=2, batched=batched
        )  # fmt: skip
    return {batched: root / batched for batched in ("off", "on")}


def same_runs(one: Path, other: Path) -> None:
    """Same names, records and files; losses and tables to within rounding."""
    runs = sorted(path.name for path in (one / "runs").iterdir())
    assert runs == sorted(path.name for path in (other / "runs").iterdir())
    trained = [name for name in runs if (one / "runs" / name / "run").is_dir()]
    assert len(trained) == 2 * len(STUDIES["losses"])
    for name in trained:
        first, second = (folder / "runs" / name / "run" for folder in (one, other))
        assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
        assert (first / "run.json").read_bytes() == (second / "run.json").read_bytes()
        for mine, theirs in zip(load_run(first).log(), load_run(second).log(), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    tables = [json.loads((folder / "ablation.json").read_text()) for folder in (one, other)]
    for mine, theirs in zip(*(table["rows"] for table in tables), strict=True):
        assert mine["config"] == theirs["config"] and len(mine["seeds"]) == len(theirs["seeds"]) == 2
        for found, wanted in zip(mine["seeds"], theirs["seeds"], strict=True):
            for protocol in wanted:  # of 24 videos one more or less
                assert found[protocol] == pytest.approx(wanted[protocol], abs=1.01 / 24)


def test_at_once_is_one_after_another(folders: dict[str, Path]) -> None:
    same_runs(folders["on"], folders["off"])
    assert not list(folders["on"].rglob("checkpoints"))


def test_a_killed_stack_goes_on(
    folders: dict[str, Path], stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Path(__file__).parent / "programs" / "killed.py"
    checkpoints = (
        14  # ten models without a head for time: all have saved their first step, four of them their second
    )
    words = [*map(str, stores), str(tmp_path / "out"), TINY.to_json(), "losses", str(checkpoints), "on"]
    killed = subprocess.run([sys.executable, str(program), *words], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    begun = [load_run(path) for path in (tmp_path / "out" / "runs").glob("*/run")]
    steps = sorted(max(p.name for p in (run.folder / "checkpoints").iterdir()) for run in begun)
    assert [name[5:13] for name in steps] == 6 * ["00000001"] + 4 * ["00000002"]

    monkeypatch.setattr(runner, "pretrain", lambda *args, **options: pytest.fail("trained by itself"))
    ablate(
        stores[0], test=stores[1], out=tmp_path / "out", base=TINY, studies=["losses"], seeds=2, batched="on"
    )
    same_runs(tmp_path / "out", folders["off"])


def test_a_run_that_diverges_is_a_row_and_the_others_go_on(stores: Stores, tmp_path: Path) -> None:
    wild = TINY.replace(mcm_weight=1e38, set_weight=0.5)  # the only one whose loss overflows
    table = ablate(
        stores[0], test=stores[1], out=tmp_path, base=wild, studies=["temperature", "losses"], batched="on"
    )
    found = {(row.variant.study, row.variant.name): (len(row.found), row.failed) for row in table.rows}
    assert all(len(reasons) == 1 for (study, _), (_, reasons) in found.items() if study == "temperature")
    assert all(done == (1, []) for (study, _), done in found.items() if study == "losses")
    assert "not finite" in found["temperature", "0.1"][1][0]


def test_which_runs_make_a_stack(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore.open(stores[0])
    lone = TINY.replace(num_layers=2)
    moving = [TINY.replace(target="ema", seed=seed) for seed in (0, 1)]
    seeds = [TINY.replace(seed=seed) for seed in range(4)]
    configs = [seeds[0], lone, *moving, *seeds]
    distinct = [seeds[0], lone, *moving, *seeds[1:]]

    def stacks(batched, device=CPU):
        return stacks_of(configs, batched=batched, store=store, device=device)

    assert stacks("on") == stacks("auto") == [seeds, [lone], [moving[0]], [moving[1]]]
    assert stacks("off") == [[config] for config in distinct]
    large = [TINY.replace(head_dim=1 << 17, seed=seed) for seed in (0, 1)]
    for device, wanted in ((CPU, [[config] for config in large]), (torch.device("cuda"), [large])):
        monkeypatch.setattr(stacking, "free_memory", lambda device: 1e12)
        assert stacks_of(large, batched="auto", store=store, device=device) == wanted
    monkeypatch.setattr(stacking, "free_memory", lambda device: 0.0)
    assert stacks("on")[:2] == [[seeds[0]], [seeds[1]]]
    with pytest.raises(InputError, match="batched must be 'auto', 'on' or 'off', not 'yes'"):
        stacks("yes")


def test_the_command(stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tiny.json"
    config.write_text(TINY.to_json())
    words = ["ablate", str(stores[0]), "--test", str(stores[1]), "--out", str(tmp_path / "out"), "--no-plots"]
    words += ["--studies", "temperature", "--config", str(config), "--device", "cpu", "--batched"]
    assert main([*words, "on"]) == 0
    told = capsys.readouterr().err
    assert "4 of 4: temperature = 0.4, seed 0" in told and "4 of them at once" in told
    assert main([*words, "off"]) == 0  # all there
    assert "at once" not in capsys.readouterr().err
    assert main([*words, "perhaps"]) == 2
