"""JPEG pixels by simplejpeg, an extra, which decodes in less time than Pillow, and to the same pixels.

Both are libjpeg-turbo. Pillow gives each pixel a fourth byte, and takes the crop as one more copy: with both spared, a
training picture takes a tenth to a sixth less time. What simplejpeg might read otherwise than Pillow (a damaged file;
any file where Pillow has another libjpeg) is left to Pillow, so that machines without simplejpeg see the same pictures.
"""

import importlib

import numpy as np
from PIL import features

try:
    _decode = importlib.import_module("simplejpeg").decode_jpeg if features.check_feature("libjpeg_turbo") else None
except ImportError:
    _decode = None

READS_JPEG = _decode is not None
"""Whether `decode_rgb` can decode anything."""

_SMALLEST = 16  # pixels; of smaller pictures, two scales have the same size, and simplejpeg would take the lesser one


def decode_rgb(data: bytes, size: tuple[int, int], scale: int) -> np.ndarray | None:
    """A JPEG of three colors at a `scale`-th of its `size` (width, height): uint8 [H, W, 3], as Pillow decodes it.

    None where that is for Pillow to do: without simplejpeg, and of a file that is damaged, however slightly.
    """
    if _decode is None or min(size) < _SMALLEST:
        return None
    width, height = (-(-side // scale) for side in size)
    least = {"min_width": width, "min_height": height} if scale > 1 else {}
    try:
        pixels = _decode(data, colorspace="RGB", fastdct=False, fastupsample=False, strict=True, **least)
    except ValueError:
        return None
    return pixels if pixels.shape == (height, width, 3) else None
