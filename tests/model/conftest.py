"""An independent, plain implementation of the authors' SCALE in their parameter names: the tests' oracle."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F


def official_state(feature=48, hidden=64, layers=2, projection=16, head=96, target=80, seed=0):
    """A random state dict in the authors' layout, small."""
    g = torch.Generator().manual_seed(seed)

    def r(*shape):
        return torch.randn(*shape, generator=g) * 0.2

    state = {
        "input_projection.weight": r(hidden, feature), "input_projection.bias": r(hidden),
        "pos_encoding_mlp.0.weight": r(2 * hidden, 7), "pos_encoding_mlp.0.bias": r(2 * hidden),
        "pos_encoding_mlp.2.weight": r(hidden, 2 * hidden), "pos_encoding_mlp.2.bias": r(hidden),
        "set_cls_token": r(1, 1, hidden), "msk_token": r(1, 1, hidden),
        "set_head.0.weight": r(head, hidden), "set_head.2.weight": r(projection, head),
        "norm.weight": 1 + r(hidden), "norm.bias": r(hidden),
        "dense_target_head.0.weight": r(target, feature), "dense_target_head.2.weight": r(target, target),
        "dense_target_head.4.weight": r(projection, target),
        "dense_pred_head.0.weight": r(head, hidden), "dense_pred_head.2.weight": r(projection, head),
    }  # fmt: skip
    for i in range(layers):
        for name, shape in {
            "attn.qkv": (3 * hidden, hidden), "attn.proj": (hidden, hidden),
            "mlp.fc1": (2 * hidden, hidden), "mlp.fc2": (hidden, 2 * hidden),
        }.items():  # fmt: skip
            state[f"transformer.{i}.{name}.weight"], state[f"transformer.{i}.{name}.bias"] = (
                r(*shape),
                r(shape[0]),
            )
        for name in ("norm1", "norm2"):
            state[f"transformer.{i}.{name}.weight"], state[f"transformer.{i}.{name}.bias"] = (
                1 + r(hidden),
                r(hidden),
            )
    return state


def plain_tokens(state, features, positions, mask):
    """[S, V, D] -> [S, 1 + V, H], dense, no dropout."""

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    x = linear(features, "input_projection")
    hidden = x.shape[-1]
    x = torch.where(mask[..., None], state["msk_token"].reshape(hidden), x)
    x = x + linear(torch.relu(linear(positions, "pos_encoding_mlp.0")), "pos_encoding_mlp.2")
    x = torch.cat([state["set_cls_token"].reshape(1, 1, hidden).expand(len(x), 1, hidden), x], 1)
    layers = len({n.split(".")[1] for n in state if n.startswith("transformer.")})
    for i in range(layers):
        qkv = linear(norm(x, f"transformer.{i}.norm1"), f"transformer.{i}.attn.qkv")
        q, k, v = (t.unflatten(-1, (hidden // 32, 32)).transpose(1, 2) for t in qkv.chunk(3, -1))
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(32), -1)
        x = x + linear((weights @ v).transpose(1, 2).flatten(2), f"transformer.{i}.attn.proj")
        y = F.gelu(linear(norm(x, f"transformer.{i}.norm2"), f"transformer.{i}.mlp.fc1"))
        x = x + linear(y, f"transformer.{i}.mlp.fc2")
    return norm(x, "norm")


def plain_losses(state, features, positions, mask, temperature=0.2):
    """MCM and SET with every token through every head and whole matrices of logits."""

    def mlp(x, *names):
        for i, name in enumerate(names):
            x = (F.gelu(x) if i else x) @ state[f"{name}.weight"].T
        return F.normalize(x, dim=-1)

    b, _, v, d = features.shape
    tokens = plain_tokens(state, features.flatten(0, 1), positions.flatten(0, 1), mask.flatten(0, 1))
    predictions = mlp(tokens[:, 1:].flatten(0, 1), "dense_pred_head.0", "dense_pred_head.2")
    targets = mlp(
        features.reshape(-1, d), "dense_target_head.0", "dense_target_head.2", "dense_target_head.4"
    )
    logits = predictions @ targets.T / temperature
    every = F.cross_entropy(logits, torch.arange(2 * b * v), reduction="none")
    chosen = mask.flatten()
    mcm = every[chosen].mean()
    z = mlp(tokens[:, 0], "set_head.0", "set_head.2").unflatten(0, (b, 2))
    across = z[:, 0] @ z[:, 1].T / temperature
    own = torch.arange(b)
    return SimpleNamespace(
        loss=(mcm + (F.cross_entropy(across, own) + F.cross_entropy(across.T, own)) / 2) / 2,
        mcm_loss=mcm,
        set_loss=(F.cross_entropy(across, own) + F.cross_entropy(across.T, own)) / 2,
        mcm_accuracy=(logits.argmax(1) == torch.arange(2 * b * v))[chosen].double().mean(),
        set_accuracy=((across.argmax(1) == own).double().mean() + (across.argmax(0) == own).double().mean())
        / 2,
    )


@pytest.fixture
def authors():
    """The oracle: `.state(...)`, `.tokens(...)`, `.losses(...)`."""
    return SimpleNamespace(state=official_state, tokens=plain_tokens, losses=plain_losses)


@pytest.fixture
def batch():
    """features [6, 2, 5, 48], positions, mask, fp64."""
    g = torch.Generator().manual_seed(7)
    return (
        torch.randn(6, 2, 5, 48, generator=g, dtype=torch.float64),
        torch.rand(6, 2, 5, 7, generator=g, dtype=torch.float64),
        torch.rand(6, 2, 5, generator=g) < 0.3,
    )
