"""Short names of backbones, and what each stands for. To add one: an entry in `REGISTRY`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scalefast.backbones.checkpoint import CheckpointFormat
from scalefast.backbones.r3d import R3DConfig
from scalefast.backbones.slow import SlowFile
from scalefast.backbones.slowfast import SlowFastFile
from scalefast.backbones.svt import SVTFile
from scalefast.backbones.videomae import VideoMAEFile
from scalefast.backbones.vjepa2 import VJEPA2File

__all__ = ["REGISTRY", "Licence", "NamedBackbone"]


@dataclass(frozen=True, kw_only=True)
class Licence:
    """Of published weights."""

    name: str
    """As its authors or publishers call it."""
    stated: str
    """Where they say so, and of what."""


@dataclass(frozen=True, kw_only=True)
class NamedBackbone:
    """What a short name stands for: x."""

    summary: str
    """One line for lists."""
    r3d: R3DConfig | None = None
    """Own network, initialised from its seed."""
    hub_id: str | None = None
    """Repository on the Hugging Face hub in transformers' layout."""
    checkpoint: CheckpointFormat | None = None
    """Layout of the file that its authors released, for `load_backbone(name, checkpoint=file)`."""
    like: CheckpointFormat | None = None
    """Where there is no such layout: a network of the same dimensions, by which it is listed and counted."""
    licence: Licence | None = None
    """Of the published weights; None where there are none."""

    @property
    def form(self) -> CheckpointFormat | None:
        """The dimensions of a network of others."""
        return self.checkpoint or self.like

    def __post_init__(self) -> None:
        assert self.r3d is None or (self.hub_id is None and self.checkpoint is None), self
        assert self.r3d is not None or self.hub_id is not None or self.checkpoint is not None, self


_VIDEOMAE = Licence(
    name="CC-BY-NC 4.0", stated="LICENSE and README.md of github.com/MCG-NJU/VideoMAE, of most of the project"
)
_TIMESFORMER = Licence(
    name="CC-BY-NC 4.0", stated="model card; also README.md of github.com/facebookresearch/TimeSformer"
)
_VJEPA2 = Licence(
    name="MIT",
    stated=(
        "LICENSE and README.md of github.com/facebookresearch/vjepa2, of the project; cards on the hub may state "
        "another (that of vjepa2-vitg-fpc64-384: Apache-2.0)"
    ),
)
_SVT = Licence(name="MIT", stated="LICENSE of github.com/kahnchana/svt, whose releases hold the weights")
_PYSLOWFAST = Licence(
    name="Apache-2.0", stated="LICENSE and README.md of github.com/facebookresearch/SlowFast"
)
_LARGE: dict[str, Any] = {"label": "L", "width": 1024, "depth": 24, "heads": 16, "mlp": 4096}

REGISTRY: dict[str, NamedBackbone] = {
    "r3d-tiny": NamedBackbone(
        summary="untrained R3D with a motion-energy stem, 16 x 64 x 64; no download, for demonstrations",
        r3d=R3DConfig(depth="tiny", stem="motion-energy", norm="group", pooling="pyramid", size=64),
    ),
    "r3d-18": NamedBackbone(
        summary="R3D-18 as published, 16 x 112 x 112, untrained; no download, a start for one's own training",
        r3d=R3DConfig(depth="18"),
    ),
    "r3d-50": NamedBackbone(
        summary="R3D-50 of CVRL, 16 x 224 x 224, untrained; no download, a start for one's own training",
        r3d=R3DConfig(depth="50", size=224, stride=2),
    ),
    "videomae-b": NamedBackbone(
        summary="VideoMAE ViT-B, pretrained on Kinetics-400",
        hub_id="MCG-NJU/videomae-base",
        checkpoint=VideoMAEFile(),
        licence=_VIDEOMAE,
    ),
    "videomae-l": NamedBackbone(
        summary="VideoMAE ViT-L, pretrained on Kinetics-400",
        hub_id="MCG-NJU/videomae-large",
        checkpoint=VideoMAEFile(**_LARGE),
        licence=_VIDEOMAE,
    ),
    "videomae-b-k400": NamedBackbone(
        summary="VideoMAE ViT-B, fine-tuned on Kinetics-400",
        hub_id="MCG-NJU/videomae-base-finetuned-kinetics",
        checkpoint=VideoMAEFile(fine_tuned=True),
        licence=_VIDEOMAE,
    ),
    "videomae-l-k400": NamedBackbone(
        summary="VideoMAE ViT-L, fine-tuned on Kinetics-400",
        hub_id="MCG-NJU/videomae-large-finetuned-kinetics",
        checkpoint=VideoMAEFile(fine_tuned=True, **_LARGE),
        licence=_VIDEOMAE,
    ),
    "timesformer-b-k400": NamedBackbone(
        summary="TimeSformer-B, 8 frames, Kinetics-400",
        hub_id="facebook/timesformer-base-finetuned-k400",
        licence=_TIMESFORMER,
        like=SVTFile(),
    ),
    "vjepa2-l": NamedBackbone(
        summary="V-JEPA 2 ViT-L, 64 frames of 256 x 256",
        hub_id="facebook/vjepa2-vitl-fpc64-256",
        checkpoint=VJEPA2File(),
        licence=_VJEPA2,
    ),
    "vjepa2-h": NamedBackbone(
        summary="V-JEPA 2 ViT-H, 64 frames of 256 x 256",
        hub_id="facebook/vjepa2-vith-fpc64-256",
        checkpoint=VJEPA2File(label="H", width=1280, depth=32),
        licence=_VJEPA2,
    ),
    "vjepa2-g": NamedBackbone(
        summary="V-JEPA 2 ViT-g, 64 frames of 256 x 256",
        hub_id="facebook/vjepa2-vitg-fpc64-256",
        checkpoint=VJEPA2File(label="g", width=1408, depth=40, heads=22, mlp_ratio=48 / 11),
        licence=_VJEPA2,
    ),
    "svt-b": NamedBackbone(
        summary="SVT, self-supervised TimeSformer-B, 8 x 224 x 224; its authors' checkpoint file only",
        checkpoint=SVTFile(),
        licence=_SVT,
    ),
    "rhobyol-slow-r50": NamedBackbone(
        summary="rhoBYOL, self-supervised Slow-R50, 16 x 224 x 224; its authors' checkpoint file only",
        checkpoint=SlowFile(),
        licence=_PYSLOWFAST,
    ),
    "slowfast-r50": NamedBackbone(
        summary="SlowFast-R50 8x8, 32 x 224 x 224, trained with labels or by rhoBYOL; a PySlowFast file only",
        checkpoint=SlowFastFile(),
        licence=_PYSLOWFAST,
    ),
    "slowfast-r50-4x16": NamedBackbone(
        summary="SlowFast-R50 4x16, 32 x 224 x 224, likewise",
        checkpoint=SlowFastFile(alpha=8, span=5),
        licence=_PYSLOWFAST,
    ),
}
