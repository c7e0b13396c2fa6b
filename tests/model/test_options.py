"""Every departure from the paper against a plain formula, and that none of them is on by default."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch.nn import functional as F

from scalefast import SCALE, SCALEPretraining
from scalefast.objective import Objective, koleo, variance_covariance
from scalefast.time_moments import RIDGE
from scalefast.training import PretrainConfig
from scalefast.training.recipes import RECIPES

SIZES = {"projection_dim": 8, "head_dim": 24, "target_dim": 16}


def build(*, objective: Objective | None = None, **options):
    torch.manual_seed(3)
    model = SCALE(48, hidden_dim=32, num_layers=1, dropout=0.0, **options)
    return SCALEPretraining(model, **SIZES, objective=objective).double()


def plain_mcm(task, batch, *, targets=None, same_video="negative"):
    """Dense logits of every clip against every clip."""
    x, p, mask = (part.flatten(0, 1) for part in batch)
    tokens = task.model.tokens(x, p, mask=mask)[:, 1:].flatten(0, 1)
    queries = F.normalize(task.prediction_head(tokens), dim=1)
    if targets is None:
        targets = task.target_head(task.model.inputs(x)).flatten(0, 1)
    logits = queries @ F.normalize(targets, dim=1).T / task.temperature
    videos = torch.arange(len(batch[0])).repeat_interleave(2 * x.shape[1])
    if same_video == "exclude":
        others = (videos[:, None] == videos) & ~torch.eye(len(videos), dtype=torch.bool)
        logits = logits.masked_fill(others, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(logits)), reduction="none")[mask.flatten()].mean()


def plain_time(task, batch):
    """The least-squares fits set by set, and a whole matrix of logits: loss and accuracy."""
    x, p, mask = (part.flatten(0, 1) for part in batch)
    courses = []
    for clips, place in zip(task.model.tokens(x, p, mask=mask)[:, 1:], p, strict=True):
        begin, end = place[:, 5], place[:, 6]
        middle = ((begin + end) / 2 - begin.min()) / (end.max() - begin.min())
        waves = torch.stack([torch.cos(math.pi * k * middle) for k in (1, 2, 3)], 1)
        waves, clips = waves - waves.mean(0), clips - clips.mean(0)
        spread = waves.T @ waves / len(clips) + RIDGE * torch.eye(3)
        courses.append(torch.linalg.solve(spread, waves.T @ clips / len(clips)).flatten())
    found = F.normalize(task.time_head(torch.stack(courses)), dim=1)
    across = found[::2] @ found[1::2].T / task.temperature
    own = torch.arange(len(across))
    loss = (F.cross_entropy(across, own) + F.cross_entropy(across.T, own)) / 2
    return loss, torch.cat([across.argmax(0) == own, across.argmax(1) == own]).double().mean()


def in_order(batch):
    """The batch with clips that begin before they end."""
    x, p, mask = batch
    return x, torch.cat([p[..., :5], p[..., 5:].sort(-1).values], -1), mask


def test_defaults_are_the_papers(batch):
    assert PretrainConfig().objective == Objective() == RECIPES["paper"]().objective
    assert RECIPES["paper"]() == RECIPES["k400"]() == PretrainConfig()
    plain, given = build(), build(objective=Objective())
    assert torch.equal(plain(*batch).loss, given(*batch).loss)
    losses = plain(*batch)
    assert torch.equal(losses.loss, (losses.set_loss + losses.mcm_loss) / 2)
    assert losses.time_loss == losses.time_accuracy == 0 and not hasattr(plain, "time_head")
    assert not list(SCALE(48, hidden_dim=32).buffers())


@pytest.mark.parametrize(("mcm", "between"), [(1.0, 0.0), (0.0, 1.0), (0.3, 1.7)])
def test_weights_of_the_losses(batch, mcm, between):
    losses = build(objective=Objective(mcm_weight=mcm, set_weight=between))(*batch)
    torch.testing.assert_close(losses.loss, mcm * losses.mcm_loss + between * losses.set_loss)


def test_sets_are_matched_by_their_course_over_time(batch):
    batch = in_order(batch)
    task = build(objective=Objective(mcm_weight=0.3, set_weight=0.2, time_weight=0.7))
    losses = task(*batch)
    loss, accuracy = plain_time(task, batch)
    torch.testing.assert_close(losses.time_loss, loss)
    torch.testing.assert_close(losses.time_accuracy, accuracy)
    torch.testing.assert_close(losses.loss, 0.3 * losses.mcm_loss + 0.2 * losses.set_loss + 0.7 * loss)
    names, weights = zip(*task.named_parameters(), strict=True)
    for which in (losses.time_loss, losses.loss):
        plain = (
            loss if which is losses.time_loss else 0.3 * losses.mcm_loss + 0.2 * losses.set_loss + 0.7 * loss
        )
        found, wanted = (
            torch.autograd.grad(one, weights, retain_graph=True, allow_unused=True, materialize_grads=True)
            for one in (which, plain)
        )
        for name, a, b in zip(names, found, wanted, strict=True):
            torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")
    assert set(map(id, task.trained_parameters())) == set(map(id, weights))
    # The other losses, and the weights that a seed gives the other parts, are those without it.
    without = build(objective=Objective())(*batch)
    assert torch.equal(without.mcm_loss, losses.mcm_loss) and torch.equal(without.set_loss, losses.set_loss)


def test_what_goes_on_cannot_match_courses_without_when(batch):
    """Clips that lie at one time, or sets of one clip, have no course: all candidates are then equally good."""
    x, p, mask = in_order(batch)
    task = build(objective=Objective(time_weight=1.0))
    at_once = p.clone()
    at_once[..., 5:] = p[..., :1, 5:]
    for features, places, hidden in ((x, at_once, mask), (x[:, :, :1], p[:, :, :1], mask[:, :, :1])):
        losses = task(features, places, hidden)
        torch.testing.assert_close(losses.time_loss, torch.tensor(math.log(len(x)), dtype=torch.float64))
        gradients = torch.autograd.grad(losses.loss, task.trained_parameters())
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("same_video", ["negative", "exclude"])
def test_clips_of_the_same_video(batch, same_video):
    task = build(objective=Objective(same_video=same_video))
    torch.testing.assert_close(task(*batch).mcm_loss, plain_mcm(task, batch, same_video=same_video))


def test_excluded_clips_follow_from_the_video_whatever_its_row(batch):
    task = build(objective=Objective(same_video="exclude"))
    from scalefast.kernels import RandomState

    rng = RandomState.create(0, rows=torch.tensor([70, 3, 12, 11, 10, 999]))
    torch.testing.assert_close(task(*batch, rng=rng).mcm_loss, plain_mcm(task, batch, same_video="exclude"))


def test_a_fixed_target_is_the_same_loss_without_a_gradient(batch):
    free, fixed = build(), build(objective=Objective(target="fixed"))
    assert torch.equal(free(*batch).loss, fixed(*batch).loss)
    fixed(*batch).loss.backward()
    assert all(p.grad is None for p in fixed.target_head.parameters())
    assert fixed.prediction_head[0].weight.grad.abs().sum() > 0


def test_a_moving_target_is_the_average_of_the_model(batch):
    task = build(objective=Objective(target="ema", target_momentum=0.75), center_sets=True)
    before = copy.deepcopy(task.moving.state_dict())
    with torch.no_grad():
        task.model.norm.weight.add_(1.0)
        task.prediction_head[0].weight.mul_(2.0)
    task.train()
    loss = task(*batch)
    now = {
        **dict(task.model.named_parameters(prefix="0")),
        **dict(task.prediction_head.named_parameters(prefix="1")),
    }
    for name, value in task.moving.named_parameters():
        torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * now[name])
        assert not value.requires_grad
    model, head = task.moving
    assert not model.training
    x, p = (part.flatten(0, 1) for part in batch[:2])
    targets = head(model(x, p).clips).flatten(0, 1)
    torch.testing.assert_close(loss.mcm_loss, plain_mcm(task, batch, targets=targets))
    after = copy.deepcopy(task.moving.state_dict())
    task.eval()(*batch)
    assert all(torch.equal(value, after[name]) for name, value in task.moving.state_dict().items())


def test_regularisers_against_loops(batch):
    rows = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    covariance = torch.cov(rows.T)
    off = sum(covariance[i, j] ** 2 for i in range(5) for j in range(5) if i != j) / 5 / 25
    hinge = sum(max(0.0, 1 - (covariance[i, i] + 1e-4).sqrt()) for i in range(5)) / 5
    torch.testing.assert_close(variance_covariance(rows), hinge + off)
    unit = F.normalize(rows, dim=1)
    nearest = [min((unit[i] - unit[j]).norm() for j in range(7) if j != i) for i in range(7)]
    torch.testing.assert_close(koleo(rows), -torch.stack(nearest).log().mean())
    several = torch.stack([rows, rows.flip(1) * 2, rows.roll(3, 0) - 1])  # of several models at once
    for loss in (variance_covariance, koleo):
        torch.testing.assert_close(loss(several), torch.stack([loss(one) for one in several]))
    task = build(objective=Objective(variance_weight=0.5, koleo_weight=2.0))
    losses = task(*batch)
    cls = task.model.tokens(*(part.flatten(0, 1) for part in batch[:2]), mask=batch[2].flatten(0, 1))[:, 0]
    extra = 0.5 * variance_covariance(cls) + 2.0 * koleo(cls[::2])
    torch.testing.assert_close(losses.loss, (losses.mcm_loss + losses.set_loss) / 2 + extra.double())


def test_a_centred_model_is_the_plain_one_on_centred_clips(batch):
    plain, centred = build().eval().model, build(center_sets=True).eval().model
    x, p = batch[0].flatten(0, 1), batch[1].flatten(0, 1)
    torch.testing.assert_close(centred(x, p).video, plain(x - x.mean(1, keepdim=True), p).video)
    shift = torch.randn(len(x), 1, 48, dtype=torch.float64)
    torch.testing.assert_close(centred(x + shift, p).video, centred(x, p).video)
    lengths = torch.tensor([3, 5] * 6)
    padded = x.masked_fill((torch.arange(5) >= lengths[:, None])[..., None], float("nan"))
    alone = centred(x[:1, :3], p[:1, :3]).video
    torch.testing.assert_close(centred(padded, p, lengths=lengths).video[:1], alone)


@pytest.mark.parametrize(("seen", "changed"), [("all", []), ("time", [0, 1, 2, 3, 4]), ("none", range(7))])
def test_positions_that_are_not_seen_change_nothing(batch, seen, changed):
    model = build(position_use=seen).eval().model
    x, p = batch[0].flatten(0, 1), batch[1].flatten(0, 1)
    for column in range(7):
        other = p.clone()
        other[..., column] = torch.rand(p.shape[:2], dtype=p.dtype)
        assert torch.equal(model(x, other).video, model(x, p).video) == (column in changed)


def test_options_survive_saving_and_older_files_load(tmp_path):
    model = SCALE(48, hidden_dim=32, center_sets=True, position_use="time", calibrated=True)
    model.input_scale.fill_(3.0)
    again = SCALE.from_pretrained(model.save_pretrained(tmp_path / "new"))
    assert again.config() == model.config() and float(again.input_scale) == 3.0
    folder = SCALE(48, hidden_dim=32).save_pretrained(tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    for name in SCALE.added_fields:
        del config[name]
    (folder / "config.json").write_text(json.dumps(config))
    assert not SCALE.from_pretrained(folder).center_sets


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "stop"}, "target must be one of 'trained', 'fixed', 'ema'; got 'stop'"),
        ({"same_video": "no"}, "same_video must be one of"),
        ({"time_weight": math.inf}, "time_weight must be a number >= 0"),
        ({"koleo_weight": -1.0}, "koleo_weight must be a number >= 0"),
        ({"target_momentum": 1.0}, "target_momentum"),
        ({"mcm_weight": 0.0, "set_weight": 0.0}, "nothing is left to learn from"),
    ],
)
def test_bad_values_are_refused(options, message):
    for make in (Objective, PretrainConfig):
        with pytest.raises(
            ValueError, match=message.split(";")[0] if make is Objective else next(iter(options))
        ):
            make(**options)
