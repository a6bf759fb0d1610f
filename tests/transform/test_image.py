"""The training and evaluation pipelines: the fixtures, known pictures, and where the randomness comes from."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from data.media.image_file import ImageFile, open_image
from models.pixels import STANDARD, Pixels
from transform.image import EvalTransform, TrainTransform, normalize, random_crop, resize


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colors with some grain, as cameras give them."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    return Image.fromarray((np.asarray(coarse) + rng.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def without_augmentation(image_size: int, min_scale: float) -> TrainTransform:
    transform = TrainTransform(image_size, min_scale)
    transform.augment.probability = 0.0
    return transform


@pytest.mark.parametrize("name", ["rgb", "gray", "rgba", "palette", "rgb_exact"])
@pytest.mark.parametrize("size", [48, 64, 96])
def test_evaluation_equals_the_fixtures(golden, name, size) -> None:
    expected = np.load(golden("image_preprocessing/expected.npz"))[f"{name}_{size}"]
    image = EvalTransform(size)(open_image(golden(f"image_preprocessing/{name}.png")))
    assert image.dtype == torch.uint8
    assert image.shape == (3, size, size)
    batch = normalize(torch.stack([image, image]))
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch[1], torch.from_numpy(expected), rtol=0, atol=1e-5)


def test_normalize_is_mean_and_deviation_in_any_batch_shape() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1, 1).expand(2, 4, 3, 2, 2)
    black, white = normalize(images)[:, 3, :, 1, 0]
    torch.testing.assert_close(black, -torch.tensor(STANDARD.mean) / torch.tensor(STANDARD.std))
    torch.testing.assert_close(white, (1 - torch.tensor(STANDARD.mean)) / torch.tensor(STANDARD.std))


def test_another_mean_and_deviation_are_those_of_the_channels():
    pixels = normalize(torch.full((3, 2, 2), 51, dtype=torch.uint8), Pixels((0.2, 0.1, 0.0), (1.0, 0.5, 0.1)))
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor([0.0, 0.2, 2.0]))


@pytest.mark.parametrize("min_scale", [0.2, 0.5])
def test_crops_have_the_stated_areas_and_ratios(min_scale: float) -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([random_crop(640, 480, min_scale, rng) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    width, height = right - left, bottom - top
    assert left.min() == top.min() == 0
    assert (right.max(), bottom.max()) == (640, 480)
    area, ratio = width * height / (640 * 480), width / height
    assert area.min() == pytest.approx(min_scale, abs=0.02)
    assert area.max() > 0.97
    assert ratio.min() == pytest.approx(3 / 4, abs=0.01)
    assert ratio.max() == pytest.approx(4 / 3, abs=0.01)
    if min_scale == 0.2:  # few draws are refused for not fitting: the ratio is log-uniform
        assert np.log(ratio).mean() == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(("size", "box"), [((1000, 100), (433, 0, 566, 100)), ((10, 900), (0, 443, 10, 456))])
def test_a_strip_is_cropped_to_the_nearest_permitted_ratio(size: tuple[int, int], box: tuple[int, ...]) -> None:
    assert random_crop(*size, 0.5, np.random.default_rng(0)) == box


def test_one_pixel_is_enough() -> None:
    assert random_crop(1, 1, 0.2, np.random.default_rng(0)) == (0, 0, 1, 1)
    image = TrainTransform(16, 0.5)(Image.new("RGB", (1, 1), (9, 9, 9)), np.random.default_rng(0))
    assert image.shape == (3, 16, 16)


def test_half_of_the_pictures_are_flipped_and_the_crop_is_where_it_was_drawn() -> None:
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(100), np.arange(100)[:, None]  # red tells x, green tells y
    transform, flips = without_augmentation(50, 0.5), 0
    for seed in range(200):
        left, top, right, bottom = random_crop(100, 100, 0.5, np.random.default_rng(seed))
        red, green, _ = transform(Image.fromarray(ramp), np.random.default_rng(seed)).float()
        flipped = bool(red[0, 0] > red[0, -1])
        flips += flipped
        x = left + (torch.arange(50) + 0.5) / 50 * (right - left) - 0.5
        y = top + (torch.arange(50) + 0.5) / 50 * (bottom - top) - 0.5
        inside = slice(3, -3)  # at the edges a resize has nothing to interpolate with
        expected_x = (x.flip(0) if flipped else x)[inside].expand(44, 44)
        torch.testing.assert_close(red[inside, inside], expected_x, rtol=0, atol=1)
        torch.testing.assert_close(green[inside, inside], y[inside, None].expand(44, 44), rtol=0, atol=1)
    assert 75 < flips < 125


@pytest.mark.parametrize("size", [224, 384])
def test_the_fast_resize_is_that_of_pillow_but_for_rounding(size: int) -> None:
    image = photo(640, 480)
    for seed in range(5):
        crop = image.crop(random_crop(640, 480, 0.5, np.random.default_rng(seed)))
        error = (resize(crop, size).int() - EvalTransform(size)(crop).int()).abs()
        assert error.max() <= 2
        assert (error > 1).float().mean() < 1e-4
        assert error.float().mean() < 0.3


def test_a_picture_of_several_memory_blocks_is_resized_like_any_other() -> None:
    image = photo(2400, 2000)  # 19 MB in Pillow
    with pytest.raises(ValueError, match="contiguous|block"):
        image.__arrow_c_array__()
    assert (resize(image, 96).int() - EvalTransform(96)(image).int()).abs().max() <= 2


def test_a_reduced_decoding_shows_the_same_crop() -> None:
    data = jpeg(photo(1600, 1200))
    transform = without_augmentation(224, 0.2)
    for seed in range(10):
        reduced = transform(ImageFile(data), np.random.default_rng(seed)).float()
        full = transform(open_image(data), np.random.default_rng(seed)).float()
        assert (reduced - full).abs().mean() < 1.5


def test_one_generator_state_gives_one_picture_and_no_global_state_moves() -> None:
    data = jpeg(photo(320, 240))
    transform = TrainTransform(96, 0.2)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    first, second = (
        [transform(ImageFile(data), np.random.default_rng((7, epoch, 3))) for epoch in range(6)] for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(first[0], other) for other in first[1:])
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


def test_training_pictures_are_contiguous_bytes() -> None:
    for seed in range(20):
        image = TrainTransform(64, 0.5)(photo(100, 80), np.random.default_rng(seed))
        assert (image.dtype, image.shape) == (torch.uint8, (3, 64, 64))
        assert image.is_contiguous()


def test_augmentation_is_applied_as_often_as_the_recipe_says() -> None:
    image = Image.new("RGB", (64, 64), (200, 100, 50))
    changed = sum(
        bool(
            (
                TrainTransform(32, 0.5)(image, np.random.default_rng(seed))
                != torch.tensor([200, 100, 50]).view(3, 1, 1)
            ).any()
        )
        for seed in range(1000)
    )
    # of a flat picture only the five moves show (and equalising or stretching leaves it alone): 1 - (1 - 0.5 * 0.5)**2
    assert changed / 1000 == pytest.approx(1 - (1 - 0.25) ** 2, abs=4 * math.sqrt(0.44 * 0.56 / 1000))


def halves() -> Image.Image:
    """Left half red, right half blue, both with a channel that is never 0: AutoContrast would change them."""
    pixels = np.full((40, 40, 3), 60, dtype=np.uint8)
    pixels[:, :20, 0] = pixels[:, 20:, 2] = 200
    return Image.fromarray(pixels)


def test_no_augmentation_leaves_the_whole_picture_whatever_is_drawn() -> None:
    transform = TrainTransform(20, 0.2, "none")
    whole = resize(halves(), 20)
    for seed in range(20):
        torch.testing.assert_close(transform(halves(), np.random.default_rng(seed)), whole, rtol=0, atol=0)


def test_crop_cuts_and_flips_but_leaves_the_colors() -> None:
    transform = TrainTransform(20, 0.2, "crop")
    images = torch.stack([transform(halves(), np.random.default_rng(seed)) for seed in range(40)])
    reds, blues = images[:, 0], images[:, 2]
    assert ((reds - 60.0).abs() < 12).logical_or((reds - 200.0).abs() < 12).float().mean() > 0.9
    assert 0 < (reds[:, 10, 0] > blues[:, 10, 0]).float().mean() < 1  # flipped at times
    assert len(images.flatten(1).unique(dim=0)) > 2  # and cut
    assert (images[:, 1] - 60.0).abs().max() < 12
