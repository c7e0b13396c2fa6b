"""A stem for R3D that sees motion without training: spatio-temporal motion energy and flow templates.

Four steps, each a convolution with computed weights and a pointwise non-linearity:

1. colour: luminance and two opponent signals, so that an object as bright as its background is seen too;
2. motion energy (Adelson and Bergen 1985): Gabor filters in space, one quadrature pair for each of 4
   orientations, then a quadrature pair in time; their sums and differences prefer one *direction* each (8 in
   all, 2 temporal frequencies). The sum of squares of a quadrature pair is the energy: it depends neither on
   the phase of the pattern nor on whether it is bright or dark. The same filters run on the half-size frame
   for faster motion of larger patterns;
3. divisive normalisation by the local energy of all directions (Heeger 1992): contrast cancels;
4. flow templates (as in cortical area MST, Duffy and Wurtz 1991): opponent energies form a local motion
   vector, of which two scales of derivatives give expansion / contraction and rotation in both senses, each
   half-wave rectified.

Space and time are filtered one after the other, a (2+1)D factorisation that costs a tenth of dense 7 x 9 x 9
kernels. The weights are ordinary parameters: frozen in a frozen backbone, a starting point where one trains
it.

Legend: `N` clips, `T` frames, `H` x `W` pixels; `E` energies, `F` time steps, `h` x `w` positions.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["MotionEnergyStem"]

ORIENTATIONS = 4
PERIODS = (4.0, 8.0)  # of the temporal filters, in frames; with the wavelengths below .75 to 3 pixels a frame
WAVELENGTH = 6.0  # of the spatial filters, in pixels of the full frame (12 on the half-size one)
SPATIAL_TAPS, SPATIAL_SIGMA = 9, 2.7
TEMPORAL_TAPS, TEMPORAL_SIGMA = 7, 1.8
TEMPLATE_SIGMAS = (1.0, 2.0)  # of the flow derivatives, in positions of the grid (4 or 8 pixels)
SEMI_SATURATION = 0.4  # energy at which normalisation sets in; noise of 1.5% of the range gives about .006
CELL = 4  # pixels of a position of the grid; the energy is band-limited to this by the Gabor envelope

# rows: luminance, red-green, blue-yellow, of red, green, blue
_COLOUR = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (-0.25, -0.25, 0.5))


class MotionEnergyStem(nn.Module):
    """Normalised pixels float [N, 3, T, H, W] -> non-negative motion channels [N, 64, T - 6, H/4, W/4].

    Channels: per scale (fine, coarse) 16 normalised energies, then 8 positive and 8 negative halves of the
    templates. T must be at least 7, H and W at least 32 and multiples of 4.
    """

    out_channels = 2 * (len(PERIODS) * ORIENTATIONS * 2 + len(PERIODS) * 2 * len(TEMPLATE_SIGMAS) * 2)
    min_frames = TEMPORAL_TAPS
    min_size = 32  # below it the coarse filters see little but the border
    size_multiple = CELL

    _pair_sum: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        energies, flow = len(PERIODS) * ORIENTATIONS * 2, len(PERIODS) * 2
        self.spatial = nn.Conv3d(
            3, len(_COLOUR) * 2 * ORIENTATIONS, (1, SPATIAL_TAPS, SPATIAL_TAPS), bias=False
        )
        self.temporal = nn.Conv3d(2 * ORIENTATIONS, 2 * energies, (TEMPORAL_TAPS, 1, 1), bias=False)
        self.flow = nn.Conv3d(energies, flow, 1, bias=False)
        self.templates = nn.ModuleList(
            nn.Conv3d(flow, flow, (1, taps, taps), padding=(0, taps // 2, taps // 2), bias=False)
            for taps in map(_template_taps, TEMPLATE_SIGMAS)
        )
        # which squares make an energy: by definition, not by weights
        pair_sum = torch.eye(energies).repeat_interleave(2, dim=1).repeat(1, len(_COLOUR))
        self.register_buffer("_pair_sum", pair_sum[..., None, None, None], persistent=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the computed weights: multiples of 2^-16, so that every mathematics library gives the same."""
        _assign(self.spatial, spatial_weights())
        _assign(self.temporal, temporal_weights())
        _assign(self.flow, flow_weights())
        for conv, sigma in zip(self.templates, TEMPLATE_SIGMAS, strict=True):
            assert isinstance(conv, nn.Conv3d)
            _assign(conv, template_weights(sigma))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        half = F.avg_pool3d(pixels, (1, 2, 2))
        both = torch.cat([self._filter(pixels, stride=CELL), self._filter(half, stride=CELL // 2)])
        # colours go into the batch: a grouped convolution takes three times as long (1.2 against .4 ms a
        # clip, one core of an EPYC with AVX512_BF16, torch 2.13, November 2026)
        colours = both.reshape(-1, self.temporal.in_channels, *both.shape[2:])
        moving = self.temporal(colours)
        squares = moving.square().reshape(both.shape[0], -1, *moving.shape[2:])
        energy = F.conv3d(squares, self._pair_sum)
        energy = energy / (_local_mean(energy) + SEMI_SATURATION)
        flow = self.flow(energy)
        patterns = torch.cat([template(flow) for template in self.templates], dim=1)
        fine, coarse = torch.cat([energy, patterns.relu(), (-patterns).relu()], dim=1).chunk(2)
        return torch.cat([fine, coarse], dim=1)

    def _filter(self, pixels: torch.Tensor, *, stride: int) -> torch.Tensor:
        margin = SPATIAL_TAPS // 2
        return F.conv3d(pixels, self.spatial.weight, stride=(1, stride, stride), padding=(0, margin, margin))


def _local_mean(energy: torch.Tensor) -> torch.Tensor:
    """Mean over the channels and 5 x 5 positions around each: [N, E, F, h, w] -> [N, 1, F, h, w]."""
    mean = energy.mean(dim=1, keepdim=True)
    mean = F.avg_pool3d(mean, (1, 5, 5), stride=1, padding=(0, 2, 2), count_include_pad=False)
    return mean.to(energy.dtype)  # autocast pools in float32, and all that follows would be float32 too


def spatial_weights() -> torch.Tensor:
    """float64 [colour * orientation * (even, odd), 3, 1, taps, taps]: Gabor pairs, zero for a constant."""
    radius = SPATIAL_TAPS // 2
    y, x = torch.meshgrid(*[torch.arange(-radius, radius + 1, dtype=torch.float64)] * 2, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * SPATIAL_SIGMA**2))
    filters = []
    for angle in _angles():
        phase = 2 * math.pi / WAVELENGTH * (math.cos(angle) * x + math.sin(angle) * y)
        filters += [_without_mean(envelope * torch.cos(phase), envelope), envelope * torch.sin(phase)]
    bank = torch.stack([f / f.norm() for f in filters])
    colour = torch.tensor(_COLOUR, dtype=torch.float64)
    return torch.einsum("cr,oyx->coryx", colour, bank).flatten(0, 1).unsqueeze(2)


def temporal_weights() -> torch.Tensor:
    """float64 [period * orientation * (forth, back) * (cos, sin), orientation * (even, odd), taps, 1, 1].

    A pattern that moves forth is `cos(kx - wt) = cos kx cos wt + sin kx sin wt`, its quadrature partner
    `sin(kx - wt) = sin kx cos wt - cos kx sin wt`; for one that moves back the sign of w is the other.
    """
    radius = TEMPORAL_TAPS // 2
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    envelope = torch.exp(-(t**2) / (2 * TEMPORAL_SIGMA**2))
    weights = torch.zeros(
        len(PERIODS), ORIENTATIONS, 2, 2, ORIENTATIONS, 2, TEMPORAL_TAPS, dtype=torch.float64
    )
    for i, period in enumerate(PERIODS):
        phase = 2 * math.pi / period * t
        even = _without_mean(envelope * torch.cos(phase), envelope)
        odd = envelope * torch.sin(phase)
        even, odd = even / even.norm(), odd / odd.norm()
        for o in range(ORIENTATIONS):
            for direction, sign in enumerate((1, -1)):
                weights[i, o, direction, 0, o] = torch.stack([even, sign * odd])
                weights[i, o, direction, 1, o] = torch.stack([-sign * odd, even])
    return weights.flatten(4, 5).flatten(0, 3)[..., None, None]


def flow_weights() -> torch.Tensor:
    """float64 [period * (x, y), energies, 1, 1, 1]: opponent energies (forth - back) as a motion vector."""
    weights = torch.zeros(len(PERIODS), 2, len(PERIODS), ORIENTATIONS, 2, dtype=torch.float64)
    for i in range(len(PERIODS)):
        for o, angle in enumerate(_angles()):
            axis = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
            weights[i, :, i, o] = torch.stack([axis, -axis], dim=1)
    return weights.flatten(2, 4).flatten(0, 1)[..., None, None, None]


def template_weights(sigma: float) -> torch.Tensor:
    """float64 [period * (divergence, curl), period * (x, y), 1, taps, taps] by derivatives of a Gaussian."""
    radius = _template_taps(sigma) // 2
    r = torch.arange(-radius, radius + 1, dtype=torch.float64)
    smooth = torch.exp(-(r**2) / (2 * sigma**2))
    derive = sigma * r * smooth / (r**2 * smooth).sum()
    smooth = smooth / smooth.sum()
    ddx, ddy = torch.outer(smooth, derive), torch.outer(derive, smooth)
    weights = torch.zeros(len(PERIODS), 2, len(PERIODS), 2, *ddx.shape, dtype=torch.float64)
    for i in range(len(PERIODS)):
        weights[i, 0, i] = torch.stack([ddx, ddy])
        weights[i, 1, i] = torch.stack([-ddy, ddx])
    return weights.flatten(2, 3).flatten(0, 1).unsqueeze(2)


def _angles() -> list[float]:
    return [math.pi * o / ORIENTATIONS for o in range(ORIENTATIONS)]


def _template_taps(sigma: float) -> int:
    return 2 * int(2.5 * sigma + 0.5) + 1


def _without_mean(kernel: torch.Tensor, envelope: torch.Tensor) -> torch.Tensor:
    return kernel - envelope * (kernel.sum() / envelope.sum())


def _assign(conv: nn.Conv3d, weight: torch.Tensor) -> None:
    conv.weight.copy_(torch.round(weight * 2**16) / 2**16)
