"""RandAugment (arXiv 1909.13719) with BLIP's settings: two operations of level 5, each applied with probability 0.5.

The operations, their magnitudes and their order of random draws are those of the 2022 recipe, which used OpenCV on
numpy arrays; `tests/golden/randaugment` holds its results. Here they are tensor operations on uint8 [3, H, W]. Three
facts to know before tuning them:

- At level 5 Brightness and Sharpness have factor 1.0 and change nothing.
- AutoContrast whitens a channel whose darkest value is not 0 (the recipe negates an unsigned byte, and -15 becomes
  241). Models were trained and compared under it, so it stays.
- Sharpness wraps around instead of saturating, which shows at other levels only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

FILL = 128  # gray, where an operation shows what lies outside of the picture
MAX_LEVEL = 10


def identity(image: torch.Tensor) -> torch.Tensor:
    return image


def auto_contrast(image: torch.Tensor) -> torch.Tensor:
    """Stretch each channel so that its brightest value becomes 255; what it does to the darkest is said above."""
    darkest, brightest = image.amin((1, 2)).tolist(), image.amax((1, 2)).tolist()
    levels = torch.arange(256.0)
    tables: list[torch.Tensor] = []
    for low, high in zip(darkest, brightest, strict=True):
        if low == high:
            tables.append(levels)
        else:
            scale = 255 / (high - low)
            tables.append(levels * scale + (-low % 256) * scale)
    return _look_up(image, torch.stack(tables))


def equalize(image: torch.Tensor) -> torch.Tensor:
    """Spread the values of each channel evenly over 0..255, by its histogram (as Pillow's `ImageOps.equalize`)."""
    tables: list[torch.Tensor] = []
    for channel in image:
        histogram = torch.bincount(channel.flatten(), minlength=256)
        step = (channel.numel() - histogram[histogram.nonzero()[-1]]) // 255
        below = histogram.cumsum(0) - histogram
        tables.append((below + step // 2) // step if step > 0 else torch.arange(256))
    return _look_up(image, torch.stack(tables))


def brightness(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Every value times `factor`, saturating."""
    return image if factor == 1 else _look_up(image, (torch.arange(256.0) * factor).expand(3, 256))


def sharpness(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Move the picture away from its 3x3 blur (`factor` > 1) or toward it; the outermost pixels stay."""
    if factor == 1 or min(image.shape[1:]) < 3:
        return image
    kernel = torch.ones(3, 1, 3, 3)
    kernel[:, :, 1, 1] = 5
    blurred = (F.conv2d(image.float(), kernel, groups=3) / 13).round()  # [3, H-2, W-2]
    sharpened = image.clone()
    interior = sharpened[:, 1:-1, 1:-1]
    interior.copy_((blurred + factor * (interior - blurred)).to(torch.int32) & 255)
    return sharpened


def shear_x(image: torch.Tensor, shear: float) -> torch.Tensor:
    """Row y moves right by `shear * y` pixels."""
    return _shear(image, shear)


def shear_y(image: torch.Tensor, shear: float) -> torch.Tensor:
    """Column x moves down by `shear * x` pixels."""
    return _shear(image.transpose(1, 2), shear).transpose(1, 2)


def translate_x(image: torch.Tensor, pixels: float) -> torch.Tensor:
    """The picture moves left by `pixels`, rounded to whole ones."""
    return _shift(image, round(pixels))


def translate_y(image: torch.Tensor, pixels: float) -> torch.Tensor:
    """The picture moves up by `pixels`, rounded to whole ones."""
    return _shift(image.transpose(1, 2), round(pixels)).transpose(1, 2)


def rotate(image: torch.Tensor, degrees: float) -> torch.Tensor:
    """Rotate clockwise about (W / 2, H / 2)."""
    _, height, width = image.shape
    x, y = width / 2, height / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _warp(image, ((cos, sin, x - cos * x - sin * y), (-sin, cos, y + sin * x - cos * y)))


def _look_up(image: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """Map the values of each channel of `image` [3, H, W] by its row of `tables` [3, 256]."""
    tables = tables.clamp(0, 255).to(torch.uint8)
    channels = [table.index_select(0, channel.flatten().int()) for channel, table in zip(image, tables, strict=True)]
    return torch.stack(channels).view(image.shape)


def _shift(image: torch.Tensor, pixels: int) -> torch.Tensor:
    """Move the picture left by `pixels` (right where negative) along the last dimension."""
    shifted = torch.full_like(image, FILL)
    kept = max(image.shape[-1] - abs(pixels), 0)
    from_, to = (pixels, 0) if pixels > 0 else (0, -pixels)
    shifted.narrow(-1, min(to, image.shape[-1]), kept).copy_(image.narrow(-1, min(from_, image.shape[-1]), kept))
    return shifted


def _shear(image: torch.Tensor, shear: float) -> torch.Tensor:
    """Row y moves by `shear * y` along the last dimension, blended in steps of 1/32 as by OpenCV.

    Rows that move by the same whole number of pixels are copied at once: a quarter of the time that `_warp` takes.
    """
    source = image.numpy()
    channels, height, width = source.shape
    position = -shear * np.arange(height)  # of the input pixel that appears at column 0
    whole = np.floor(position).astype(int)
    pixels = np.full((channels, height, width + 1), FILL, np.uint8)  # each result lies between one and the next
    for run in np.split(np.arange(height), np.flatnonzero(np.diff(whole)) + 1):
        first, rows = whole[run[0]], slice(run[0], run[-1] + 1)
        begin, end = max(-first, 0), min(width - first, width + 1)
        if begin < end:
            pixels[:, rows, begin:end] = source[:, rows, begin + first : end + first]
    weight = torch.from_numpy(np.rint((position - whole) * 32).astype(np.int16))[:, None]
    wide = torch.from_numpy(pixels).to(torch.int16)
    near, far = wide[..., :-1], wide[..., 1:]
    return (far - near).mul_(weight).add_(16).bitwise_right_shift_(5).add_(near).to(torch.uint8)


def _warp(image: torch.Tensor, source: tuple[tuple[float, ...], tuple[float, ...]]) -> torch.Tensor:
    """Bilinear resampling: output pixel (x, y) shows the input at `source @ (x, y, 1)`.

    The picture is shifted so that gray is 0: zero padding then is the fill, blended at the edges as OpenCV does. At 384
    this takes a quarter of the time of torchvision's `affine`, which carries the fill as a fourth channel.
    """
    grid = _grid(image.shape[1], image.shape[2], source)
    centered = image.float().sub_(FILL)[None]
    warped = F.grid_sample(centered, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    return warped.add_(FILL + 0.5).to(torch.int16).to(torch.uint8)  # by way of int16: a direct cast is 4 times slower


@lru_cache(maxsize=4)
def _grid(height: int, width: int, source: tuple[tuple[float, ...], tuple[float, ...]]) -> torch.Tensor:
    """Where each output pixel looks, for `grid_sample`: float32 [1, H, W, 2].

    Kept, because one level and size have two of them, a rotation to the left and one to the right, and making one takes
    up to half of the time of `_warp`.
    """
    x, y = torch.arange(width), torch.arange(height)[:, None]
    grid = torch.empty(1, height, width, 2)
    for axis, (size, (a, b, c)) in enumerate(zip((width, height), source, strict=True)):
        unit = 2 / size  # `grid_sample` counts from -1 to 1 and from edge to edge, so pixel 0 lies half a pixel inside
        torch.add(a * unit * x + ((c + 0.5) * unit - 1), b * unit * y, out=grid[0, ..., axis])
    return grid


@dataclass(frozen=True)
class Operation:
    """`apply(image)`, or `apply(image, magnitude(level))`, of a random sign if `signed`."""

    apply: Callable[..., torch.Tensor]
    magnitude: Callable[[int], float] | None = None
    signed: bool = False


def _linear(largest: float) -> Callable[[int], float]:
    """The magnitude that grows with the level up to `largest`."""
    return lambda level: level / MAX_LEVEL * largest


def _enhancement(level: int) -> float:
    return level / MAX_LEVEL * 1.8 + 0.1


OPERATIONS = {
    "Identity": Operation(identity),
    "AutoContrast": Operation(auto_contrast),
    "Brightness": Operation(brightness, _enhancement),
    "Sharpness": Operation(sharpness, _enhancement),
    "Equalize": Operation(equalize),
    "ShearX": Operation(shear_x, _linear(0.3), signed=True),
    "ShearY": Operation(shear_y, _linear(0.3), signed=True),
    "TranslateX": Operation(translate_x, _linear(10), signed=True),
    "TranslateY": Operation(translate_y, _linear(10), signed=True),
    "Rotate": Operation(rotate, _linear(30), signed=True),
}


class RandAugment:
    """`RandAugment(2, 5)(image uint8 [3, H, W], rng) -> uint8 [3, H, W]`; every random draw comes from `rng`.

    `np.random.RandomState(s)` as `rng` chooses what the 2022 code chose after `np.random.seed(s)`.
    """

    def __init__(self, num_ops: int, level: int, probability: float = 0.5) -> None:
        if not 0 <= level <= MAX_LEVEL:
            raise ValueError(f"RandAugment level is {level}; it lies in 0..{MAX_LEVEL}")
        self.num_ops, self.level, self.probability = num_ops, level, probability

    def __call__(self, image: torch.Tensor, rng: np.random.Generator | np.random.RandomState) -> torch.Tensor:
        operations = list(OPERATIONS.values())
        for index in rng.choice(len(operations), self.num_ops):
            if rng.random() > self.probability:
                continue
            operation = operations[index]
            if operation.magnitude is None:
                image = operation.apply(image)
                continue
            sign = -1 if operation.signed and rng.random() > 0.5 else 1
            image = operation.apply(image, sign * operation.magnitude(self.level))
        return image
