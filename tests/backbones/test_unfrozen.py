"""Training the last blocks: the gradients of one pass, in chunks and with blocks computed twice."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch

from scalefast import SCALE, SCALEPretraining, kernels
from scalefast.backbones import R3D, FrozenBackbone, R3DConfig, load_backbone
from scalefast.backbones.blocks import blocks_of, checkpoint_blocks
from scalefast.backbones.slowfast import SlowFastFile, SlowFastR50
from scalefast.backbones.unfrozen import UnfrozenBackbone
from scalefast.errors import InputError

CLASSES = ("VideoMAEModel", "VideoMAEForVideoClassification", "TimesformerModel", "VJEPA2Model")


def r3d(norm: str = "batch") -> FrozenBackbone:
    model = R3D(R3DConfig(depth="10", width=0.125, num_frames=4, size=16, norm=norm))
    return FrozenBackbone(model, spec=model.spec("r3d"), dtype="fp32")


def slowfast() -> FrozenBackbone:
    small = {"width": 8, "blocks": (1, 1, 1, 1), "alpha": 2, "span": 3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SlowFastR50(**small)
    return FrozenBackbone(
        model, spec=SlowFastFile(num_frames=4, size=32, **small).spec(name="sf"), dtype="fp32"
    )


def built(class_name: str, originals) -> FrozenBackbone:
    if class_name in ("R3D", "SlowFast"):
        return r3d() if class_name == "R3D" else slowfast()
    return load_backbone(originals(class_name)[0], dtype="fp32")


def gradients(unfrozen):
    found = {name: p.grad.clone() for name, p in unfrozen.named_parameters() if p.grad is not None}
    unfrozen.zero_grad()
    return found


def assert_close(got, want, share):
    assert got.keys() == want.keys() and got
    for name, value in want.items():
        assert (got[name] - value).abs().max() <= share * value.abs().max() + 1e-9, name


@contextlib.contextmanager
def count_kept():
    """A list that receives the size of every tensor that is kept for the way back."""
    sizes = []

    def keep(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


def scale_losses(task, lead):
    """SCALE's own losses as the judge of features [B, 2, V, D]."""
    batch = lead[0]
    positions = torch.rand(*lead, 7, generator=torch.Generator().manual_seed(5))
    rng = kernels.RandomState.create(3, step=1, rows=torch.arange(batch))
    return lambda features: task(features, positions, rng=rng)


@pytest.mark.parametrize("class_name", [*CLASSES, "R3D", "SlowFast"])
def test_chunks_and_checkpoints_give_the_gradients_of_one_pass(class_name, originals, clips):
    """The whole of it: SCALE on clips of three videos, the backbone's last block with it, 1e-4 asked for."""
    lead = (3, 2, 2)
    task = SCALEPretraining(
        SCALE(feature_dim=built(class_name, originals).feature_dim, hidden_dim=32)
    ).train()
    found = []
    for chunk, checkpointing in ((None, False), (5, True)):
        backbone = built(class_name, originals)
        unfrozen = UnfrozenBackbone(backbone, last=1, checkpointing=checkpointing)
        batch = clips(backbone, 12).unflatten(0, lead)
        task.zero_grad()
        losses = unfrozen.backward(batch, scale_losses(task, lead), chunk=chunk)
        heads = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}
        found.append((losses.loss.item(), gradients(unfrozen), heads))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert_close(found[1][1], found[0][1], 1e-4)
    assert_close(found[1][2], found[0][2], 1e-4)


@pytest.mark.parametrize("last", [1, 2, None])
def test_only_the_last_blocks_train(last, clips):
    unfrozen = UnfrozenBackbone(r3d(), last=last)
    before = {name: p.detach().clone() for name, p in unfrozen.named_parameters()}
    optimizer = torch.optim.SGD(unfrozen.trained(), lr=1.0)
    unfrozen.backward(
        clips(unfrozen.backbone, 3), lambda z: dataclasses.make_dataclass("L", ["loss"])(z.pow(2).sum())
    )
    optimizer.step()
    moved = {name for name, p in unfrozen.named_parameters() if not torch.equal(p, before[name])}
    blocks = [f"backbone.encoder.stages.{stage}." for stage in range(4)]
    expected = {name for name in before if last is None or any(name.startswith(b) for b in blocks[-last:])}
    assert moved == expected


def test_blocks_before_the_trained_ones_keep_no_activations(clips):
    kept = {}
    for last in (1, None):
        unfrozen = UnfrozenBackbone(r3d(), last=last, checkpointing=False)
        with count_kept() as sizes:
            unfrozen(clips(unfrozen.backbone, 4))
        kept[last] = sum(sizes)
    assert kept[1] < 0.5 * kept[None]


def test_checkpointing_keeps_less_and_counts_statistics_once():
    kept, states = [], []
    for checkpointing in (False, True):
        model = R3D(R3DConfig(depth="10", width=0.25, num_frames=4, size=32)).train()
        undo = checkpoint_blocks(model) if checkpointing else None
        x = torch.randn(4, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
        with count_kept() as sizes:
            out = model(x)
        held = sum(sizes)
        out.pow(2).sum().backward()
        kept.append(held)
        states.append({**model.state_dict(), **{f"grad.{n}": p.grad for n, p in model.named_parameters()}})
        if undo is not None:
            undo()
            assert "forward" not in model.stages[0][0].__dict__
    assert kept[1] < 0.5 * kept[0]
    for name, value in states[0].items():
        assert torch.allclose(states[1][name].float(), value.float(), rtol=1e-5, atol=1e-7), name


def test_what_was_trained_is_a_backbone_again(originals, clips, tmp_path):
    backbone = load_backbone(originals("TimesformerModel")[0], dtype="fp32")
    unfrozen = UnfrozenBackbone(backbone, last=1)
    with torch.no_grad():
        for parameter in unfrozen.trained():
            parameter.mul_(1.5)
    unfrozen.save(tmp_path / "trained")
    again, batch = load_backbone(tmp_path / "trained", dtype="fp32"), clips(backbone, 2)
    assert torch.equal(again(batch), unfrozen(batch).detach())
    assert again.describe()["source"]["kind"] == "unfrozen"


def test_it_stays_in_eval_mode(clips):
    unfrozen = UnfrozenBackbone(r3d()).train()
    assert not any(module.training for module in unfrozen.modules())
    batch = clips(unfrozen.backbone, 2)
    assert torch.equal(unfrozen(batch), unfrozen(batch))


@pytest.mark.parametrize("last", [0, 5, "all"])
def test_blocks_that_are_not_there_are_refused(last):
    with pytest.raises(InputError, match="'r3d' has 4 blocks"):
        UnfrozenBackbone(r3d(), last=last)


def test_other_modules_and_clips_are_refused():
    with pytest.raises(InputError, match="a Linear has no blocks"):
        blocks_of(torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match="takes clips of 4 frames, got 3"):
        UnfrozenBackbone(r3d())(torch.zeros(1, 3, 16, 16, 3, dtype=torch.uint8))
