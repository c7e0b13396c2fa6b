"""SCALE and its backbone trained together: what a run leaves, that both learn, that it goes on to the bit."""

from __future__ import annotations

import shutil

import pytest
import torch

from scalefast import SCALE
from scalefast.backbones import R3D, FrozenBackbone, R3DConfig, load_backbone, save_r3d
from scalefast.cli import main
from scalefast.cvrl import pretrain_end_to_end
from scalefast.errors import InputError
from scalefast.training import PretrainConfig, load_run
from scalefast.training.logs import read_log
from scalefast.video import train_recipe


def backbone(seed: int = 0) -> FrozenBackbone:
    model = R3D(R3DConfig(depth="tiny", width=0.125, num_frames=4, stride=2, size=16, seed=seed))
    return FrozenBackbone(model, spec=model.spec("own"), dtype="fp32")


CONFIG = PretrainConfig(
    epochs=3, batch_size=4, views=2, hidden_dim=32, num_layers=1, projection_dim=8, head_dim=16, target_dim=16,
    learning_rate=3e-3, precision="fp32", clip_grad_norm=5.0, log_every=2, checkpoint_every=2,
)  # fmt: skip


def train(videos, out, **options):
    options = {"config": CONFIG, "last": 1, "chunk_clips": 3, "workers": 1, "progress": False, **options}
    return pretrain_end_to_end(videos, options.pop("backbone", None) or backbone(), out=out, **options)


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory):
    return train(videos, tmp_path_factory.mktemp("end") / "run", workers=2)


def test_what_a_run_leaves(whole):
    model = SCALE.from_pretrained(whole.folder)
    trained, before = load_backbone(whole.folder / "backbone"), backbone()
    assert trained.describe()["source"]["kind"] == "end to end"
    moved = {
        name.split(".")[1]
        for name, value in before.encoder.named_parameters()
        if not torch.equal(value, dict(trained.encoder.named_parameters())[name])
    }
    assert moved == {"1"}  # the last stage; the stem and the first stage stayed as they were
    assert model.hidden_dim == 32 and load_run(whole.folder).config == CONFIG
    log = read_log(whole.folder / "log.jsonl")
    assert [line["step"] for line in log] == [2, 4, 6] and {"mcm_loss", "set_accuracy"} <= set(log[0])


def test_chunks_change_rounding_alone(whole, videos, tmp_path):
    other = train(videos, tmp_path / "run", chunk_clips=None)
    for one, two in zip(*(read_log(run.folder / "log.jsonl") for run in (whole, other)), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)


def test_resumed_it_is_identical_to_the_bit(whole, videos, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole.folder, run)
    shutil.rmtree(run / "backbone")
    for name in ("model.safetensors", "config.json", "checkpoints/step-00000006.safetensors"):
        (run / name).unlink()
    assert train(videos, run, resume=True).resumed_from == 4
    for name in (
        "model.safetensors",
        "backbone/model.safetensors",
        "log.jsonl",
        "checkpoints/step-00000006.safetensors",
    ):
        assert (run / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_what_differs_is_not_resumed(whole, videos):
    for options, message in (
        ({"last": 2}, "store.last was 1 and is now 2"),
        ({"backbone": backbone(seed=1)}, "store.backbone was"),
        ({"config": CONFIG.replace(epochs=4)}, "config.epochs was 3 and is now 4"),
    ):
        with pytest.raises(InputError, match=message):
            train(videos, whole.folder, resume=True, **options)


def test_a_recipe_that_does_not_fit_is_refused(videos, tmp_path):
    recipe = train_recipe(num_frames=4, stride=2, size=16, clips=3)
    with pytest.raises(InputError, match="gives 3 clips of 4 frames of 16 pixels"):
        train(videos, tmp_path / "run", recipe=recipe)
    with pytest.raises(InputError, match="has 2 blocks"):
        train(videos, tmp_path / "run", last=3)
    assert not (tmp_path / "run").exists()


def test_the_command_line_trains_evaluates_and_extracts(videos, tmp_path, capsys):
    start, run = tmp_path / "start", tmp_path / "run"
    save_r3d(backbone().encoder, start)
    small = [
        "--hidden-dim", "32", "--num-layers", "1", "--projection-dim", "8", "--head-dim", "16", "--target-dim", "16",
        "--views", "2",
    ]  # fmt: skip
    words = [
        videos.source,
        "--out",
        str(run),
        "--backbone",
        str(start),
        "--workers",
        "1",
        "--device",
        "cpu",
        *small,
    ]
    assert main(["pretrain", *words, "--epochs", "1", "--batch-size", "4", "--unfreeze-last", "1"]) == 0
    out = capsys.readouterr().out
    assert f"{run}: 2 steps" in out and f"--backbone {run}/backbone --out STORE" in out
    own = [
        "--backbone",
        str(run / "backbone"),
        "--out",
        str(tmp_path / "store"),
        "--clips",
        "4",
        "--workers",
        "1",
    ]
    assert main(["extract", videos.source, *own, "--device", "cpu", "--quiet"]) == 0
    assert main(["embed", str(run), str(tmp_path / "store"), "--out", str(tmp_path / "vectors.npz")]) == 0
    assert (
        main(["pretrain", *words, "--unfreeze-last", "1", "--keep", str(tmp_path / "kept"), "--overwrite"])
        == 2
    )
    assert "--keep stores the features of a frozen backbone" in capsys.readouterr().err
