"""How many images are captioned at once."""

import pytest
import torch

import eval_nocaps
import train_caption
from evaluation.captioning import images_at_once
from settings import ConfigError, load_config

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda:1"), torch.device("mps")


def test_a_gpu_captions_256_images_at_once_a_cpu_32_and_the_config_decides_otherwise():
    assert [images_at_once(None, device) for device in (CPU, CUDA, MPS)] == [32, 256, 32]
    assert [images_at_once(7, device) for device in (CPU, CUDA, MPS)] == [7, 7, 7]


@pytest.mark.parametrize(
    ("script", "config", "key"),
    [(train_caption, "caption_coco", "batch_size_test"), (eval_nocaps, "nocaps", "batch_size")],
)
def test_the_configs_leave_it_to_the_device_and_impossible_numbers_are_refused(script, config, key):
    path = f"configs/{config}.yaml"
    assert getattr(load_config(script.Config, path), key) is None
    assert getattr(load_config(script.Config, path, [f"{key}=32"]), key) == 32
    for wrong, rule in ((0, "at least 1"), (1_000_001, "at most 1,000,000")):
        with pytest.raises(ConfigError, match=f"{key} = {wrong}: must be {rule}"):
            load_config(script.Config, path, [f"{key}={wrong}"])
