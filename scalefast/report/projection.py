"""Two-dimensional maps of high-dimensional points: PCA, and exact t-SNE from it.

Legend: `N` points, `D` dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scalefast.errors import InputError

__all__ = ["align", "pca", "tsne"]

EXAGGERATION, EXAGGERATED_STEPS = 12.0, 250
"""Factor on the affinities, and for how many steps, while clusters form (van der Maaten and Hinton 2008)."""


def pca(x: Tensor, *, dims: int = 2) -> Tensor:
    """Coordinates on the first principal axes: `[N, D]` -> fp64 `[N, dims]`.

    Where there are fewer axes than `dims`, the rest is 0. An axis points to where its largest loading is
    positive, so that the map is a function of the points.
    """
    x = x.double() - x.double().mean(0)
    _, _, axes = torch.linalg.svd(x, full_matrices=False)
    axes = axes[:dims]
    largest = axes.abs().argmax(1, keepdim=True)
    axes = axes * axes.gather(1, largest).sign()
    coordinates = x @ axes.T
    return torch.nn.functional.pad(coordinates, (0, dims - coordinates.shape[1]))


def tsne(x: Tensor, *, perplexity: float = 30.0, steps: int = 750) -> Tensor:
    """Exact t-SNE, started from PCA: near points stay near. `[N, D]` -> fp64 `[N, 2]`, centred.

    No random number enters, so the same points give the same map. Time and memory grow with N squared: 1,000
    points take a few seconds on a CPU core.

    Args:
        x: `[N, D]`, finite; N of at least 2. Fewer than 5 points are placed by PCA.
        perplexity: effective number of neighbours; at most (N - 1) / 3 is used.
        steps: of gradient descent.

    Raises:
        InputError: not `[N, D]`, fewer than 2 points, or values that are not finite.
    """
    if x.ndim != 2 or len(x) < 2 or not bool(torch.isfinite(x).all()):
        raise InputError(f"a map needs at least 2 finite points [N, D], got {x.shape = }")
    if len(x) < 5:
        return pca(x)
    affinities = _affinities(x.double(), min(perplexity, (len(x) - 1) / 3))
    start = pca(x)
    y = 1e-4 * start / start[:, 0].std().clamp(min=1e-12)
    velocity, gains = torch.zeros_like(y), torch.ones_like(y)
    rate = max(len(x) / EXAGGERATION / 4, 50.0)
    for step in range(steps):
        early = step < EXAGGERATED_STEPS
        gradient = _gradient(affinities * EXAGGERATION if early else affinities, y)
        # A coordinate that keeps its direction speeds up, one that swings slows down.
        agrees = (gradient * velocity) < 0
        gains = torch.where(agrees, gains + 0.2, gains * 0.8).clamp(min=0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        y = y + velocity
    return y - y.mean(0)


def align(y: Tensor, *, to: Tensor) -> Tensor:
    """Turn and mirror a centred map so that its points lie as near as they can to those of another one.

    Orthogonal Procrustes: distances within the map stay as they are. `[N, 2]`, `[N, 2]` -> `[N, 2]`.
    """
    left, _, right = torch.linalg.svd(y.T @ to)
    return y @ (left @ right)


def _gradient(p: Tensor, y: Tensor) -> Tensor:
    """Gradient of KL(p || q) with q of Student's t with one degree of freedom: `[N, N]`, `[N, 2]` -> `[N,
    2]`."""
    near = 1 / (1 + torch.cdist(y, y).square())
    near.fill_diagonal_(0)
    pull = (p - near / near.sum()) * near
    return 4 * (pull.sum(1, keepdim=True) * y - pull @ y)


def _affinities(x: Tensor, perplexity: float) -> Tensor:
    """Symmetric joint probabilities `[N, N]`: Gaussian around each point, as wide as the perplexity asks."""
    distances = torch.cdist(x, x).square()
    distances.fill_diagonal_(math.inf)
    # In units of each point's nearest distance, so that one range of widths serves every scale.
    nearest = distances.min(1, keepdim=True).values
    typical = distances.masked_fill(torch.isinf(distances), 0).mean().clamp(min=1e-300)
    scaled = (distances - nearest) / typical
    low, high = torch.full_like(nearest, -30.0), torch.full_like(nearest, 60.0)
    for _ in range(64):
        precision = (low + high) / 2  # log2 of the inverse width
        p = torch.softmax(-scaled * precision.exp2(), dim=1)
        entropy = -torch.special.xlogy(p, p).sum(1, keepdim=True)
        too_wide = entropy > math.log(perplexity)
        low, high = torch.where(too_wide, precision, low), torch.where(too_wide, high, precision)
    p = torch.softmax(-scaled * ((low + high) / 2).exp2(), dim=1)
    return (p + p.T) / (2 * len(x))
