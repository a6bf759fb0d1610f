"""Image states are kept where they fit a budget, and encoded again, in the same batches, where they do not."""

import logging

import pytest
import torch

from models.rerank.image_states import ImageStates, choose_storage
from models.rerank.work_shares import SINGLE_PROCESS, Processes, no_progress

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")


def counted(budget, encoded, images=10):
    """Images whose states are their numbers; `encoded` lists the batches that were encoded."""

    def encode(numbers):
        encoded.append(numbers)
        values = torch.tensor(numbers, dtype=torch.float32)
        return values[:, None, None].expand(-1, 5, 8), values[:, None]

    return ImageStates(images, 4, lambda batches: batches, encode, budget)


@pytest.mark.parametrize(
    ("needed", "budget", "device", "free", "place"),
    [
        (8.3, 16.0, GPU, 130.0, GPU),
        (8.3, 16.0, GPU, 16.0, CPU),
        (8.3, 4.0, GPU, 130.0, None),
        (8.3, 16.0, CPU, float("inf"), CPU),
        (8.3, 0.0, CPU, float("inf"), None),
    ],
)
def test_the_device_is_preferred_then_the_host_then_nothing_is_kept(needed, budget, device, free, place):
    chosen, why = choose_storage(needed, budget, device, free)
    assert chosen == place
    assert f"states_gib = {budget:g}" in why


@pytest.mark.parametrize(("budget", "encodings"), [(16.0, 1), (0.0, 2)])
def test_states_are_those_of_the_images_whether_kept_or_encoded_again(budget, encodings, caplog):
    encoded = []
    images = counted(budget, encoded)
    with caplog.at_level(logging.INFO, "blip.models"):
        features = images.encode_share(SINGLE_PROCESS, no_progress)
    assert features.squeeze(1).tolist() == list(range(10))
    assert [states[0, 0, 0].item() for states in images.states(range(10))] == list(range(10))
    assert encoded == [range(0, 4), range(4, 8), range(8, 10)] * encodings
    assert f"states of 10 images take 0.00 GiB, {'within' if budget else 'over'} states_gib = {budget:g}" in caplog.text


def test_an_image_that_another_process_encoded_is_encoded_again_in_its_batch():
    encoded = []
    images = counted(16.0, encoded)
    images.encode_share(Processes(0, 2, lambda items: items), no_progress)  # its share is the first batch
    assert [states[0, 0, 0].item() for states in images.states(range(2, 6))] == [2, 3, 4, 5]
    assert encoded == [range(0, 4), range(4, 8)]


def test_autocast_halves_what_is_kept(caplog):
    images = counted(1000 * 40 * 2 / 2**30, [], images=1000)  # 1,000 x 5 x 8 numbers of 2 bytes each
    with torch.autocast("cpu", dtype=torch.bfloat16), caplog.at_level(logging.INFO, "blip.models"):
        images.encode_share(SINGLE_PROCESS, no_progress)
    assert "kept on cpu" in caplog.text
    assert next(images.states(range(1))).dtype == torch.bfloat16
