"""Pictures to model input: the evaluation and the training transform, and the normalization, which runs on the device.

    batch = torch.stack([EvalTransform(384)(image) for image in images])   # uint8 [B, 3, 384, 384], in loader workers
    model(normalize(batch.to(device)))                                     # float32, a quarter of the bytes copied

Evaluation resizes with Pillow, because published numbers were made so. In training Pillow's resize would be the largest
cost of a loader worker; torch's antialiased bicubic on uint8 takes a fifth of the time and differs by its rounding
between the two passes: 0.1 gray levels in the mean (`benchmarks/jobs/loader.py`).
"""

import math
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from models.pixels import STANDARD, Pixels
from transform.randaugment import RandAugment

Augmentation = Literal["full", "crop", "none"]

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, as Pillow has them."""


class LazyImage(Protocol):
    """A picture that is not decoded yet, so that a crop of it can be read at a reduced scale."""

    size: tuple[int, int]

    def region(self, box: Box, min_size: tuple[int, int]) -> Image.Image | np.ndarray:
        """The `box`, at its own scale or at a smaller one that gives it at least `min_size`.

        RGB, or pixels uint8 [H, W, 3], as the decoder has it.
        """
        ...


def normalize(images: torch.Tensor, pixels: Pixels = STANDARD) -> torch.Tensor:
    """uint8 [..., 3, H, W] -> float32 of the same shape and device: scaled to [0, 1], then mean and deviation.

    `pixels` are those of the model (`model.pixels`), where it may be another than the released ones' kind.
    """
    mean, std = _statistics(images.device, pixels)
    return images.to(torch.float32).div_(255).sub_(mean).div_(std)


@lru_cache
def _statistics(device: torch.device, pixels: Pixels) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation, cached on the device: a copy with each batch would wait for the device."""
    mean, std = torch.tensor([pixels.mean, pixels.std], device=device).view(2, 3, 1, 1)
    return mean, std


class EvalTransform:
    """RGB picture -> uint8 [3, S, S]: Pillow's bicubic resize to a square, whatever the aspect ratio."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def __call__(self, image: Image.Image) -> torch.Tensor:
        resized = image.resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


class TrainTransform:
    """Picture -> uint8 [3, S, S]: random resized crop, horizontal flip, RandAugment(2, 5).

    `min_scale` is the smallest share of the area that a crop may have. Every random draw comes from the generator that
    the caller passes, so a sample depends on nothing else.

    `augmentation` says how much of this is done: 'full'; 'crop', without RandAugment, for pictures whose colors matter;
    'none', the whole picture resized, for texts that a crop or a flip would make wrong ("a cup left of a plate").
    """

    def __init__(self, image_size: int, min_scale: float, augmentation: Augmentation = "full") -> None:
        self.image_size, self.min_scale, self.augmentation = image_size, min_scale, augmentation
        self.augment = RandAugment(num_ops=2, level=5)

    def __call__(self, picture: Image.Image | LazyImage, rng: np.random.Generator) -> torch.Tensor:
        """`picture`: RGB, or a file that is still to be decoded, of which only the crop is read."""
        whole = (0, 0, *picture.size)
        box = whole if self.augmentation == "none" else random_crop(*picture.size, self.min_scale, rng)
        if isinstance(picture, Image.Image):
            crop = picture.crop(box)
        else:
            crop = picture.region(box, min_size=(self.image_size, self.image_size))
        image = resize(crop, self.image_size)
        if self.augmentation != "none" and rng.random() < 0.5:
            image = image.flip(-1)
        if self.augmentation == "full":
            image = self.augment(image, rng)
        return image.contiguous()


def random_crop(
    width: int,
    height: int,
    min_scale: float,
    rng: np.random.Generator,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A box with a share of the area in (`min_scale`, 1) and an aspect ratio log-uniform in `ratio`, anywhere.

    As in the Inception recipe: after ten draws that do not fit, the largest central box of a permitted ratio.
    """
    for _ in range(10):
        area = width * height * rng.uniform(min_scale, 1)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(round(height * ratio[1]), 1))
    h = min(height, max(round(width / ratio[0]), 1))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resize(image: Image.Image | np.ndarray, image_size: int) -> torch.Tensor:
    """RGB picture, or its pixels uint8 [H, W, 3] -> uint8 [3, S, S]: antialiased bicubic, as Pillow's, but by torch."""
    size = (image_size, image_size)
    return F.interpolate(_channels_last(image)[None], size, mode="bicubic", antialias=True)[0, :3]


def _channels_last(image: Image.Image | np.ndarray) -> torch.Tensor:
    """RGB picture or its pixels -> uint8 [4 or 3, H, W], in memory as [H, W, C].

    Four channels are Pillow's own memory, where each pixel has a fourth byte: copying the other three out would take a
    fifth of the time of the resize, which is as fast on four.
    """
    if isinstance(image, np.ndarray):
        return torch.from_numpy(image).permute(2, 0, 1)
    try:
        import pyarrow  # an extra; without it the same pixels are packed

        pixels = torch.from_dlpack(pyarrow.array(image).flatten())
    except (ModuleNotFoundError, TypeError, ValueError):  # or Pillow before 11.2, or over 16 MB, which lie in pieces
        pixels = torch.from_numpy(np.array(image))
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1)
