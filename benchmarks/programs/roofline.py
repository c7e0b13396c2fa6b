"""What the arithmetic of a step would take alone: its parts and this machine's rates, as a Markdown table.

    python benchmarks/programs/roofline.py --step-bf16 0.72 --step-fp32 1.21

One multiply-add counts 2; a backward pass counts twice its forward pass, once where inputs need no gradient.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.nn import functional as F

from scalefast.kernels.ops.products import linear

__all__ = ["product_rate", "step_flops", "table"]


def step_flops(
    *,
    batch: int = 512,
    views: int = 8,
    dim: int = 768,
    width: int = 256,
    layers: int = 2,
    mask_ratio: float = 0.25,
) -> dict[str, float]:
    """Operations of the parts of one training step, with the paper's heads."""
    clips, tokens = 2 * batch * views, 2 * batch * (views + 1)
    masked = clips * mask_ratio
    block = 3 * width * width + width * width + 2 * width * 2 * width
    head = width * 4096 + 4096 * 128
    return {
        "target head": 2 * clips * (2 * dim * 2048 + 3 * (2048 * 2048 + 2048 * 128)),
        "transformer": 6 * tokens * layers * block,
        "prediction head, masked clips": 6 * masked * head,
        "masked-clip loss": 8 * masked * clips * 128,  # its logits are computed twice
        "input and position projections": 2
        * clips
        * (2 * dim * width + 3 * (7 * 2 * width + 2 * width * width)),
        "set head": 6 * 2 * batch * head,
    }


def product_rate(dtype: torch.dtype, *, device: torch.device, rounds: int = 5) -> float:
    """FLOP/s of the target head's largest product, the better of PyTorch's own call and scalefast's."""
    rows, width = 8192, 2048
    x, weight = (torch.randn(n, width, device=device, dtype=dtype) for n in (rows, width))
    best = float("inf")
    for call in (F.linear, linear):
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            call(x, weight)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - begin)
    return 2 * rows * width * width / best


def table(flops: dict[str, float], rates: dict[str, float], measured: dict[str, float]) -> str:
    """Markdown: GFLOP of every part, its share, and its milliseconds at each rate; then the whole step as measured."""
    total = sum(flops.values())
    lines = [
        "| part of a step | GFLOP | share | "
        + " | ".join(f"{name}, ms at its rate" for name in rates)
        + " |",
        "|---|---|---|" + "---|" * len(rates),
    ]
    for part, count in [*flops.items(), ("all products", total)]:
        floors = " | ".join(f"{count / rate * 1e3:.1f}" for rate in rates.values())
        lines.append(f"| {part} | {count / 1e9:.1f} | {count / total:.0%} | {floors} |")
    if measured:
        shown = (
            f"{measured[name] * 1e3:.0f} ({total / rates[name] / measured[name]:.0%} products)"
            if name in measured
            else ""
            for name in rates
        )
        lines.append("| step as measured | | | " + " | ".join(shown) + " |")
    told = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items())
    return "\n".join([*lines, "", f"Rates of the largest product, 8,192 x 2,048 x 2,048: {told}."])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--step-fp32", type=float, help="seconds of a measured fp32 step")
    parser.add_argument("--step-bf16", type=float, help="seconds of a measured bf16 step")
    args = parser.parse_args()
    device = torch.device(args.device)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    rates = {name: product_rate(dtype, device=device) for name, dtype in dtypes.items()}
    given = {"fp32": args.step_fp32, "bf16": args.step_bf16}
    measured = {name: seconds for name, seconds in given.items() if seconds is not None}
    print(table(step_flops(batch=args.batch, views=args.views, dim=args.dim), rates, measured))


if __name__ == "__main__":
    main()
