"""Scaling of features: robust, clipped, weighted by what the training part knows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Array = npt.NDArray[Any]
Reals = npt.NDArray[np.float64]

BLOCK = 2**20  # entries that are converted at a time: a few MB, in the caches of most processors
NORMAL_IQR = 1.349  # interquartile range of the normal distribution, in standard deviations
LARGEST = 1e6  # deviations; keeps the square of a scaled feature finite in float32


class FeatureScaling(nn.Module):
    """Scale each feature, clip it smoothly, and multiply it with its weight.

    z = (x - center) / scale, output = weight z / sqrt(1 + (z / clip)^2). A missing value (NaN)
    becomes 0, as if it were the center. Computed in the dtype of the input, returned in float32.

    Args:
        center: (features,) float64.
        inverse_scale: (features,) float64; 0 where a feature is constant, which makes it 0.
        weight: (features,) float64.
        clip: in deviations; infinity leaves z as it is.

    Shape: input and output (*, features).
    """

    center: Tensor
    inverse_scale: Tensor
    weight: Tensor

    def __init__(self, center: Reals, inverse_scale: Reals, weight: Reals, clip: float) -> None:
        super().__init__()
        self.register_buffer("center", torch.from_numpy(center))
        self.register_buffer("inverse_scale", torch.from_numpy(inverse_scale))
        self.register_buffer("weight", torch.from_numpy(weight))
        self.clip = clip

    def forward(self, input: Tensor) -> Tensor:
        """Scale a table, or one sample."""
        dtype = input.dtype if input.is_floating_point() else torch.float64
        z = input.to(dtype, copy=True).sub_(self.center.to(dtype))
        z = self._clipped(z.mul_(self.inverse_scale.to(dtype)))
        return z.mul_(self.weight.to(dtype)).float()

    def stored(self, values: Array, columns: Array) -> npt.NDArray[np.float32]:
        """Scale the stored entries of a sparse table, which is not centred: zeros stay zero."""
        index = torch.from_numpy(columns.astype(np.int64, copy=False))
        z = torch.from_numpy(values.astype(np.float64)).mul_(self.inverse_scale[index])
        scaled: npt.NDArray[np.float32] = (
            self._clipped(z).mul_(self.weight[index]).to(torch.float32).numpy()
        )
        return scaled

    def _clipped(self, z: Tensor) -> Tensor:
        """Clip in place."""
        z.nan_to_num_(nan=0.0).clamp_(-LARGEST, LARGEST)
        return z if self.clip == math.inf else z.div_((z / self.clip).square_().add_(1).sqrt_())


def robust_center_and_scale(table: Array) -> tuple[Reals, Reals]:
    """Return median and 1 / deviation of each feature of a dense table (samples, features).

    The deviation is the interquartile range / 1.349, as for a normal distribution; where that is 0,
    the standard deviation; where both are, the feature is constant and the inverse is 0. Missing
    values are left out. O(samples features) time, a few MB of memory.
    """
    features = table.shape[1]
    center, inverse = np.zeros(features), np.zeros(features)
    step = max(1, BLOCK // max(1, len(table)))
    for start in range(0, features, step):
        part = slice(start, start + step)
        block = np.array(table[:, part], dtype=np.float64)
        quantiles = np.nanquantile if np.isnan(block).any() else np.quantile
        present = ~np.isnan(block).all(axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            low, middle, high = quantiles(block[:, present], (0.25, 0.5, 0.75), axis=0)
            spread = (high - low) / NORMAL_IQR
            flat = ~(spread > 0)
            spread[flat] = np.nanstd(block[:, present][:, flat], axis=0)
        center[part][present] = middle
        inverse[part][present] = _inverse(spread)
    return center, inverse


def sparse_scale(table: Any) -> Reals:
    """Return 1 / standard deviation of each feature of a SciPy CSR table, in O(nnz) time."""
    samples, features = table.shape
    values = np.nan_to_num(table.data.astype(np.float64))
    total = np.bincount(table.indices, weights=values, minlength=features)
    squares = np.bincount(table.indices, weights=values**2, minlength=features)
    variance = squares / samples - (total / samples) ** 2
    variance[variance < 1e-12 * squares / samples] = 0  # rounding of a constant column
    return _inverse(np.sqrt(variance))


def _inverse(scale: Reals) -> Reals:
    usable = (scale > 0) & np.isfinite(scale)
    inverse: Reals = np.where(usable, 1 / np.where(usable, scale, 1.0), 0.0)
    return np.where(np.isfinite(inverse), inverse, 0.0)


def feature_weights(statistic: Reals, exponent: float, floor: float) -> Reals:
    """Return max(statistic, floor)^exponent for each feature, scaled to a mean square of 1."""
    weight: Reals = np.maximum(statistic, floor) ** exponent
    root = np.sqrt((weight**2).mean()) if len(weight) else 1.0
    return weight / root
