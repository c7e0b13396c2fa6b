"""Clips/s of backbones as the library runs them, beside plain fp32.

    python benchmarks/programs/backbone_speed.py [NAME ...]

    fp32 eager    float32, NCTHW memory, attention written out (transformers' "eager")
    fp32          float32, channels-last memory, SDPA: what `load_backbone(..., dtype="fp32")` does
    bf16          the same under bf16 autocast: what `load_backbone` does where the hardware has bf16
    compiled      bf16 through torch.compile (`--compile`)

Weights are random where the published ones would have to be downloaded: the time does not depend on them. Ways take
turns, the best round of each counts, and how far bf16 is from fp32 is said: a speed of wrong features is worth nothing.
On a GPU the share of the matmul rate that the machine reaches (8192^3 in bf16) is printed too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scalefast.backbones import REGISTRY, BackboneSpec, FrozenBackbone, load_backbone
from scalefast.backbones.catalog import catalog
from scalefast.errors import InputError

DEFAULT = ("r3d-18", "rhobyol-slow-r50", "videomae-b")
TOLERANCE = 0.03
"""Largest distance of a bf16 feature from the fp32 one, relative to its length."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One way of running a backbone."""

    clips_per_second: float
    distance: float
    """From the fp32 features, relative to their length; the largest of the clips."""


def random_backbone(name: str, *, device: torch.device) -> FrozenBackbone:
    """The named network with random weights of ordinary size, in fp32."""
    entry = REGISTRY[name]
    if entry.r3d is not None:
        return load_backbone(name, device=device, dtype="fp32")
    assert entry.form is not None
    encoder, spec = entry.form.build(needed_for="a benchmark"), entry.form.spec(name=name)
    torch.manual_seed(0)
    state = {key: _drawn(key, value) for key, value in encoder.state_dict().items()}
    encoder.load_state_dict(state, assign=True)
    return FrozenBackbone(encoder, spec=spec, device=device, dtype="fp32")


def _drawn(name: str, like: Tensor) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    if name.endswith("running_var") or (like.ndim == 1 and name.endswith("weight")):
        return torch.ones(like.shape)
    fan_in = like[0].numel() if like.ndim > 1 else 1
    return torch.randn(like.shape) * (fan_in**-0.5 if like.ndim > 1 else 0.02)


def ways(backbone: FrozenBackbone, *, compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """Name -> uint8 clips to features; the plain way first."""
    spec, encoder, device = backbone.spec, backbone.encoder, backbone.device
    lower = FrozenBackbone(encoder, spec=spec, device=device, dtype="bf16")
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "fp32 eager": lambda clips: _plain(encoder, spec, clips),
        "fp32": backbone,
        "bf16": lower,
    }
    if compiled:
        found["compiled"] = torch.compile(lower)
    return found


@torch.no_grad()
def _plain(encoder: nn.Module, spec: BackboneSpec, clips: Tensor) -> Tensor:
    """As one writes it down: contiguous float32, attention by hand."""
    configs = [
        m.config for m in encoder.modules() if hasattr(getattr(m, "config", None), "_attn_implementation")
    ]
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = "eager"
    try:
        mean, std = (torch.tensor(v, device=clips.device).view(3, 1, 1, 1) for v in (spec.mean, spec.std))
        pixels = clips.permute(0, 4, 1, 2, 3).float().contiguous() / 255
        return encoder((pixels - mean) / std).float()
    finally:
        for config, value in zip(configs, before, strict=True):
            config._attn_implementation = value


def measure(
    name: str, *, batch: int, rounds: int, device: torch.device, compiled: bool
) -> dict[str, Measured]:
    """Every way of running a backbone, in turns; the best round of each."""
    backbone = random_backbone(name, device=device)
    shape = (batch, backbone.num_frames, backbone.size, backbone.size, 3)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(
        device
    )
    functions = ways(backbone, compiled=compiled)
    truth = functions["fp32 eager"](clips)
    best = dict.fromkeys(functions, float("inf"))
    distances = {}
    for way, function in functions.items():  # warm-up, and whether it computes the same
        distances[way] = ((function(clips) - truth).norm(dim=1) / truth.norm(dim=1)).max().item()
    for _ in range(rounds):
        for way, function in functions.items():
            begin = time.perf_counter()
            function(clips).sum().item()
            best[way] = min(best[way], time.perf_counter() - begin)
    wrong = [way for way, distance in distances.items() if not distance < TOLERANCE]
    if wrong:
        raise InputError(f"{name}: {wrong[0]} is {distances[wrong[0]]:.3f} away from fp32: not timed")
    return {w: Measured(clips_per_second=batch / best[w], distance=distances[w]) for w in functions}


def matmul_rate(device: torch.device, *, size: int = 8192, rounds: int = 5) -> float:
    """Floating-point operations a second of a square bf16 product."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=DEFAULT, help=f"backbones ({' '.join(DEFAULT)})")
    parser.add_argument("--batch", type=int, default=4, help="clips at a time (4; 64 on a GPU)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which the best counts (3)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    args = parser.parse_args()
    device = torch.device(args.device)
    flops = {entry.name: entry.flops for entry in catalog()} if device.type == "cuda" else {}
    peak = matmul_rate(device) if device.type == "cuda" else None
    print(
        f"{'backbone':18} {'way':10} {'clips/s':>9} {'times':>6} {'off fp32':>9}"
        + ("  of matmul" if peak else "")
    )
    for name in args.names:
        found = measure(name, batch=args.batch, rounds=args.rounds, device=device, compiled=args.compile)
        plain = found["fp32 eager"].clips_per_second
        for way, each in found.items():
            share = f"  {each.clips_per_second * (flops[name] or 0) / peak:9.1%}" if peak else ""
            ratio = each.clips_per_second / plain
            print(
                f"{name:18} {way:10} {each.clips_per_second:9.2f} {ratio:6.2f} {each.distance:9.1e}{share}",
                flush=True,
            )


if __name__ == "__main__":
    main()
