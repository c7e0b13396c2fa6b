"""What a first user does with the installed wheel and its core dependencies alone: one training step, a saved
model, the command line.

Run outside the checkout, in an environment that holds nothing but the wheel.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch

import scalefast


def check_origin() -> None:
    """scalefast comes from the environment, whole, and nothing answers to the name `kernels`."""
    home = Path(scalefast.__file__).parent
    assert home.parent == Path(sysconfig.get_path("purelib")), f"scalefast was imported from {home}"
    assert (home / "py.typed").is_file(), "py.typed is not in the wheel"
    try:
        import kernels  # noqa: F401
    except ModuleNotFoundError:
        return
    raise AssertionError("a package named 'kernels' is importable: it belongs to another distribution")


def take_one_step() -> None:
    """The pretraining loss of a fixed batch falls when AdamW takes a step on it."""
    torch.manual_seed(0)
    task = scalefast.SCALEPretraining(scalefast.SCALE(feature_dim=96, dropout=0.0))
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-4)
    features, positions = torch.randn(16, 2, 8, 96), torch.rand(16, 2, 8, 7)
    mask = torch.rand(16, 2, 8) < 0.25
    before = task(features, positions, mask=mask).loss
    before.backward()
    optimizer.step()
    after = task(features, positions, mask=mask).loss
    assert torch.isfinite(after) and after < before, f"the loss went from {before} to {after}"
    print(f"one training step: loss {before.item():.4f} -> {after.item():.4f}")


def save_and_load() -> None:
    """A saved model gives the same video vectors when loaded."""
    model = scalefast.SCALE(feature_dim=96).eval()
    features, positions = torch.randn(2, 8, 96), torch.rand(2, 8, 7)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(folder)
        loaded = scalefast.SCALE.from_pretrained(folder).eval()
        assert torch.equal(model(features, positions).video, loaded(features, positions).video)


def use_the_command_line() -> None:
    """The entry point is installed, and a verb whose extra is missing names it."""
    for words in (["--version"], ["doctor"]):
        subprocess.run([Path(sys.prefix, "bin", "scalefast"), *words], check=True)
    scan = [Path(sys.prefix, "bin", "scalefast"), "scan", ".", "--out", "ledger.csv"]
    done = subprocess.run(scan, capture_output=True, text=True)
    assert done.returncode == 2 and "scalefast[video]" in done.stderr, (done.returncode, done.stderr)


if __name__ == "__main__":
    check_origin()
    take_one_step()
    save_and_load()
    use_the_command_line()
