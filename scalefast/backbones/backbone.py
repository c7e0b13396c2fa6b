"""A frozen clip encoder: decoded clips in, one feature vector a clip out.

Legend: `N` clips, `T` frames, `H` x `W` pixels, `D` width of the feature.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from scalefast._precision import Precision, precision_name, resolve_precision
from scalefast.backbones._weights import hash_state_dict
from scalefast.backbones.spec import BackboneSpec
from scalefast.errors import InputError

__all__ = ["FrozenBackbone"]


class FrozenBackbone(nn.Module):
    """A clip encoder that never trains, with everything that its input must be.

    Equivalent to `encoder((clips.permute(0, 4, 1, 2, 3) / 255 - mean) / std)` in eval mode, no gradients.

    Args:
        encoder: float32 pixels [N, 3, T, H, W], normalised -> [N, D]. Its weights are frozen in place.
        spec: what it expects and yields.
        device: where it lives; None leaves the encoder where it is.
        dtype: format in which it computes (`"fp32"`, `"bf16"`, `"fp16"` or the torch.dtype); None chooses
            bf16 where the hardware has it, else fp32. Weights stay float32; the feature is always float32.
    """

    _mean: torch.Tensor
    _std: torch.Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        spec: BackboneSpec,
        device: torch.device | str | None = None,
        dtype: torch.dtype | Precision | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder.requires_grad_(False)
        # constants of the input, not weights: kept out of the state dict and of its hash
        self.register_buffer("_mean", torch.tensor(spec.mean).view(1, 3, 1, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(spec.std).view(1, 3, 1, 1, 1), persistent=False)
        first = next(encoder.parameters(), None)
        self._place(device if device is not None else (first.device if first is not None else "cpu"))
        self._dtype = dtype
        resolve_precision(dtype, device=self.device)
        self.eval()

    name = property(lambda self: self.spec.name, doc="Short name, folder name or hub id.")
    feature_dim = property(lambda self: self.spec.feature_dim, doc="D, the width of the feature.")
    num_frames = property(lambda self: self.spec.num_frames, doc="T, frames in a clip.")
    stride = property(lambda self: self.spec.stride, doc="Recommended frame distance at 30 fps.")
    size = property(lambda self: self.spec.size, doc="Height and width of a frame in pixels.")
    mean = property(lambda self: self.spec.mean, doc="Mean of red, green, blue, in [0, 1].")
    std = property(lambda self: self.spec.std, doc="Standard deviation of red, green, blue, in [0, 1].")

    @property
    def device(self) -> torch.device:
        """Where the weights are and the features are computed."""
        return self._mean.device

    @property
    def precision(self) -> str:
        """`"fp32"`, `"bf16"` or `"fp16"`: the format in which it computes on its present device."""
        return precision_name(resolve_precision(self._dtype, device=self.device))

    @property
    def weights_hash(self) -> str:
        """sha256 of the encoder's state dict; reads every weight at each call (about 1 s a GB)."""
        weights = getattr(self.encoder, "weights", self.encoder.state_dict)
        return hash_state_dict(weights())

    def describe(self) -> dict[str, Any]:
        """All that a store records about its features, as JSON-able values.

        `identity` is a hash of everything that decides the features apart from rounding (weights,
        normalisation, size, frames, pooling); features of two stores may be mixed when it is equal, whatever
        `precision` says.
        """
        decides = {
            "architecture": self.spec.architecture,
            "weights_hash": self.weights_hash,
            "feature_dim": self.spec.feature_dim,
            "num_frames": self.spec.num_frames,
            "size": self.spec.size,
            "mean": list(self.spec.mean),
            "std": list(self.spec.std),
            "pooling": self.spec.pooling,
        }
        identity = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        return {
            "name": self.spec.name,
            **decides,
            "identity": identity,
            "stride": self.spec.stride,
            "precision": self.precision,
            "parameters": sum(p.numel() for p in self.encoder.parameters()),
            "source": dict(self.spec.source),
        }

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Stays in eval mode: dropout and batch statistics would make features depend on chance."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, clips: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Features of decoded clips.

        Args:
            clips: uint8 [N, T, H, W, 3] in RGB with T = num_frames and H = W = size, on any device.

        Returns:
            float32 [N, D] on the backbone's device, without gradient.

        Raises:
            InputError: another shape, dtype, number of frames or size.
        """
        self.check(clips)
        if isinstance(clips, np.ndarray):
            # torch warns about read-only arrays (a memory-mapped file, say), which are only read here
            clips = torch.from_numpy(clips if clips.flags.writeable else clips.copy())
        if self.encoder.training:  # someone called .train() on the encoder itself
            self.encoder.eval()
        if clips.shape[0] == 0:
            return torch.empty(0, self.feature_dim, device=self.device)
        with self._autocast():
            features = self.encoder(self.normalize(clips))
        assert features.shape == (clips.shape[0], self.feature_dim), (features.shape, self.spec)
        return features.float()

    def normalize(self, clips: torch.Tensor) -> torch.Tensor:
        """`(clips / 255 - mean) / std`: uint8 [N, T, H, W, 3] -> float32 [N, 3, T, H, W] on the device."""
        pixels = clips.to(self.device).permute(0, 4, 1, 2, 3).float()
        return pixels.div_(255.0).sub_(self._mean).div_(self._std)

    def extra_repr(self) -> str:
        spec = self.spec
        clips = f"[N, {spec.num_frames}, {spec.size}, {spec.size}, 3]"
        return f"{spec.name!r}, {clips} -> [N, {spec.feature_dim}], {self.precision}"

    def _place(self, device: torch.device | str) -> None:
        try:
            self.to(torch.device(device))
        except (AssertionError, NotImplementedError, RuntimeError) as error:  # torch uses all three
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"backbone {self.spec.name!r} cannot be on device {device!s}: {reason}"
            ) from error

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = resolve_precision(self._dtype, device=self.device)
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype=dtype)

    def check(self, clips: Any) -> None:
        """Refuse clips of another dtype or shape than the backbone takes, with the form that it takes."""
        spec = self.spec
        form = f"uint8 [N, {spec.num_frames}, {spec.size}, {spec.size}, 3]"
        if not isinstance(clips, (torch.Tensor, np.ndarray)):
            raise InputError(
                f"backbone {spec.name!r} takes clips as a tensor or array {form}, got {type(clips).__name__}"
            )
        shape = tuple(clips.shape)
        if str(clips.dtype).removeprefix("torch.") != "uint8":
            raise InputError(
                f"backbone {spec.name!r} takes decoded clips, {form}, got {clips.dtype = }; "
                "do not scale or normalise them, the backbone does"
            )
        if len(shape) != 5 or shape[-1] != 3:
            hint = "; the colour channel comes last" if len(shape) == 5 and 3 in shape[1:3] else ""
            raise InputError(f"backbone {spec.name!r} takes clips {form}, got {shape = }{hint}")
        if shape[1] != spec.num_frames:
            raise InputError(
                f"backbone {spec.name!r} takes clips of {spec.num_frames} frames, got {shape[1]}: {shape = }"
            )
        if shape[2:4] != (spec.size, spec.size):
            raise InputError(
                f"backbone {spec.name!r} takes frames of {spec.size} x {spec.size} pixels, "
                f"got {shape[2]} x {shape[3]}: {shape = }"
            )
