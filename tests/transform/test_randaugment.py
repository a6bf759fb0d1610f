"""RandAugment against the recipe of 2022, and what the fixtures cannot show: purity and determinism."""

import json

import numpy as np
import pytest
import torch

from transform.randaugment import OPERATIONS, RandAugment, equalize, shear_x, translate_x, translate_y

NAMES = ["Identity", "AutoContrast", "Brightness", "Sharpness", "Equalize"] + [
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
]


@pytest.fixture(scope="module")
def picture(golden) -> torch.Tensor:
    return torch.from_numpy(np.load(golden("randaugment/input.npy"))).permute(2, 0, 1).contiguous()


def difference(image: torch.Tensor, expected: np.ndarray) -> torch.Tensor:
    return (image.permute(1, 2, 0).int() - torch.from_numpy(expected).int()).abs().float()


def apply(name: str, image: torch.Tensor, level: int, draw: float) -> tuple[torch.Tensor, float | None]:
    """An operation as `RandAugment` applies it where the draw for its sign gives `draw`, and its magnitude."""
    operation = OPERATIONS[name]
    if operation.magnitude is None:
        return operation.apply(image), None
    magnitude = operation.magnitude(level) * (-1 if operation.signed and draw > 0.5 else 1)
    return operation.apply(image, magnitude), magnitude


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [5, 9])
@pytest.mark.parametrize("draw", [0.25, 0.75])
def test_each_operation_agrees_with_the_fixture(golden, picture, name, level, draw) -> None:
    case = f"{name}_level{level}_rand{draw}"
    expected = np.load(golden("randaugment/expected_ops.npz"))[case]
    arguments = json.loads(golden("randaugment/resolved_args.json").read_text())[case]
    result, magnitude = apply(name, picture, level, draw)
    assert difference(result, expected).mean() < 0.2  # required: 2 gray levels; only interpolation differs
    assert difference(result, expected).max() <= 6
    if arguments:
        assert magnitude == pytest.approx(-arguments[0] if name == "Rotate" else arguments[0])  # ours is clockwise


def test_operations_stand_in_the_order_of_the_recipe() -> None:
    assert list(OPERATIONS) == NAMES


@pytest.mark.parametrize("seed", range(12))
def test_a_legacy_seed_gives_the_augmentation_of_the_recipe(golden, picture, seed) -> None:
    with np.load(golden("randaugment/expected_random_augment_seeds.npz")) as expected:
        result = RandAugment(2, 5)(picture, np.random.RandomState(seed))
        assert difference(result, expected[f"seed{seed}"]).mean() < 0.2


def test_the_same_generator_gives_the_same_bytes_and_no_global_state_moves(picture) -> None:
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    original = picture.clone()
    augment = RandAugment(2, 5, probability=1.0)
    first = [augment(picture, np.random.default_rng(seed)) for seed in range(20)]
    again = [augment(picture, np.random.default_rng(seed)) for seed in range(20)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({bytes(image.numpy().tobytes()) for image in first}) > 10
    assert torch.equal(picture, original)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


def test_probability_zero_is_the_identity(picture) -> None:
    assert RandAugment(2, 5, probability=0.0)(picture, np.random.default_rng(0)) is picture


def test_moves_go_where_they_say_and_show_grey() -> None:
    image = torch.arange(1, 7, dtype=torch.uint8).reshape(1, 2, 3).repeat(3, 1, 1)
    assert translate_x(image, 1)[0].tolist() == [[2, 3, 128], [5, 6, 128]]
    assert translate_x(image, -1)[0].tolist() == [[128, 1, 2], [128, 4, 5]]
    assert translate_x(image, 9)[0].tolist() == [[128] * 3, [128] * 3]
    assert translate_y(image, 1)[1].tolist() == [[4, 5, 6], [128] * 3]
    assert shear_x(image, 1)[2].tolist() == [[1, 2, 3], [128, 4, 5]]


def test_equalize_leaves_a_flat_picture_alone() -> None:
    flat = torch.full((3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(equalize(flat), flat)


def test_a_level_outside_the_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="level is 11"):
        RandAugment(2, 11)
