"""`scalefast backbones`: which backbones there are, what each takes and costs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from scalefast.backbones.catalog import CatalogEntry

__all__ = ["Args", "run"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """List every backbone with its dimension, parameters, arithmetic, input, licence and source.

    GFLOPs are counted (which takes some seconds), a multiply-add as two operations.
    """

    measure: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME_OR_FOLDER ...", help_behavior_hint="")
    ] = ()
    """Measure these on this machine, in clips/s: names of the list, with random weights (nothing is downloaded and the
    speed is the same), or folders and hub ids."""

    dataset: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Say what an extraction of this data set (kinetics400, ucf101, ssv2, ...) does with each."""

    batch: int = 16
    """Clips that go through together when measuring."""

    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE", help_behavior_hint="")] = None
    """Where to measure: cpu, cuda or cuda:N. Without it: the GPU if there is one."""

    precision: Annotated[str, tyro.conf.arg(metavar="auto|fp32|bf16|fp16")] = "auto"
    """Arithmetic when measuring."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the list to a JSON file, too."""


def run(args: Args) -> int:
    """Prints the table, and what was asked for beside it."""
    from scalefast._files import write_atomically
    from scalefast.backbones.catalog import REGISTRY, catalog, described
    from scalefast.backbones.recipes import recipe_for

    named = {name: described(name, entry) for name, entry in REGISTRY.items()}
    recipes = (
        {name: str(recipe_for(spec, args.dataset)) for name, spec in named.items()} if args.dataset else {}
    )
    speeds = {
        name: _speed(name, args) for name in args.measure
    }  # first, since it says what is wrong with a name
    entries = catalog()
    print(table(entries))
    print(f"\n{licences(entries)}")
    for line in recipes.values():
        print(f"\n{line}")
    for name, (speed, where) in speeds.items():
        print(f"{name}: {speed:,.1f} clips/s ({where}, batches of {args.batch})")
    if args.json is not None:
        told = {
            "backbones": [entry.to_dict() for entry in entries],
            "recipes": recipes,
            "clips_per_second": {name: speed for name, (speed, _) in speeds.items()},
        }
        write_atomically(args.json, (json.dumps(told, indent=2) + "\n").encode())
    return 0


def table(entries: list[CatalogEntry]) -> str:
    """Aligned columns, one backbone a line."""
    rows = [("name", "D", "parameters", "GFLOPs/clip", "clip", "stride", "licence", "loads from")]
    for entry in entries:
        spec = entry.spec
        rows.append(
            (
                entry.name,
                str(spec.feature_dim),
                "?" if entry.parameters is None else f"{entry.parameters / 1e6:.1f} M",
                "?" if entry.flops is None else f"{entry.flops / 1e9:,.1f}",
                f"{spec.num_frames} x {spec.size} x {spec.size}",
                str(spec.stride),
                entry.licence or "-",
                entry.source,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if 1 <= i <= 3 or i == 5 else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def licences(entries: list[CatalogEntry]) -> str:
    """Where each licence is stated, and by whose weights it is meant; one a line."""
    stated: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        if entry.licence:
            stated.setdefault((entry.licence, entry.licence_stated), []).append(entry.name)
    return "\n".join(
        f"{licence} of {', '.join(names)}: {where}" for (licence, where), names in stated.items()
    )


def _speed(name: str, args: Args) -> tuple[float, str]:
    import torch

    from scalefast.backbones import REGISTRY, load_backbone
    from scalefast.backbones.catalog import clips_per_second, random_backbone

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    precision = None if args.precision == "auto" else args.precision
    load = random_backbone if name in REGISTRY else load_backbone
    backbone = load(name, device=device, dtype=precision)  # type: ignore[arg-type]
    return clips_per_second(backbone, batch=args.batch), f"{backbone.device.type}, {backbone.precision}"
