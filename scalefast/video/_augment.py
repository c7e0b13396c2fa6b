"""Augmentations applied to decoded clips, on CPU or GPU, all clips of a batch at once.

Shapes: `N` clips, `T` frames, `H` x `W` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from scalefast.errors import InputError
from scalefast.video._augmentation import Augmentation

__all__ = ["augment"]

_LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601, as in PIL's and torchvision's grey


def augment(clips: Tensor, augmentations: Sequence[Augmentation]) -> Tensor:
    """Change the colours of clips, blur and solarise them; all frames of a clip in the same way.

    Order: jitter (its four parts in the drawn order), grey, blur, solarise. Values are clipped to [0, 1] after every
    part, as torchvision does. The blur's kernel spans H / 10 pixels, made odd (CVRL's and SimCLR's rule).

    Args:
        clips: uint8 [N, T, H, W, 3], RGB, as `decode_clips` gives them.
        augmentations: N of them.

    Returns:
        uint8 [N, T, H, W, 3], on the same device; rounded to the nearest level.

    Raises:
        InputError: the clips' shape or dtype, or the number of augmentations.
    """
    if clips.ndim != 5 or clips.shape[-1] != 3 or clips.dtype != torch.uint8:
        raise InputError(f"clips must be uint8 [N, T, H, W, 3]; got {tuple(clips.shape)}, {clips.dtype}")
    if len(augmentations) != len(clips):
        raise InputError(f"expected {len(clips)} augmentations, one for each clip; got {len(augmentations)}")
    if not clips.numel():
        return clips.clone()
    x = clips.movedim(-1, 2).float().div_(255.0)  # [N, T, 3, H, W]
    for place in range(4):
        for part, change in enumerate((_brightness, _contrast, _saturation, _hue)):
            rows = [i for i, a in enumerate(augmentations) if a.order[place] == part and _changes(a, part)]
            if rows:
                values = torch.tensor([_value(augmentations[i], part) for i in rows], device=x.device)
                x[rows] = change(x[rows], values.view(-1, 1, 1, 1, 1)).clamp_(0.0, 1.0)
    gray = [i for i, a in enumerate(augmentations) if a.gray]
    if gray:
        x[gray] = _luma(x[gray]).expand_as(x[gray])
    blurred = [i for i, a in enumerate(augmentations) if a.sigma > 0.0]
    if blurred:
        sigma = torch.tensor([augmentations[i].sigma for i in blurred], device=x.device)
        x[blurred] = _blur(x[blurred], sigma)
    solarised = [i for i, a in enumerate(augmentations) if a.solarise]
    if solarised:
        x[solarised] = torch.where(x[solarised] < 0.5, x[solarised], 1.0 - x[solarised])
    return x.mul_(255.0).round_().to(torch.uint8).movedim(2, -1).contiguous()


def _value(augmentation: Augmentation, part: int) -> float:
    return (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)[part]


def _changes(augmentation: Augmentation, part: int) -> bool:
    return _value(augmentation, part) != (0.0 if part == 3 else 1.0)


def _luma(x: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, device=x.device).view(1, 1, 3, 1, 1)
    return (x * weights).sum(2, keepdim=True)


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return x * factor


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    # The mean of the whole clip, not of each frame: one change for all frames.
    mean = _luma(x).mean((1, 2, 3, 4), keepdim=True)
    return torch.lerp(mean, x, factor)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_luma(x), x, factor)


def _hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue in HSV, value and saturation kept: each channel again from hue' = hue + turns."""
    value, low = x.amax(2, keepdim=True), x.amin(2, keepdim=True)
    chroma = value - low
    red, green, blue = x.split(1, dim=2)
    spread = chroma.clamp(min=1e-8)
    hue = torch.where(
        value == red,
        (green - blue) / spread,
        torch.where(value == green, 2.0 + (blue - red) / spread, 4.0 + (red - green) / spread),
    )
    hue = (hue / 6.0 + turns) * 6.0
    # Channel c is value - chroma * clamp(min(k, 4 - k), 0, 1) with k = (c_offset + hue) mod 6.
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = torch.remainder(offset + hue, 6.0)
        channels.append(value - chroma * torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0))
    return torch.cat(channels, dim=2)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with each clip's own sigma: [n, T, 3, H, W], reflected at the border."""
    count, frames, channels, height, width = x.shape
    radius = min(max(round(height / 20.0), 1), max(min(height, width) - 1, 0))
    if radius == 0:
        return x
    reach = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(reach**2) / (2.0 * sigma[:, None] ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)  # [n, 2 radius + 1]
    planes = x.permute(1, 2, 0, 3, 4).reshape(frames * channels, count, height, width)
    planes = F.pad(planes, (radius,) * 4, mode="reflect")
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=count)
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=count)
    out = planes.view(frames, channels, count, height, width).permute(2, 0, 1, 3, 4)
    return out
