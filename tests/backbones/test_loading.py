"""Names, folders and hub ids: what resolves, and what is said where it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import scalefast
from scalefast.backbones import REGISTRY, load_backbone
from scalefast.backbones import _hub as hub_module
from scalefast.backbones.encoders import VideoMAEEncoder
from scalefast.errors import DataError, InputError

ROOT = Path(__file__).resolve().parents[2]


def test_the_public_name():
    assert scalefast.load_backbone is load_backbone


@pytest.mark.parametrize("name", [name for name, entry in REGISTRY.items() if entry.r3d])
def test_own_networks_need_no_download(name, clips):
    backbone = load_backbone(name, device="cpu")
    features = backbone(clips(backbone, 2))
    assert features.shape == (2, backbone.feature_dim) and features.isfinite().all()
    assert not torch.equal(features[0], features[1])
    assert backbone.name == name
    assert backbone.describe()["source"] == {"kind": "random initialisation", "seed": 0}


@pytest.mark.parametrize("name", ["svt-b", "rhobyol-slow-r50"])
def test_names_with_a_file_alone_say_so(name):
    with pytest.raises(InputError, match=f"'{name}' exists only as its authors' file: pass checkpoint=file"):
        load_backbone(name)


def test_an_unknown_name_comes_with_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"named 'videomae-x', did you mean 'videomae-\w'\? Known names: r3d-tiny, r3d-18"
    ):
        load_backbone("videomae-x")
    with pytest.raises(InputError, match=r"named 'qwzx'\. Known names"):
        load_backbone("qwzx")


def test_files_and_folders_without_a_backbone(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(InputError, match=r"weights\.pth is a file; expected a folder"):
        load_backbone(tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"holds no backbone: expected config\.json and model\.safetensors"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(DataError, match=r"config\.json: expected a JSON file"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DataError, match=r"config\.json: expected a JSON object"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "videomae"}))
    (tmp_path / "weights.pth").unlink()
    with pytest.raises(InputError, match=r"no weights; expected model\.safetensors"):
        load_backbone(tmp_path)


def test_a_folder_of_a_known_name_is_reached_by_its_path(copied, tmp_path, monkeypatch):
    copied("VideoMAEModel").rename(tmp_path / "r3d-tiny")
    monkeypatch.chdir(tmp_path)
    assert load_backbone("r3d-tiny").feature_dim == 256
    assert load_backbone("./r3d-tiny").feature_dim == 24


def test_offline_the_hub_gives_one_readable_sentence(tmp_path):
    code = (
        "from scalefast.backbones import load_backbone\n"
        "from scalefast.errors import InputError\n"
        "try: load_backbone('videomae-b')\n"
        "except InputError as error: print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (
        "cannot get backbone 'MCG-NJU/videomae-base' from the Hugging Face hub: the hub cannot be reached"
        in done.stdout
    )
    assert "run `hf download MCG-NJU/videomae-base`, then pass the path of the folder" in done.stdout


@pytest.mark.parametrize(
    ("given", "asked", "revision"),
    [
        ("some/net", "some/net", None),
        ("some/net@v1.0", "some/net", "v1.0"),
        ("videomae-b", "MCG-NJU/videomae-base", None),
    ],
)
def test_hub_ids_and_names_resolve_to_the_snapshot(originals, monkeypatch, tmp_path, given, asked, revision):
    import huggingface_hub

    commit = tmp_path / "0123abcd"
    commit.symlink_to(originals("VideoMAEModel")[0])
    calls = []

    def download(name, *, revision, allow_patterns):
        calls.append((name, revision))
        assert not [pattern for pattern in allow_patterns if pattern.endswith((".bin", ".py", "*"))]
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    backbone = load_backbone(given)
    assert calls == [(asked, revision)] and backbone.name == asked
    assert backbone.describe()["source"] == {"kind": "hub", "id": asked, "revision": "0123abcd"}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "ask for a login and consent"),
        ("RepositoryNotFoundError", "there is no such repository"),
        ("RevisionNotFoundError", "it has no revision 'v9'"),
        ("SomethingElse", "the first line"),
    ],
)
def test_what_the_hub_refuses_is_explained(kind, message):
    error = type(kind, (Exception,), {})("the first line\nand a second")
    assert message in hub_module._explain("some/net", "v9", error)
    assert "second" not in hub_module._explain("some/net", "v9", error)


def test_the_hash_is_that_of_either_transformers_layout():
    """Transformers 4 kept the query and value biases as q_bias and v_bias beside the linear layers."""

    def attention(*, old: bool) -> nn.Module:
        attention = nn.Module()
        attention.query = nn.Linear(4, 4, bias=not old)
        with torch.no_grad():
            attention.query.weight.fill_(0.5)
        bias = nn.Parameter(torch.arange(4.0))
        if old:
            attention.q_bias = bias
        else:
            attention.query.bias = bias
        return attention

    old, new = (VideoMAEEncoder(attention(old=old), fc_norm=None).weights() for old in (True, False))
    assert sorted(old) == sorted(new) == ["model.query.bias", "model.query.weight"]
    assert all(torch.equal(old[name], new[name]) for name in new)
