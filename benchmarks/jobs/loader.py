"""Training pictures on one core of the processor: our pipeline against plain Pillow and torchvision.

Both sides do the same work from the same bytes in memory: decode a JPEG, random resized crop (scale 0.5 to 1), flip,
RandAugment(2, 5) with the same operations at the same magnitudes and probabilities. Ours ends in the uint8 tensor that
a worker hands over; plain ends in the normalized float tensor that its model takes.
"""

import io
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as TF

from benchmarks.comparison import Comparison
from benchmarks.context import Context
from data.media.image_file import ImageFile
from models.pixels import STANDARD
from transform.image import EvalTransform, TrainTransform, random_crop, resize
from transform.randaugment import OPERATIONS

SIZES = [(640, 480), (1600, 1200)]
QUALITIES = [75, 90]  # as most programs write them, and as COCO has them: 80 and 150 kB at 640x480
MIN_SCALE = 0.5
GRAY = (128, 128, 128)


def to_224(context: Context) -> Iterator[Comparison]:
    """As pre-training reads them."""
    return _comparisons(context, 224)


def to_384(context: Context) -> Iterator[Comparison]:
    """As fine-tuning reads them."""
    return _comparisons(context, 384)


def _comparisons(context: Context, target: int) -> Iterator[Comparison]:
    draws = 2 if context.tiny else 200  # each is its own crop and augmentation
    for (width, height), quality in itertools.product(SIZES[:1] if context.tiny else SIZES, QUALITIES):
        photos = [synthetic_photo(width, height, quality, seed) for seed in range(1 if context.tiny else 8)]
        yield _comparison(photos, width, height, quality, target, draws)


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
    return TF.normalize(TF.to_tensor(plain_augment(image, rng)), list(STANDARD.mean), list(STANDARD.std))


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


def _comparison(photos: list[bytes], width: int, height: int, quality: int, target: int, draws: int) -> Comparison:
    transform = TrainTransform(target, MIN_SCALE)
    plain_picture = Image.open(io.BytesIO(photos[0])).convert("RGB").resize((target, target))
    our_picture = torch.from_numpy(np.array(plain_picture)).permute(2, 0, 1).contiguous()
    samples = [(photos[number % len(photos)], number) for number in range(draws)]

    def rng(number: int) -> np.random.Generator:
        return np.random.default_rng((0, number))

    def decode() -> None:
        for photo, number in samples:
            box = random_crop(width, height, MIN_SCALE, rng(number))
            ImageFile(photo).region(box, (target, target))

    def augment() -> None:
        for _, number in samples:
            transform.augment(our_picture, rng(number))

    kilobytes = sum(map(len, photos)) / len(photos) / 1e3
    return Comparison(
        name=f"loader_{target}_{width}x{height}_q{quality}",
        what=f"{draws} training pictures, {width}x{height} JPEG of quality {quality} ({kilobytes:.0f} kB) "
        f"to {target} pixels",
        unit="images",
        samples={"ours": draws, "Pillow and torchvision": draws},
        ways={
            "ours": lambda: [transform(ImageFile(photo), rng(number)) for photo, number in samples],
            "Pillow and torchvision": lambda: [plain(photo, target, rng(number)) for photo, number in samples],
        },
        differences=lambda: {"Pillow and torchvision": differences(photos, width, height, target)},
        parts={"decode": decode, "augment": augment},
        tolerance=20,  # gray levels: a picture decoded at half its scale
        device=torch.device("cpu"),
    )


def differences(photos: list[bytes], width: int, height: int, size: int) -> dict[str, float]:
    """Our resize of a crop against Pillow's: of the same pixels, and after decoding at the scale the crop allows."""
    errors: dict[str, list[torch.Tensor]] = {"from the same pixels": [], "as decoded": []}
    for seed, data in enumerate(photos):
        edges = random_crop(width, height, MIN_SCALE, np.random.default_rng(seed))
        left, top, right, bottom = (8 * (edge // 8) for edge in edges)  # on the grid of every reduced scale
        box = left, top, right, bottom
        crop = ImageFile(data).read().crop(box)
        expected = EvalTransform(size)(crop).int()
        reduced = ImageFile(data).region(box, (size, size))
        errors["from the same pixels"].append((resize(crop, size) - expected).abs())
        errors["as decoded"].append((resize(reduced, size) - expected).abs())
    stacked = {name: torch.stack(each).float() for name, each in errors.items()}
    return {f"gray levels {name}": e.max().item() for name, e in stacked.items()} | {
        f"mean {name}": e.mean().item() for name, e in stacked.items()
    }
