"""The list of backbones: sizes as published, arithmetic as counted by hand, speed as measured."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from scalefast.backbones import REGISTRY, NamedBackbone, R3DConfig, load_backbone
from scalefast.backbones import catalog as catalog_module
from scalefast.backbones.catalog import catalog, clips_per_second, count, random_backbone
from scalefast.backbones.r3d import R3D
from scalefast.backbones.slowfast import SlowFastFile
from scalefast.cli import main
from scalefast.errors import InputError

COUNTED = (
    "r3d-tiny",
    "r3d-18",
    "videomae-b",
    "timesformer-b-k400",
    "rhobyol-slow-r50",
)  # the rest takes long


@pytest.fixture(scope="module")
def entries():
    pytest.importorskip("transformers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog_module, "REGISTRY", {name: REGISTRY[name] for name in COUNTED})
        return {entry.name: entry for entry in catalog()}


@pytest.fixture
def short(monkeypatch):
    """A list that is counted at once."""
    monkeypatch.setattr(catalog_module, "REGISTRY", {name: REGISTRY[name] for name in ("r3d-tiny", "svt-b")})


def test_every_name_is_listed_with_its_input(entries):
    assert list(entries) == list(COUNTED)
    for entry in entries.values():
        assert entry.parameters and entry.flops and entry.source
        assert bool(entry.licence) == bool(entry.licence_stated) == ("computed" not in entry.source)


def test_every_network_of_others_states_a_licence():
    assert [
        name for name, entry in REGISTRY.items() if (entry.licence is None) != (entry.r3d is not None)
    ] == []


# parameters and multiply-adds as their authors state them, in millions and in 1e9
@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("videomae-b", 86.2, 180),
        ("rhobyol-slow-r50", 31.6, 83.0),
        ("r3d-18", 33.2, 40.7),
    ],
)
def test_sizes_are_the_published_ones(entries, name, parameters, multiply_adds):
    assert entries[name].parameters / 1e6 == pytest.approx(parameters, rel=0.01)
    assert entries[name].flops / 2e9 == pytest.approx(multiply_adds, rel=0.02)


def test_the_listed_input_is_the_loaded_ones(entries):
    backbone = load_backbone("r3d-tiny")
    assert entries["r3d-tiny"].spec == backbone.spec
    assert entries["r3d-tiny"].parameters == sum(p.numel() for p in backbone.encoder.parameters())


def test_arithmetic_is_counted_by_hand():
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(3, 4, 1)
            self.linear = nn.Linear(4, 5, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.conv(x).mean((2, 3, 4)))

    spec = R3D(R3DConfig(depth="tiny", size=16, num_frames=2)).spec("x")
    assert count(Layers(), spec) == (3 * 4 + 4 + 20, 2 * (2 * 16 * 16 * 3 * 4) + 2 * 4 * 5)


def test_speed_is_clips_over_time(monkeypatch):
    backbone = load_backbone("r3d-tiny", dtype="fp32")
    calls = []
    monkeypatch.setattr(
        type(backbone), "forward", lambda self, clips: calls.append(len(clips)) or torch.zeros(1)
    )
    ticks = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    # one batch to warm up; then the clock is read before each round and after the last
    assert clips_per_second(backbone, batch=4, seconds=2.5) == pytest.approx(
        sum(calls[1:]) / (len(calls) + 1), rel=0.4
    )
    with pytest.raises(InputError, match="batch must be at least 1"):
        clips_per_second(backbone, batch=0)


def test_any_name_can_be_timed_without_its_weights(monkeypatch):
    form = SlowFastFile(width=8, blocks=(1, 1, 1, 1), num_frames=8, size=32)
    monkeypatch.setitem(REGISTRY, "small", NamedBackbone(summary="", checkpoint=form))
    timed = random_backbone("small", dtype="fp32", num_frames=12)
    assert timed.num_frames == 12 and clips_per_second(timed, batch=1, seconds=0.0) > 0
    assert timed.weights_hash == random_backbone("small").weights_hash
    features = timed(torch.randint(0, 256, (2, 12, 32, 32, 3), dtype=torch.uint8))
    assert features.isfinite().all() and features.std() > 0
    with pytest.raises(InputError, match="no backbone is named 'big'; known: r3d-tiny"):
        random_backbone("big")


def test_the_command_line_lists_measures_and_writes(short, tmp_path, capsys):
    words = [
        "--measure",
        "r3d-tiny",
        "--batch",
        "2",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--dataset",
        "ssv2",
    ]
    assert main(["backbones", *words, "--json", str(tmp_path / "list.json")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == [
        "name",
        "D",
        "parameters",
        "GFLOPs/clip",
        "clip",
        "stride",
        "licence",
        "loads",
        "from",
    ]
    assert "r3d-tiny: " in out and "clips/s (cpu, fp32, batches of 2)" in out
    assert "\nMIT of svt-b: LICENSE of github.com/kahnchana/svt" in out
    assert "svt-b on Something-Something v2: 8 frames of stride 16 at 30 fps" in out
    told = json.loads((tmp_path / "list.json").read_text())
    assert [each["name"] for each in told["backbones"]] == ["r3d-tiny", "svt-b"]
    assert told["clips_per_second"]["r3d-tiny"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "imagenet"], "no data set is named 'imagenet'; known: kinetics400"),
        (["--measure", "no-such"], "no backbone, folder or hub id is named 'no-such'"),
        (["--measure", "r3d-tiny", "--precision", "int8"], "dtype must be one of"),
    ],
)
def test_bad_words_are_one_line(short, words, message, capsys):
    assert main(["backbones", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
