"""Where a model is looked for: names that can be no hub id never wait for the network, and others not for long."""

from __future__ import annotations

import socket
import time

import huggingface_hub
import pytest

import scalefast
from scalefast.cli import main
from scalefast.errors import InputError

COMMIT = "0" * 40


@pytest.fixture
def saved(tmp_path):
    return scalefast.SCALE(feature_dim=8, hidden_dim=32, num_layers=1).save_pretrained(tmp_path / "saved")


@pytest.fixture
def no_network(monkeypatch):
    """A hub at a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(
            huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}"
        )
        yield


@pytest.fixture
def hub_forbidden(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError(f"the hub was asked for {args}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", never)
    monkeypatch.setattr("scalefast.hub._hub_answers", never)


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "runs/k400/seed0",
        "./run",
        "../run",
        "/no-such-run",
        "~/run",
        "user/run.safetensors",
        "user/a.store",
        "user/",
        "a b/c",
    ],
)
def test_what_is_no_hub_id_fails_without_asking(hub_forbidden, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"not a folder with a saved model .*, nor a hub id \(user/name\)"):
        scalefast.SCALE.from_pretrained(name)


def test_a_folder_beside_others_is_a_typing_error(hub_forbidden, saved, monkeypatch):
    """`runs/k4OO` where `runs` is a folder: nobody means the user `runs` of the hub."""
    monkeypatch.chdir(saved.parent.parent)
    name = f"{saved.parent.name}/svaed"
    with pytest.raises(
        InputError, match=rf"{name}: no such folder in .*hf download {name} --local-dir FOLDER"
    ):
        scalefast.SCALE.from_pretrained(name)


def test_without_a_network_one_short_try(no_network, tmp_path, monkeypatch, capsys):
    """The hub's own client alone would try five times and take 15 seconds and more."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    begin = time.monotonic()
    assert main(["embed", "user/name", "no.store", "--out", "vectors.npz"]) == 2
    assert time.monotonic() - begin < 10
    said = capsys.readouterr().err
    assert "error: 'user/name' is not a local folder, and as a hub id config.json could not be had" in said
    assert "the hub cannot be reached" in said and "Traceback" not in said
    assert not (tmp_path / "vectors.npz").exists()


def test_without_a_network_the_cache_serves(no_network, saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "cache" / "models--user--name-v1.5"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    saved.rename(repository / "snapshots" / COMMIT)
    model = scalefast.SCALE.from_pretrained("user/name-v1.5", cache_dir=tmp_path / "cache")
    assert model.feature_dim == 8


def test_a_hub_that_answers_is_asked_with_all_options(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scalefast.hub._hub_answers", lambda: True)
    asked = []

    def download(repository, name, **options):
        asked.append((repository, name, options["revision"], options["local_files_only"]))
        return str(saved / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert scalefast.SCALE.from_pretrained("user/name", revision="v1").feature_dim == 8
    assert asked == [("user/name", name, "v1", False) for name in ("config.json", "model.safetensors")]

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: 1 / 0)
    with pytest.raises(InputError, match=r"as a hub id config.json could not be had: division by zero"):
        scalefast.SCALE.from_pretrained("user/name")
