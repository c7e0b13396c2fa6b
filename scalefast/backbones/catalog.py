"""What is known of every named backbone without its weights: input, dimension, parameters and arithmetic.

Arithmetic is counted by running the network on torch's meta device, where shapes flow and nothing is computed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scalefast._precision import Precision
from scalefast.backbones.backbone import FrozenBackbone
from scalefast.backbones.encoders import VideoMAEEncoder
from scalefast.backbones.geometry import fit_to
from scalefast.backbones.r3d import R3D
from scalefast.backbones.registry import REGISTRY, NamedBackbone
from scalefast.backbones.spec import BackboneSpec
from scalefast.errors import InputError, MissingExtraError

__all__ = ["CatalogEntry", "catalog", "clips_per_second", "count", "described", "random_backbone"]


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """A named backbone."""

    name: str
    """For `load_backbone` and `--backbone`."""
    summary: str
    """One line."""
    spec: BackboneSpec
    """The clips that it takes and the feature that it gives."""
    parameters: int | None
    """Weights; None where the library that builds the network is not installed."""
    flops: int | None
    """Of one clip, a multiply-add counted as two; None likewise."""
    licence: str
    """Of the published weights; empty where there are none."""
    licence_stated: str
    """Where that is said, and of what."""
    source: str
    """Where they load from."""

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        spec = self.spec
        return {
            "name": self.name,
            "summary": self.summary,
            "feature_dim": spec.feature_dim,
            "num_frames": spec.num_frames,
            "stride": spec.stride,
            "size": spec.size,
            "mean": list(spec.mean),
            "std": list(spec.std),
            "pooling": spec.pooling,
            "parameters": self.parameters,
            "flops": self.flops,
            "licence": self.licence,
            "licence_stated": self.licence_stated,
            "source": self.source,
        }


def catalog() -> list[CatalogEntry]:
    """Every name of `REGISTRY`, in its order."""
    entries = []
    for name, entry in REGISTRY.items():
        spec = described(name, entry)
        parameters, flops = _counted(entry, spec)
        entries.append(
            CatalogEntry(
                name=name,
                summary=entry.summary,
                spec=spec,
                parameters=parameters,
                flops=flops,
                licence=entry.licence.name if entry.licence else "",
                licence_stated=entry.licence.stated if entry.licence else "",
                source=_source(entry),
            )
        )
    return entries


def described(name: str, entry: NamedBackbone) -> BackboneSpec:
    """The spec of a named backbone, without its weights."""
    if entry.r3d is not None:
        return _meta_r3d(entry).spec(name)
    assert entry.form is not None, entry
    return entry.form.spec(name=name)


def count(encoder: nn.Module, spec: BackboneSpec) -> tuple[int, int]:
    """Parameters, and floating-point operations of one clip (products alone, two for each multiply-add).

    Args:
        encoder: on the meta device, or any other: it is run once where it is.
        spec: the clip.
    """
    place = next(encoder.parameters()).device
    clip = torch.empty(1, 3, spec.num_frames, spec.size, spec.size, device=place)
    with torch.no_grad(), torch.device(place), FlopCounterMode(display=False) as counter:
        encoder.eval()(clip)
    return sum(p.numel() for p in encoder.parameters()), counter.get_total_flops()


def clips_per_second(backbone: FrozenBackbone, *, batch: int, seconds: float = 3.0) -> float:
    """Speed of a loaded backbone on its device, from uint8 clips to features, after one batch to warm up.

    Raises:
        InputError: batch below 1.
    """
    if batch < 1:
        raise InputError(f"batch must be at least 1, got {batch}")
    generator = torch.Generator().manual_seed(0)
    shape = (batch, backbone.num_frames, backbone.size, backbone.size, 3)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(backbone.device)
    backbone(clips).sum().item()  # reading a number waits for the device
    begin, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - begin < seconds:
        backbone(clips).sum().item()
        done += batch
    return done / (time.perf_counter() - begin)


def random_backbone(
    name: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | Precision | None = None,
    num_frames: int | None = None,
) -> FrozenBackbone:
    """A named backbone with random weights of ordinary size, to time it: nothing is downloaded, and the time does not
    depend on the weights.

    Args:
        name: of `REGISTRY`.
        device, dtype, num_frames: as of `load_backbone`.

    Raises:
        InputError: an unknown name, or clips that the network cannot take.
        MissingExtraError: transformers is needed and not installed.
    """
    entry = REGISTRY.get(name)
    if entry is None:
        raise InputError(f"no backbone is named {name!r}; known: {', '.join(REGISTRY)}")
    if entry.r3d is not None:
        encoder: nn.Module = R3D(entry.r3d)
    else:
        assert entry.form is not None, entry
        encoder = entry.form.build(needed_for=f"timing {name}")
        generator = torch.Generator().manual_seed(0)
        state = {key: _drawn(key, value, generator) for key, value in encoder.state_dict().items()}
        encoder.load_state_dict(state, assign=True)
    spec = fit_to(encoder, described(name, entry), num_frames=num_frames, size=None)
    return FrozenBackbone(encoder, spec=spec, device=device, dtype=dtype)


def _drawn(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    if name.endswith("running_var") or (like.ndim == 1 and name.endswith("weight")):
        return torch.ones(like.shape)
    scale = like[0].numel() ** -0.5 if like.ndim > 1 else 0.02
    return torch.randn(like.shape, generator=generator) * scale


def _counted(entry: NamedBackbone, spec: BackboneSpec) -> tuple[int | None, int | None]:
    try:
        return count(_skeleton(entry), spec)
    except MissingExtraError:  # without transformers the rest is known all the same
        return None, None


def _meta_r3d(entry: NamedBackbone) -> R3D:
    assert entry.r3d is not None
    with torch.device("meta"):
        return R3D(entry.r3d, initialise=False)


def _skeleton(entry: NamedBackbone) -> nn.Module:
    if entry.r3d is not None:
        return _meta_r3d(entry)
    assert entry.form is not None, entry
    encoder = entry.form.build(needed_for="counting its parameters").to("meta")
    if isinstance(encoder, VideoMAEEncoder):  # its positions are neither weight nor buffer
        embeddings = encoder.model.embeddings
        embeddings.position_embeddings = embeddings.position_embeddings.to("meta")
    return encoder


def _source(entry: NamedBackbone) -> str:
    if entry.r3d is not None:
        return "computed, no download"
    places = [f"hub: {entry.hub_id}"] if entry.hub_id else []
    return ", ".join([*places, *(["its authors' file (--checkpoint)"] if entry.checkpoint else [])])
