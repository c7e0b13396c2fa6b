"""One training step of SCALE, three ways: the dense form in fp32, and scalefast's in fp32 and bf16.

    python benchmarks/programs/train_step.py --mode dense --rounds 5

prints one JSON line: the seconds of each round after a first that is not counted, peak memory above the import, and the
load before.

Dense means as the method is written down: every token goes through the prediction head, whole matrices of logits and
log-softmax, `torch.nn.functional.linear` and `dropout`, everything in fp32. It shares the weights and the optimiser.

scalefast's forms keep freed memory and start without C's caches of small blocks, as `scalefast pretrain` does; the
dense form runs in the process as PyTorch leaves it. `--malloc` decides otherwise, to see what that alone is worth.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import time
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalefast.cli._restart import restart_without_small_block_caches

MODES = ("dense", "fp32", "bf16")


class DenseSCALE(nn.Module):
    """The training task of SCALE written plainly, for the same parameters as `scalefast.SCALEPretraining`."""

    def __init__(self, task: nn.Module) -> None:
        super().__init__()
        self.task = task

    def forward(self, features: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        task = self.task
        videos, _, clips, dim = features.shape
        sets = (part.flatten(0, 1) for part in (features, positions, mask))
        x = plain_tokens(task.model, *sets, dropout=task.model.dropout if self.training else 0.0)
        predictions = F.normalize(plain(task.prediction_head, x[:, 1:].flatten(0, 1)), dim=1)
        targets = F.normalize(plain(task.target_head, features.reshape(-1, dim)), dim=1)
        own = torch.arange(2 * videos * clips, device=features.device)
        every = -torch.log_softmax(predictions @ targets.T / task.temperature, dim=1)[own, own]
        mcm = (every * mask.flatten()).sum() / mask.sum()
        first, second = F.normalize(plain(task.set_head, x[:, 0]), dim=1).unflatten(0, (videos, 2)).unbind(1)
        across, own = first @ second.T / task.temperature, own[:videos]
        return (mcm + (F.cross_entropy(across, own) + F.cross_entropy(across.T, own)) / 2) / 2


def plain_tokens(
    model: nn.Module, features: Tensor, positions: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> Tensor:
    """The aggregator written plainly: [B, V, D], [B, V, 7], bool [B, V] or None -> [B, 1 + V, H]."""

    def drop(x: Tensor) -> Tensor:
        return F.dropout(x, dropout, training=dropout > 0)

    x = plain(model.input_projection, features)
    if mask is not None:
        x = torch.where(mask[..., None], model.mask_token, x)
    x = torch.cat([model.cls_token.expand(len(x), 1, -1), x + plain(model.position_mlp, positions)], 1)
    for block in model.blocks:
        qkv = plain(block.qkv, block.norm1(x)).unflatten(-1, (3, block.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = drop(torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, -1))
        x = x + drop(plain(block.projection, (weights @ v).transpose(1, 2).flatten(2)))
        hidden = drop(F.gelu(plain(block.fc1, block.norm2(x))))
        x = x + drop(plain(block.fc2, hidden))
    return model.norm(x)


def plain(layers: nn.Module, x: Tensor) -> Tensor:
    """The layers with PyTorch's own matrix product instead of `scalefast`'s choice of one."""
    for layer in layers if isinstance(layers, nn.Sequential) else [layers]:
        x = F.linear(x, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else layer(x)
    return x


class Step:
    """A task, its optimiser and a batch; calling it takes one step and returns the loss."""

    def __init__(
        self,
        mode: str,
        *,
        batch: int = 512,
        views: int = 8,
        dim: int = 768,
        dropout: float = 0.1,
        device: str = "cpu",
    ) -> None:
        import scalefast
        from scalefast.kernels import RandomState, draw_mask

        assert mode in MODES
        torch.manual_seed(0)
        self.task = scalefast.SCALEPretraining(scalefast.SCALE(dim, dropout=dropout)).train().to(device)
        self.dense = DenseSCALE(self.task).train()
        self.mode, self.number = mode, 0
        self.features = torch.randn(batch, 2, views, dim).to(device)
        self.positions = torch.rand(batch, 2, views, 7).to(device)
        self.rows = torch.arange(batch, device=device)
        self.state = RandomState.create(0, rows=self.rows)
        self.draw = lambda rng: draw_mask(
            rng.with_rows(torch.arange(2 * batch, device=device)),
            clips=views,
            probability=self.task.mask_ratio,
        ).view(batch, 2, views)
        self.optimizer = torch.optim.AdamW(self.task.parameters(), lr=3e-4, weight_decay=1e-4, fused=True)

    def loss(self) -> Tensor:
        self.state.state[1] = self.number
        mask = self.draw(self.state)
        if self.mode == "dense":
            return self.dense(self.features, self.positions, mask)
        with torch.autocast(self.rows.device.type, dtype=torch.bfloat16, enabled=self.mode == "bf16"):
            return self.task(self.features, self.positions, mask=mask, rng=self.state).loss

    def __call__(self) -> float:
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()  # now, as the trainer does: no gradient lies beside the next forward pass
        self.number += 1
        return float(loss.detach())


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prepared(mode: str, *, threads: int, malloc: str | None, **sizes: int) -> tuple[Step, str, float]:
    """A step in a process that is set up for it, how freed memory is treated, and the peak before, MB."""
    torch.set_num_threads(threads)
    # What importing costs is not the step's: ours, and what torch's first optimiser imports.
    for module in ("scalefast.pretraining", "scalefast.training.memory", "torch._dynamo"):
        importlib.import_module(module)
    malloc = malloc or ("default" if mode == "dense" else "keep")
    if malloc == "keep":
        importlib.import_module("scalefast.training.memory").keep_freed_memory()
    before = peak_mb()
    return Step(mode, **sizes), malloc, before


def serve(mode: str, pipe: Connection, *, threads: int, **sizes: int) -> None:
    """Take a step, answering its loss, for every True that comes; then answer the peak above the import, MB."""
    step, _, before = prepared(mode, threads=threads, malloc=None, **sizes)
    while pipe.recv():
        pipe.send(step())
    pipe.send(peak_mb() - before)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument(
        "--malloc", choices=("keep", "default"), help="keep freed memory or not (by default not if dense)"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    args.malloc = args.malloc or ("default" if args.mode == "dense" else "keep")
    if args.malloc == "keep":
        restart_without_small_block_caches()
    load, seconds = os.getloadavg()[0], []
    step, malloc, before = prepared(
        args.mode, threads=args.threads, malloc=args.malloc, batch=args.batch, views=args.views, dim=args.dim
    )
    step()
    for _ in range(args.rounds):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    facts = {"mode": args.mode, "malloc": malloc, "seconds": seconds}
    print(json.dumps({**facts, "peak_mb": peak_mb() - before, "load": load}))


if __name__ == "__main__":
    main()
