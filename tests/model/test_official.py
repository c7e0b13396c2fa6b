"""The authors' checkpoints: exact outputs, losses and gradients, and strictness in both directions."""

from __future__ import annotations

import os

import pytest
import torch

import scalefast
from scalefast.errors import DataError, InputError
from scalefast.official import official_name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)], ids=str)
def test_outputs_losses_and_every_gradient(authors, batch, dtype, tolerance):
    features, positions, mask = batch
    state = authors.state()
    task = scalefast.load_official(state).to(dtype)
    truth = {name: t.double().requires_grad_() for name, t in state.items()}
    want = authors.losses(truth, features, positions, mask)
    got = task(features.to(dtype), positions.to(dtype), mask=mask)
    for name in ("loss", "mcm_loss", "set_loss", "mcm_accuracy", "set_accuracy"):
        torch.testing.assert_close(
            getattr(got, name).double(), getattr(want, name), rtol=tolerance, atol=tolerance
        )
    want.loss.backward()
    got.loss.backward()
    mine = dict(task.named_parameters())
    assert len(mine) == len(truth)
    for name, parameter in truth.items():
        grad = mine[official_name(name)].grad.double().reshape(parameter.shape)
        worst = (grad - parameter.grad).abs().max() / parameter.grad.abs().max()
        assert worst <= tolerance, f"{name}: {worst}"


def test_refined_clips_and_cls(authors, batch):
    features, positions, mask = (t.flatten(0, 1) for t in batch)
    state = authors.state()
    model = scalefast.load_official(state).model
    want = authors.tokens(
        {n: t.double() for n, t in state.items()}, features, positions, torch.zeros_like(mask)
    )
    out = model(features.float(), positions.float())
    torch.testing.assert_close(out.video.double(), want[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.clips.double(), want[:, 1:], rtol=1e-5, atol=1e-5)
    assert torch.equal(
        out.ensemble, torch.cat([features.float(), out.clips, out.video[:, None].expand(-1, 5, -1)], -1)
    )


def test_a_file_with_weights_under_student_and_a_ddp_prefix(authors, tmp_path):
    state = authors.state()
    path = tmp_path / "checkpoint.pth"
    torch.save({"student": {f"module.{n}": t for n, t in state.items()}, "epoch": 200}, path)
    task = scalefast.load_official(path)
    assert not task.training
    assert torch.equal(task.model.mask_token, state["msk_token"].flatten())
    assert (task.model.feature_dim, task.model.hidden_dim, task.model.num_heads) == (48, 64, 2)


def test_published_sizes():
    sizes = {768: (10.56, 1.39), 1024: (11.15, 1.45), 2048: (13.51, 1.71)}
    for dim, (training, inference) in sizes.items():
        task = scalefast.SCALEPretraining(scalefast.SCALE(dim))
        assert abs(sum(p.numel() for p in task.parameters()) / 1e6 - training) < 0.006
        assert abs(sum(p.numel() for p in task.model.parameters()) / 1e6 - inference) < 0.006


class Payload:
    def __reduce__(self):
        return os.system, ("exit 3",)


def test_bad_checkpoints_are_named(authors, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        scalefast.load_official(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(DataError, match=r"text\.pth"):
        scalefast.load_official(tmp_path / "text.pth")
    torch.save({"student": Payload()}, tmp_path / "code.pth")
    with pytest.raises(DataError, match="more than weights"):
        scalefast.load_official(tmp_path / "code.pth")
    state = authors.state()
    with pytest.raises(DataError, match=r"does not have: extra\.weight"):
        scalefast.load_official({**state, "extra.weight": torch.zeros(1)})
    less = {n: t for n, t in state.items() if n != "transformer.1.attn.proj.bias"}
    with pytest.raises(DataError, match=r"missing model\.blocks\.1\.projection\.bias"):
        scalefast.load_official(less)
    wrong = {**state, "norm.bias": torch.zeros(3)}
    with pytest.raises(DataError, match=r"model\.norm\.bias is \(3,\), expected \(64,\)"):
        scalefast.load_official(wrong)
    with pytest.raises(DataError, match="not a SCALE checkpoint"):
        scalefast.load_official({"norm.weight": torch.zeros(4)})
