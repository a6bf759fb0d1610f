"""Training pictures a second on one core: our pipeline against plain Pillow and torchvision.

    python -m benchmarks.loader [--rounds 12] [--out benchmarks/results/loader.json]

Both sides do the same work from the same bytes in memory: decode a JPEG, random resized crop (scale 0.5 to 1), flip,
RandAugment(2, 5) with the same operations at the same magnitudes and probabilities. Ours ends in the uint8 tensor that
a worker hands over; plain ends in the normalized float tensor that its model takes. One thread each. Time is processor
time and the least of several rounds, because other programs on the machine only ever add to it; the sides take turns.
"""

import argparse
import io
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

if __name__ == "__main__":
    from settings.interrupts import exit_on_interrupt

    exit_on_interrupt()

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageOps, features
from torchvision.transforms import functional as TF

from benchmarks.measurement import machine, save, writable
from data.media.image_file import ImageFile
from files import REPOSITORY
from settings.flags import Parser, at_least
from transform.image import MEAN, STD, EvalTransform, TrainTransform, random_crop, resize
from transform.randaugment import OPERATIONS

SIZES = [(640, 480), (1600, 1200)]
TARGETS = [224, 384]
QUALITIES = [75, 90]  # as most programs write them, and as COCO has them: 80 and 150 kB at 640x480
MIN_SCALE = 0.5
GRAY = (128, 128, 128)


def synthetic_photo(width: int, height: int, quality: int, seed: int) -> bytes:
    """A JPEG with the 1/f spectrum and the correlated colors of photographs."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    amplitude = 1 / frequency**1.2
    layers = []
    for _ in range(4):  # brightness, and a little of each color
        phase = np.exp(2j * np.pi * rng.random(frequency.shape))
        layer = np.fft.irfft2(amplitude * phase, s=(height, width))
        layers.append(layer / layer.std())
    pixels = 120 + 50 * layers[0][..., None] + 20 * np.stack(layers[1:], -1)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def plain(data: bytes, size: int, rng: np.random.Generator) -> torch.Tensor:
    """JPEG -> float32 [3, S, S], the textbook way."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image = image.crop(random_crop(*image.size, MIN_SCALE, rng)).resize((size, size), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return TF.normalize(TF.to_tensor(plain_augment(image, rng)), list(MEAN), list(STD))


def plain_operation(name: str, image: Image.Image, magnitude: float) -> Image.Image:
    """The operation `name` of RandAugment by Pillow. Brightness and Sharpness do nothing at level 5, on both sides."""
    match name:
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "ShearX":
            return plain_move(image, (1, -magnitude, 0, 0, 1, 0), Image.Resampling.BILINEAR)
        case "ShearY":
            return plain_move(image, (1, 0, 0, -magnitude, 1, 0), Image.Resampling.BILINEAR)
        case "TranslateX":
            return plain_move(image, (1, 0, magnitude, 0, 1, 0), Image.Resampling.NEAREST)
        case "TranslateY":
            return plain_move(image, (1, 0, 0, 0, 1, magnitude), Image.Resampling.NEAREST)
        case "Rotate":
            return image.rotate(-magnitude, Image.Resampling.BILINEAR, fillcolor=GRAY)
        case _:
            return image


def plain_move(image: Image.Image, source: tuple[float, ...], resampling: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, source, resampling, fillcolor=GRAY)


def plain_augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    names = list(OPERATIONS)
    for index in rng.choice(len(names), 2):
        if rng.random() > 0.5:
            continue
        operation = OPERATIONS[names[index]]
        sign = -1 if operation.signed and rng.random() > 0.5 else 1
        image = plain_operation(names[index], image, sign * operation.magnitude(5) if operation.magnitude else 0)
    return image


def milliseconds(sides: dict[str, Callable[[int], object]], rounds: int, draws: int) -> dict[str, float]:
    """Least over rounds of each side's mean processor time for the samples 0 .. draws - 1, in turns."""
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.process_time()
            for sample in range(draws):
                run(sample)
            times[name].append((time.process_time() - start) / draws * 1e3)
    return {name: round(min(each), 3) for name, each in times.items()}


def measure(width: int, height: int, quality: int, size: int, rounds: int, draws: int) -> dict[str, Any]:
    photos = [synthetic_photo(width, height, quality, seed) for seed in range(8)]
    ours = TrainTransform(size, MIN_SCALE)
    plain_picture = Image.open(io.BytesIO(photos[0])).convert("RGB").resize((size, size))
    our_picture = torch.from_numpy(np.array(plain_picture)).permute(2, 0, 1).contiguous()

    def photo(sample: int) -> bytes:
        return photos[sample % len(photos)]

    def rng(sample: int) -> np.random.Generator:
        return np.random.default_rng((0, sample))

    def our_decoding(sample: int) -> Image.Image:
        return ImageFile(photo(sample)).region(random_crop(width, height, MIN_SCALE, rng(sample)), (size, size))

    total = milliseconds(
        {
            "plain": lambda sample: plain(photo(sample), size, rng(sample)),
            "ours": lambda sample: ours(ImageFile(photo(sample)), rng(sample)),
        },
        rounds,
        draws,
    )
    parts = milliseconds(
        {
            "plain_decode": lambda sample: Image.open(io.BytesIO(photo(sample))).convert("RGB"),
            "plain_augment": lambda sample: plain_augment(plain_picture, rng(sample)),
            "ours_decode": our_decoding,
            "ours_augment": lambda sample: ours.augment(our_picture, rng(sample)),
        },
        max(rounds // 2, 1),
        draws,
    )
    return {
        "jpeg": f"{width}x{height}",
        "jpeg_quality": quality,
        "jpeg_kilobytes": round(sum(map(len, photos)) / len(photos) / 1e3),
        "target": size,
        "images_per_second": {side: round(1e3 / total[side]) for side in total},
        "ratio": round(total["plain"] / total["ours"], 2),
        "milliseconds": {
            side: {
                "total": total[side],
                "decode": parts[f"{side}_decode"],
                "augment": parts[f"{side}_augment"],
                "crop_resize_flip_to_tensor": round(
                    total[side] - parts[f"{side}_decode"] - parts[f"{side}_augment"], 3
                ),
            }
            for side in total
        },
        "difference_in_gray_levels": differences(photos, width, height, size),
    }


def differences(photos: list[bytes], width: int, height: int, size: int) -> dict[str, dict[str, float]]:
    """Our resize of a crop against Pillow's: of the same pixels, and after decoding at the scale the crop allows."""
    errors = {"same_pixels": [], "as_decoded": []}
    for seed, data in enumerate(photos):
        edges = random_crop(width, height, MIN_SCALE, np.random.default_rng(seed))
        left, top, right, bottom = (8 * (edge // 8) for edge in edges)  # on the grid of every reduced scale
        box = left, top, right, bottom
        crop = ImageFile(data).read().crop(box)
        expected = EvalTransform(size)(crop).int()
        reduced = ImageFile(data).region(box, (size, size))
        errors["same_pixels"].append((resize(crop, size) - expected).abs())
        errors["as_decoded"].append((resize(reduced, size) - expected).abs())
    stacked = {name: torch.stack(each).float() for name, each in errors.items()}
    return {name: {"mean": round(e.mean().item(), 4), "largest": int(e.max())} for name, e in stacked.items()}


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(1), default=12)
    parser.add_argument(
        "--draws", type=at_least(1), default=200, help="samples a round: each is its own crop and augmentation"
    )
    parser.add_argument("--out", type=writable, default=REPOSITORY / "benchmarks/results/loader.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for (width, height), size, quality in itertools.product(SIZES, TARGETS, QUALITIES):
        results.append(measure(width, height, quality, size, args.rounds, args.draws))
        print(json.dumps(results[-1], indent=1))
    libraries = {
        "torchvision": torchvision.__version__,
        "pillow": PIL.__version__,
        "libjpeg_turbo": features.version_feature("libjpeg_turbo"),
    }
    save(args.out, {"machine": machine() | libraries, "results": results})


if __name__ == "__main__":
    main()
