"""Clips/s of backbones as the library runs them, beside plain fp32.

    python benchmarks/programs/backbone_speed.py [NAME ...] [--results FILE]

    fp32 eager    float32, NCTHW memory, attention written out (transformers' "eager")
    fp32          float32, channels-last memory, SDPA: what `load_backbone(..., dtype="fp32")` does
    bf16          the same under bf16 autocast: what `load_backbone` does where the hardware has bf16
    compiled      bf16 through torch.compile (`--compile`)

Weights are random where the published ones would have to be downloaded: the time does not depend on them. Ways take
turns, the best round of each counts, and how far bf16 is from fp32 is said: a speed of wrong features is worth nothing.
On a GPU the share of the matmul rate that the machine reaches (8192^3 in bf16) is printed too. `--results` keeps the
figures as JSON and CSV, with hardware, versions, date and commit; what a file there holds of other backbones stays.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from results import read_rows, write_rows
from torch import Tensor, nn

from scalefast.backbones import BackboneSpec, FrozenBackbone
from scalefast.backbones.catalog import catalog, random_backbone
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


def measure(backbone: FrozenBackbone, *, batch: int, rounds: int, compiled: bool) -> dict[str, Measured]:
    """Every way of running a backbone, in turns; the best round of each."""
    device = backbone.device
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
        raise InputError(
            f"{backbone.name}: {wrong[0]} is {distances[wrong[0]]:.3f} away from fp32: not timed"
        )
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
    parser.add_argument(
        "--num-frames", type=int, help="frames in a clip, where other than the backbone's own"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="write FILE.json and FILE.csv, too")
    args = parser.parse_args()
    device = torch.device(args.device)
    flops = {entry.name: entry.flops for entry in catalog()} if device.type == "cuda" else {}
    peak = matmul_rate(device) if device.type == "cuda" else None
    print(
        f"{'backbone':18} {'way':10} {'clips/s':>9} {'times':>6} {'off fp32':>9}"
        + ("  of matmul" if peak else "")
    )
    for name in args.names:
        backbone = random_backbone(name, device=device, dtype="fp32", num_frames=args.num_frames)
        found = measure(backbone, batch=args.batch, rounds=args.rounds, compiled=args.compile)
        plain = found["fp32 eager"].clips_per_second
        for way, each in found.items():
            share = f"  {each.clips_per_second * (flops[name] or 0) / peak:9.1%}" if peak else ""
            ratio = each.clips_per_second / plain
            print(
                f"{name:18} {way:10} {each.clips_per_second:9.2f} {ratio:6.2f} {each.distance:9.1e}{share}",
                flush=True,
            )
        if args.results is not None:
            keep(rows_of(backbone, found, batch=args.batch), file=args.results)


def rows_of(backbone: FrozenBackbone, found: dict[str, Measured], *, batch: int) -> list[dict[str, Any]]:
    """One row a way, for `write_rows`."""
    plain, clip = (
        found["fp32 eager"].clips_per_second,
        f"{backbone.num_frames} x {backbone.size} x {backbone.size}",
    )
    return [
        {
            "backbone": backbone.name,
            "clip": clip,
            "batch": batch,
            "device": backbone.device.type,
            "way": way,
            "clips_per_second": round(each.clips_per_second, 4),
            "times_fp32_eager": round(each.clips_per_second / plain, 3),
            "distance_from_fp32": float(f"{each.distance:.2e}"),
        }
        for way, each in found.items()
    ]


def keep(rows: list[dict[str, Any]], *, file: Path) -> None:
    """Write rows beside those of other backbones in FILE.json and FILE.csv."""
    there = file.with_suffix(".json")
    others = (
        [row for row in read_rows(there) if row["backbone"] != rows[0]["backbone"]] if there.exists() else []
    )
    write_rows([*others, *rows], name=file.name, folder=file.parent)


if __name__ == "__main__":
    main()
