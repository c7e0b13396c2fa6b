"""Several models trained at once are the models trained alone: weights, losses, checkpoints, failures."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import scalefast.training.batched.contrast as contrasting
import scalefast.training.batched.step as stepping
import scalefast.training.batched.together as together
import scalefast.training.trainer as trainer
from scalefast import FeatureStore
from scalefast.errors import InputError
from scalefast.training import PretrainConfig, load_run, pretrain
from scalefast.training.batched import VARYING, at_once, pretrain_together, shape_of
from scalefast.training.batched.contrast import contrast
from scalefast.training.state import build_task

BASE = PretrainConfig(
    epochs=4, batch_size=12, views=4, hidden_dim=64, num_layers=2, projection_dim=8, head_dim=16, target_dim=16,
    learning_rate=3e-3, precision="fp32", log_every=1,
)  # fmt: skip
CHANGES: dict[str, dict[str, object]] = {
    "base": {},
    "decay": {"learning_rate": 1e-3, "weight_decay": 0.1, "warmup_fraction": 0.5},
    "mask": {"temperature": 0.1, "mask_ratio": 0.6, "clip_grad_norm": 0.5},
    "losses": {"mcm_weight": 0.9, "set_weight": 0.0, "koleo_weight": 0.1, "variance_weight": 0.2},
    "dropout": {"dropout": 0.3},
    "none dropped": {"dropout": 0.0},
    "seed": {"seed": 3, "mask_ratio": 0.1},
}
PAPER: dict[str, object] = {}
RECOMMENDED: dict[str, object] = {"target": "fixed", "center_sets": True, "calibrated": True}
OTHER: dict[str, object] = {
    "same_video": "exclude",
    "position_use": "time",
    "mlp_ratio": 1.5,
    "num_layers": 1,
}
TIMED: dict[str, object] = {"time_weight": 0.3, "position_use": "none", "calibrated": True}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    features = torch.randn(30, 10, 16, generator=torch.Generator().manual_seed(2))
    return FeatureStore.create(tmp_path_factory.mktemp("bank") / "store", features=features)


def both_ways(store, folder, base, changes=CHANGES):
    """Run folders of every change: at once, and alone."""
    configs = {name: base.replace(**change) for name, change in changes.items()}
    stacked = {folder / "stack" / name: config for name, config in configs.items()}
    assert pretrain_together(store, runs=stacked, device="cpu") == {}
    for name, config in configs.items():
        pretrain(store, out=folder / "alone" / name, config=config, device="cpu", progress=False)
    return [(folder / "stack" / name, folder / "alone" / name) for name in configs]


@pytest.mark.parametrize(
    ("base", "dense"),
    [(PAPER, True), (RECOMMENDED, False), (OTHER, True), (TIMED, False)],
    ids=["paper", "recommended", "other", "timed"],
)
def test_weights_are_those_of_the_run_alone(store, tmp_path, monkeypatch, base, dense):
    def doubled(*args, **options):
        return build_task(*args, **options).double()

    monkeypatch.setattr(together, "build_task", doubled)
    monkeypatch.setattr(trainer, "build_task", doubled)
    monkeypatch.setattr(contrasting, "DENSE", 1 << 20 if dense else 0)
    for mine, theirs in both_ways(store, tmp_path, BASE.replace(**base)):
        found, wanted = (load_file(folder / "pretraining.safetensors") for folder in (mine, theirs))
        assert found.keys() == wanted.keys()
        start = build_task(load_run(mine).config, feature_dim=16).state_dict()
        moved = 0
        for name, weight in wanted.items():
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-8, msg=f"{mine.name}: {name}")
            moved += not torch.allclose(weight.float(), start[name], atol=1e-4)
        assert moved > len(wanted) / 2
        for one, other in zip(load_run(mine).log(), load_run(theirs).log(), strict=True):
            assert one == pytest.approx(other, rel=1e-6)
        assert (mine / "run.json").read_bytes() == (theirs / "run.json").read_bytes()


def test_in_fp32_losses_and_vectors_agree(store, tmp_path):
    for mine, theirs in both_ways(store, tmp_path, BASE):
        for one, other in zip(load_run(mine).log(), load_run(theirs).log(), strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
        with torch.no_grad():
            found, wanted = (
                load_run(folder).model()(store.features[:].float(), store.positions[:]).video
                for folder in (mine, theirs)
            )
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_bf16_is_bf16_of_the_run_alone(store, tmp_path):
    (pair,) = both_ways(store, tmp_path, BASE.replace(precision="bf16"), {"one": {}})
    for one, other in zip(*(load_run(folder).log() for folder in pair), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.01)


def test_a_run_goes_on_alone_or_in_a_stack(store, tmp_path):
    """Checkpoints are the same files whoever writes them."""
    whole = BASE.replace(checkpoint_every=1)

    def stopped(*args, **options):
        if options["step"] == 3:
            raise KeyboardInterrupt
        return save(*args, **options)

    runs = {tmp_path / name: whole.replace(**CHANGES[name]) for name in ("base", "seed")}
    save = together.Session.save
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(together.Session, "save", lambda self, step: stopped(self, step=step))
        pretrain_together(store, runs=runs, device="cpu")
    pretrain(store, out=tmp_path / "base", resume=True, device="cpu", progress=False)
    assert pretrain_together(store, runs=runs, resume=True, device="cpu") == {}
    for folder, config in runs.items():
        alone = pretrain(store, out=f"{folder} alone", config=config, device="cpu", progress=False)
        assert load_run(folder).finished
        for one, other in zip(load_run(folder).log(), load_run(alone.folder).log(), strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_one_that_diverges_disturbs_no_other(store, tmp_path):
    wild = BASE.replace(mcm_weight=1e38)
    runs = {tmp_path / "wild": wild, tmp_path / "calm": BASE}
    failed = pretrain_together(store, runs=runs, device="cpu")
    assert list(failed) == [tmp_path / "wild"]
    assert "not finite at step 1" in str(failed[tmp_path / "wild"])
    assert not load_run(tmp_path / "wild").finished
    pretrain(store, out=tmp_path / "alone", config=BASE, device="cpu", progress=False)
    assert load_run(tmp_path / "calm").log()[-1]["loss"] == pytest.approx(
        load_run(tmp_path / "alone").log()[-1]["loss"], rel=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3),
    st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_the_loss_of_several_is_that_of_each(models, rows, videos, span, exclude, seed):
    generator = torch.Generator().manual_seed(seed)

    def unit(count):
        made = torch.randn(models, count, 5, dtype=torch.float64, generator=generator)
        return torch.nn.functional.normalize(made, dim=-1)

    keys = videos * span
    positives = torch.randint(-1, keys, (models, rows), generator=generator)
    options = {"temperatures": [0.1 + 0.2 * i for i in range(models)], "span": span if exclude else None}
    weights = torch.rand(models, rows, dtype=torch.float64, generator=generator)
    sides = [unit(count).requires_grad_() for count in (rows, keys)]
    found = []
    for limit in (1 << 20, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(contrasting, "DENSE", limit)
            out = contrast(*sides, positives, **options)
        grads = torch.autograd.grad((out.rows * weights).sum(), sides)
        found.append((*out, *out.means(), *grads))
    for dense, by_op in zip(*found, strict=True):
        torch.testing.assert_close(dense, by_op)


def test_a_captured_stack_is_the_eager_one(store, tmp_path, monkeypatch):
    """A capture as CUDA's, on a CPU: its own steps leave no trace. Whether CUDA captures them shows in tests/gpu."""
    counts = {"replays": 0}

    def capture(compute):
        for _ in range(3):
            compute()

        def replay():
            counts["replays"] += 1
            return compute()

        return replay

    def refuse(compute):
        compute()
        raise RuntimeError("operation not permitted\nat some line")

    def left(name):
        runs = {tmp_path / name / one: BASE.replace(**CHANGES[one]) for one in ("base", "seed", "mask")}
        said = []
        assert pretrain_together(store, runs=runs, device="cpu", say=said.append) == {}
        logs = [line for folder in runs for line in load_run(folder).log()]
        return [(folder / "pretraining.safetensors").read_bytes() for folder in runs], logs, said

    _, eager, _ = left("eager")
    monkeypatch.setattr(stepping, "captures", lambda **_: (True, ""))
    monkeypatch.setattr(stepping, "capture_graph", refuse)
    refused, logs, said = left("refused")
    assert said == ["steps are not captured in a CUDA graph: operation not permitted"]
    monkeypatch.setattr(stepping, "capture_graph", capture)
    assert left("captured") == (refused, logs, []) and counts["replays"] == 8
    for one, other in zip(logs, eager, strict=True):  # learning rates are of the device then, in fp32
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)


def test_what_cannot_be_trained_at_once_is_refused(store, tmp_path):
    for changes in ({"num_layers": 1}, {"center_sets": True}, {"epochs": 5}):
        assert shape_of(BASE) != shape_of(BASE.replace(**changes))
        runs = {tmp_path / "a": BASE, tmp_path / "b": BASE.replace(**changes)}
        with pytest.raises(InputError, match="may differ in what decides no shape alone"):
            pretrain_together(store, runs=runs, device="cpu")
    with pytest.raises(InputError, match="target is not 'ema'"):
        pretrain_together(store, runs={tmp_path / "a": BASE.replace(target="ema")}, device="cpu")
    assert not list(tmp_path.iterdir())


def test_as_many_as_memory_holds():
    assert set(VARYING) < set(BASE.to_dict())
    some = [BASE, BASE.replace(mask_ratio=0.5)]
    counts = [at_once(some, feature_dim=16, videos=30, free=free) for free in (0.0, 3e7, 1e9)]
    assert counts[0] == 1 < counts[1] < counts[2]
    assert at_once([PretrainConfig()], feature_dim=768, videos=240_000, free=80e9) in range(8, 64)
