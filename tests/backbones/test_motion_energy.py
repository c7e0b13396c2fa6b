"""The motion-energy stem: which channel answers to which motion, and what a linear classifier reads of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scalefast.backbones import load_backbone
from scalefast.backbones.motion_energy import MotionEnergyStem

FRAMES, SIZE = 16, 64
MOTIONS = ("left", "right", "up", "down", "clockwise", "counter-clockwise", "grow", "shrink")


@pytest.fixture(scope="module")
def stem() -> MotionEnergyStem:
    return MotionEnergyStem().requires_grad_(False)


def grating(
    degrees: float, *, speed: float = 1.0, wavelength: float = 6.0, contrast: float = 1.0
) -> torch.Tensor:
    """Normalised pixels [1, 3, T, H, W] of a grey grating that drifts in a direction (0 right, 90 down)."""
    t, y, x = torch.meshgrid(torch.arange(FRAMES), torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    angle = math.radians(degrees)
    along = math.cos(angle) * x + math.sin(angle) * y - speed * t
    return (contrast * torch.sin(2 * math.pi * along / wavelength)).expand(1, 3, -1, -1, -1)


def energies(stem: MotionEnergyStem, pixels: torch.Tensor) -> torch.Tensor:
    """Mean energies [scale, period, orientation, (forth, back)]."""
    means = stem(pixels).mean((0, 2, 3, 4)).reshape(2, 32)[:, :16]
    return means.reshape(2, 2, 4, 2)


@pytest.mark.parametrize("step", range(8))
def test_the_channel_of_the_direction_answers_most(stem, step):
    found = energies(stem, grating(45.0 * step))[0].sum(0)  # 4 orientations x (forth, back)
    best = divmod(int(found.argmax()), 2)
    assert best == (step % 4, step // 4)
    orientation, direction = best
    assert found[orientation, direction] > 5 * found[orientation, 1 - direction]


def test_speed_and_scale_choose_the_channel(stem):
    slow, fast = (energies(stem, grating(0.0, speed=s))[0, :, 0, 0] for s in (0.75, 1.5))
    assert slow[1] > slow[0] and fast[0] > fast[1]  # periods of 4 and 8 frames at 6 pixels
    # normalisation hides which scale saw a strong pattern; of a weak one, each sees its own wavelength
    for wavelength, other in ((6.0, 1), (12.0, 0)):
        weak = energies(stem, grating(0.0, speed=wavelength / 6, wavelength=wavelength, contrast=0.1))
        seen = weak[:, :, 0, 0].sum(1)
        assert seen[1 - other] > 2 * seen[other]


def test_what_stands_still_gives_nothing(stem):
    still = grating(30.0, speed=0.0)
    assert stem(still).abs().max() < 1e-6
    assert stem(torch.full((1, 3, FRAMES, SIZE, SIZE), 2.0)).abs().max() < 1e-6


def test_contrast_and_polarity_cancel(stem):
    full, half, negative = (energies(stem, grating(90.0, contrast=c)) for c in (2.0, 1.0, -2.0))
    torch.testing.assert_close(full, negative, rtol=1e-4, atol=1e-4)
    assert full[0, :, 2, 0].sum() == pytest.approx(
        half[0, :, 2, 0].sum().item(), rel=0.1
    )  # the energy is 4-fold


def test_equally_bright_colours_are_seen(stem):
    red, green = torch.tensor([1.0, -0.299 / 0.587, 0.0]), torch.tensor([0.0, 0.0, 0.0])
    wave = grating(0.0)[:, :1]
    pixels = wave * red.view(1, 3, 1, 1, 1) + green.view(1, 3, 1, 1, 1)
    luminance = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1, 1)).sum(1)
    assert luminance.abs().max() < 1e-6
    found = energies(stem, pixels)[0].sum(0)
    assert divmod(int(found.argmax()), 2) == (0, 0) and found[0, 0] > 1


def test_a_clip_run_backwards_swaps_the_directions(stem):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, FRAMES, SIZE, SIZE, generator=generator)
    forth, back = energies(stem, pixels), energies(stem, pixels.flip(2))
    torch.testing.assert_close(forth, back.flip(-1), rtol=1e-4, atol=1e-5)


def rendered(motion: str, rng: np.random.Generator) -> np.ndarray:
    """uint8 [T, H, W, 3]: a textured ellipse of random colours, size and place moves on a background."""
    t = (np.arange(FRAMES, dtype=np.float32) - FRAMES / 2)[:, None, None]
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    speed, turn, growth = rng.uniform(0.6, 1.6), rng.uniform(0.06, 0.16), rng.uniform(0.03, 0.06)
    dx = speed * t * {"left": -1, "right": 1}.get(motion, 0)
    dy = speed * t * {"up": -1, "down": 1}.get(motion, 0)
    angle = rng.uniform(0, 6.28) + turn * t * {"clockwise": 1, "counter-clockwise": -1}.get(motion, 0)
    scale = np.exp(growth * t * {"grow": 1, "shrink": -1}.get(motion, 0))
    cx, cy = rng.uniform(0.35, 0.65, 2) * SIZE
    radius, stretch = rng.uniform(0.14, 0.28) * SIZE, rng.uniform(0.5, 0.8)
    u = (np.cos(angle) * (x - cx - dx) + np.sin(angle) * (y - cy - dy)) / scale
    v = (-np.sin(angle) * (x - cx - dx) + np.cos(angle) * (y - cy - dy)) / scale
    inside = ((u / radius) ** 2 + (v / (stretch * radius)) ** 2 < 1)[..., None]
    first, second = rng.uniform(1.5, 4, 2) * 3.14 / radius
    texture = (0.5 + 0.25 * (np.sin(first * u + rng.uniform(0, 6)) + np.sin(second * v + rng.uniform(0, 6))))[
        ..., None
    ]
    one, two, three, four = rng.uniform(0, 1, (4, 3))
    ramp = (0.5 + 0.5 * np.sin(x * rng.uniform(0, 0.3) + y * rng.uniform(0, 0.3)))[None, ..., None]
    frames = np.where(
        inside, one * texture + two * (1 - texture), three + rng.uniform(0, 0.5) * (four - three) * ramp
    )
    return (255 * np.clip(frames + rng.normal(0, 0.015, frames.shape), 0, 1)).astype(np.uint8)


def labelled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % len(MOTIONS)
    return np.stack(
        [rendered(MOTIONS[k], np.random.default_rng([seed, i])) for i, k in enumerate(labels)]
    ), labels


def test_a_linear_classifier_reads_the_motion_of_single_clips():
    """Eight motions from 40 clips each; a plain random R3D stays near chance, 12.5% (docs/backbones.md)."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    backbone = load_backbone("r3d-tiny")
    sets = []
    for count, seed in ((320, 1), (160, 2)):
        clips, labels = labelled(count, seed)
        sets.append(
            (np.concatenate([backbone(part).numpy() for part in np.array_split(clips, count // 16)]), labels)
        )
    (train, train_labels), (test, test_labels) = sets
    mean, std = train.mean(0), train.std(0) + 1e-6
    probe = linear_model.LogisticRegression(C=0.1, max_iter=500).fit((train - mean) / std, train_labels)
    assert probe.score((test - mean) / std, test_labels) > 0.9
