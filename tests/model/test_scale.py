"""The aggregator and its task: ragged sets, padding, dropout, saving, bad input, and a toy that needs order."""

from __future__ import annotations

import json

import pytest
import torch

import scalefast
from scalefast.errors import DataError, InputError
from scalefast.kernels import RandomState
from scalefast.objective import Objective


@pytest.fixture
def model():
    torch.manual_seed(0)
    return scalefast.SCALE(12, hidden_dim=64)


def ragged(lengths, slots, dim=12):
    g = torch.Generator().manual_seed(3)
    x, p = torch.randn(len(lengths), slots, dim, generator=g), torch.rand(len(lengths), slots, 7, generator=g)
    for i, n in enumerate(lengths):
        x[i, n:], p[i, n:] = float("nan"), float("nan")  # padding may hold anything
    return x, p, torch.tensor(lengths)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "dropout"])
def test_ragged_sets_equal_the_same_sets_one_by_one(model, training):
    lengths = [5, 1, 3, 7]
    x, p, n = ragged(lengths, 7)
    rng = RandomState.create(1, step=2, rows=torch.tensor([40, 3, 17, 9]))
    model.train(training)
    out = model(x, p, n, rng=rng)
    for i, length in enumerate(lengths):
        one = model(x[i : i + 1, :length], p[i : i + 1, :length], rng=rng.with_rows(rng.rows[i : i + 1]))
        torch.testing.assert_close(out.video[i], one.video[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(out.clips[i, :length], one.clips[0], rtol=1e-5, atol=1e-6)
        assert not out.clips[i, length:].any()


def test_ragged_losses_equal_those_of_the_sets_without_padding():
    torch.manual_seed(0)
    task = (
        scalefast.SCALEPretraining(
            scalefast.SCALE(12, hidden_dim=64),
            head_dim=32,
            target_dim=32,
            objective=Objective(time_weight=0.5),
        )
        .double()
        .train()
    )
    x, p, n = ragged([3] * 10, 3)
    x, p = x.double().view(5, 2, 3, 12), p.double().view(5, 2, 3, 7)
    wide_x, wide_p = x.new_full((5, 2, 6, 12), float("nan")), p.new_full((5, 2, 6, 7), float("nan"))
    wide_x[:, :, :3], wide_p[:, :, :3] = x, p
    rng = RandomState.create(0, step=5, rows=torch.arange(5))
    mask = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    wide_mask = torch.ones(5, 2, 6).bool()
    wide_mask[:, :, :3] = mask
    narrow = task(x, p, mask=mask, rng=rng)
    wide = task(wide_x, wide_p, mask=wide_mask, lengths=n.view(5, 2), rng=rng)
    torch.testing.assert_close(wide.mcm_loss, narrow.mcm_loss)
    torch.testing.assert_close(wide.set_loss, narrow.set_loss)
    torch.testing.assert_close(wide.time_loss, narrow.time_loss)
    grads = [torch.autograd.grad(out.loss, task.model.input_projection.weight)[0] for out in (narrow, wide)]
    torch.testing.assert_close(*grads)


def test_order_of_clips_does_not_matter_but_positions_do(model):
    model.eval()
    x, p, _ = ragged([6], 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    base, turned = model(x, p), model(x[:, order], p[:, order])
    torch.testing.assert_close(base.video, turned.video, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(base.clips[:, order], turned.clips, rtol=1e-5, atol=1e-6)
    assert (model(x, p.flip(1)).video - base.video).abs().max() > 1e-3


def test_dropout_is_a_function_of_the_state(model):
    model.train()
    x, p, _ = ragged([4, 4], 4)
    rng = RandomState.create(0, step=1, rows=torch.arange(2))
    one, two = model(x, p, rng=rng), model(x, p, rng=rng)
    assert torch.equal(one.video, two.video)
    other = model(x, p, rng=RandomState.create(0, step=2, rows=torch.arange(2)))
    assert not torch.equal(one.video, other.video)
    torch.manual_seed(5)
    free = model(x, p).video
    torch.manual_seed(5)
    assert torch.equal(free, model(x, p).video)
    assert not torch.equal(free, model(x, p).video)
    model.eval()
    assert torch.equal(model(x, p, rng=rng).video, model(x, p).video)


def test_save_and_load_are_exact_and_strict(model, tmp_path):
    model.save_pretrained(tmp_path / "a")
    again = scalefast.SCALE.from_pretrained(tmp_path / "a")
    assert not again.training and again.config() == model.config()
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["architecture"] == "SCALE"

    def with_config(**changes):
        (tmp_path / "a" / "config.json").write_text(json.dumps({**config, **changes}))
        return scalefast.SCALE.from_pretrained(tmp_path / "a")

    with pytest.raises(DataError, match=r"unknown fields \['hidden'\]"):
        with_config(hidden=3)
    with pytest.raises(DataError, match=r"cls_token is \(64,\), expected \(32,\)"):
        with_config(hidden_dim=32, num_heads=1)
    with pytest.raises(DataError, match="'architecture' is 'BERT'"):
        with_config(architecture="BERT")
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(DataError, match="not readable JSON"):
        scalefast.SCALE.from_pretrained(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    weights = (tmp_path / "a" / "model.safetensors").read_bytes()
    (tmp_path / "a" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DataError, match="not a readable safetensors file"):
        scalefast.SCALE.from_pretrained(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        scalefast.SCALE.from_pretrained(tmp_path / "a")
    with pytest.raises(InputError, match="not a folder with a saved model"):
        scalefast.SCALE.from_pretrained(tmp_path / "nowhere")


def test_a_save_that_fails_leaves_the_old_one(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        scalefast.SCALE(12, hidden_dim=32).save_pretrained(tmp_path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_bad_input_is_named(model):
    x, p, n = ragged([2, 3], 4)
    with pytest.raises(ValueError, match=r"features must be floating \[B, V, 12\]; got \(2, 4, 5\)"):
        model(x[..., :5], p)
    with pytest.raises(ValueError, match=r"positions must be \(2, 4, 7\).*got \(2, 4, 4\)"):
        model(x, p[..., :4])
    with pytest.raises(ValueError, match=r"lengths must be in \[1, 4\].*got 0 to 3"):
        model(x, p, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"lengths must be integers \[2\]"):
        model(x, p, n.float())
    with pytest.raises(ValueError, match="hidden_dim must be a multiple of 32"):
        scalefast.SCALE(12, hidden_dim=20)
    with pytest.raises(ValueError, match="feature_dim must be at least 1"):
        scalefast.SCALE(0)
    with pytest.raises(ValueError, match=r"dropout = 1\.0"):
        scalefast.SCALE(12, dropout=1.0)
    with pytest.raises(ValueError, match="temperature = 0"):
        scalefast.SCALEPretraining(model, temperature=0)
    task = scalefast.SCALEPretraining(model, head_dim=8, target_dim=8)
    with pytest.raises(ValueError, match=r"features must be \[B, 2, V, D\]"):
        task(x, p)
    with pytest.raises(ValueError, match=r"mask must be bool \(1, 2, 4\)"):
        task(x[None], p[None], mask=torch.zeros(1, 2, 3).bool())
    with pytest.raises(ValueError, match="one row for each of 1 videos; got 3"):
        task(x[None], p[None], rng=RandomState.create(0, rows=torch.arange(3)))


def test_training_learns_what_only_order_tells():
    """Sets whose clips are A-then-B or B-then-A: CLS must separate them, the mean of the features cannot."""
    g = torch.Generator().manual_seed(0)
    kinds = torch.randn(2, 12, generator=g)
    order = torch.arange(128) % 2
    time = torch.rand(128, 16, generator=g)
    first = (time < 0.5).long() ^ order[:, None]
    own = 0.03 * torch.randn(
        128, 1, 12, generator=g
    )  # little of each video's own, or that is what its two sets match by
    bank = kinds[first] + own + 0.1 * torch.randn(128, 16, 12, generator=g)
    positions = torch.zeros(128, 16, 7)
    positions[..., 5], positions[..., 6] = time, time + 0.1
    torch.manual_seed(0)
    model = scalefast.SCALE(12, hidden_dim=64)
    task = scalefast.SCALEPretraining(model, head_dim=128, target_dim=64).train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    rows = torch.arange(128)
    for step in range(180):
        rng = RandomState.create(0, step=step, rows=rows)
        losses = task(*scalefast.kernels.sample_views(bank, positions, rows, views=8, rng=rng), rng=rng)
        optimizer.zero_grad()
        losses.loss.backward()
        optimizer.step()
    with torch.no_grad():
        cls = model.eval()(bank, positions).video
    cls = cls - cls.mean(0)
    apart = cls[order == 0].mean(0) - cls[order == 1].mean(0)
    right = ((cls @ apart > 0) == (order == 0)).float().mean()
    pooled = bank.mean(1) - bank.mean((0, 1))
    side = pooled[order == 0].mean(0) - pooled[order == 1].mean(0)
    by_mean = ((pooled @ side > 0) == (order == 0)).float().mean()
    assert losses.set_loss < 4.5  # log 128 = 4.85 knows nothing, log 64 = 4.16 knows the order alone
    assert right > 0.95
    assert by_mean < 0.8


def test_a_plain_tensor_of_seed_and_step_serves_as_state():
    torch.manual_seed(0)
    model = scalefast.SCALE(12, hidden_dim=64).train()
    x, p, _ = ragged([4] * 6, 4)
    rows, tensor = torch.arange(6), torch.tensor([8, 3])
    state = RandomState(tensor, rows)
    assert torch.equal(model(x, p, rng=tensor).video, model(x, p, rng=state).video)
    task = scalefast.SCALEPretraining(model, head_dim=8, target_dim=8)
    sets = x.view(3, 2, 4, 12), p.view(3, 2, 4, 7)
    assert torch.equal(task(*sets, rng=tensor).loss, task(*sets, rng=RandomState(tensor, rows[:3])).loss)
    q = x[..., None]
    attend = scalefast.kernels.set_attention
    assert torch.equal(attend(q, q, q, dropout_p=0.5, rng=tensor), attend(q, q, q, dropout_p=0.5, rng=state))
    views = [
        scalefast.kernels.sample_views(x, p, rows, views=2, rng=rng)[0]
        for rng in (tensor, state.with_rows(rows + 9))
    ]
    assert torch.equal(*views)


def test_rows_of_the_mcm_loss_come_in_few_sizes():
    """Tensors of another size in every step leave holes in memory: 30 steps of the paper's size grew by 500 MB."""
    torch.manual_seed(0)
    task = scalefast.SCALEPretraining(scalefast.SCALE(12, hidden_dim=32), head_dim=16, target_dim=16)
    seen = []
    task.prediction_head.register_forward_hook(lambda _, rows, __: seen.append(len(rows[0])))
    x, p = torch.randn(64, 2, 8, 12), torch.rand(64, 2, 8, 7)
    for step in range(12):
        losses = task(x, p, rng=torch.tensor([0, step]))
        assert not losses.overflow
    assert len(set(seen)) <= 3
    assert all(rows % 32 == 0 and 200 <= rows <= 350 for rows in seen)


def test_a_batch_without_a_masked_clip_trains_on_its_sets_alone():
    """Small batches meet one now and then: no MCM loss and no gradient of its head, but a SET loss."""
    model = scalefast.SCALE(feature_dim=8, hidden_dim=32, num_layers=1)
    task = scalefast.SCALEPretraining(model, head_dim=32, target_dim=32)
    features, positions = torch.randn(2, 2, 3, 8), torch.rand(2, 2, 3, 7)
    losses = task(features, positions, mask=torch.zeros(2, 2, 3, dtype=torch.bool))
    losses.loss.backward()
    assert losses.mcm_loss == 0 and losses.mcm_accuracy == 0 and losses.set_loss > 0
    assert all(p.grad is None or not p.grad.any() for p in task.prediction_head.parameters())
    assert any(p.grad is not None and p.grad.any() for p in task.model.parameters())
