"""Every YAML of `configs/` is one that its script accepts, its ViT-L variant too, and holds the published values."""

import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from files import REPOSITORY
from settings import ConfigError, load_config

CONFIGS = REPOSITORY / "configs"
SCRIPTS = {
    "pretrain": "pretrain",
    "retrieval_coco": "train_retrieval",
    "retrieval_flickr": "train_retrieval",
    "retrieval_msrvtt": "eval_retrieval_video",
    "caption_coco": "train_caption",
    "nocaps": "eval_nocaps",
    "vqa": "train_vqa",
    "nlvr": "train_nlvr",
    "capfilt": "capfilt",
}
DEMO = {
    "pretrain": "pretrain",
    "retrieval": "train_retrieval",
    "caption": "train_caption",
    "vqa": "train_vqa",
    "nlvr": "train_nlvr",
    "nocaps": "eval_nocaps",
    "video": "eval_retrieval_video",
    "capfilt": "capfilt",
    "emoji_pretrain": "pretrain",
    "emoji_caption": "train_caption",
    "emoji_retrieval": "train_retrieval",
}


def read(name: str, path: Path | None = None):
    return load_config(import_module(SCRIPTS[name]).Config, path or CONFIGS / f"{name}.yaml")


def test_every_config_has_a_script():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(SCRIPTS)


def test_every_demo_config_has_a_script():
    assert {path.stem for path in (CONFIGS / "demo").glob("*.yaml")} == set(DEMO)


@pytest.mark.parametrize("name", DEMO)
def test_demo_configs_are_accepted(name):
    load_config(import_module(DEMO[name]).Config, CONFIGS / "demo" / f"{name}.yaml")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "pretrain",
            {
                "vit": "base", "image_size": 224, "min_scale": 0.2, "batch_size": 75, "queue_size": 57600, "alpha": 0.4,
                "init_lr": 3e-4, "min_lr": 1e-6, "warmup_lr": 1e-6, "warmup_steps": 3000, "lr_decay_rate": 0.9,
                "max_epoch": 20, "med_config": "configs/bert_config.json",
            },
        ),
        (
            "retrieval_coco",
            {
                "image_size": 384, "min_scale": 0.5, "batch_size_train": 32, "batch_size_test": 64,
                "init_lr": 1e-5, "max_epoch": 6,
                "queue_size": 57600, "alpha": 0.4, "k_test": 256, "negative_all_rank": True, "vit_grad_ckpt": True,
                "vit_ckpt_layer": 4, "min_lr": 0.0, "dataset": "coco",
            },
        ),
        (
            "retrieval_flickr",
            {
                "image_size": 384, "min_scale": 0.5, "batch_size_train": 32, "batch_size_test": 64,
                "init_lr": 1e-5, "max_epoch": 6,
                "queue_size": 57600, "alpha": 0.4, "k_test": 128, "negative_all_rank": False, "vit_grad_ckpt": True,
                "vit_ckpt_layer": 4, "dataset": "flickr",
            },
        ),
        ("retrieval_msrvtt", {"image_size": 384, "num_frm_test": 8, "batch_size": 64, "k_test": 128, "vit": "base"}),
        (
            "caption_coco",
            {
                "image_size": 384, "min_scale": 0.5, "batch_size": 32, "init_lr": 1e-5, "max_epoch": 5, "num_beams": 3,
                "min_length": 5, "max_length": 20, "prompt": "a picture of ", "vit_grad_ckpt": False,
            },
        ),
        ("nocaps", {"image_size": 384, "num_beams": 3, "min_length": 5, "max_length": 20, "prompt": "a picture of "}),
        (
            "vqa",
            {
                "image_size": 480, "min_scale": 0.5, "batch_size_train": 16, "batch_size_test": 32,
                "init_lr": 2e-5, "max_epoch": 10,
                "k_test": 128, "inference": "rank", "train_files": ["vqa_train", "vqa_val", "vg_qa"],
            },
        ),
        (
            "nlvr",
            {
                "image_size": 384, "min_scale": 0.5, "batch_size_train": 16, "batch_size_test": 64,
                "init_lr": 3e-5, "max_epoch": 15,
            },
        ),
    ],
)  # fmt: skip
def test_the_published_hyper_parameters(name, values):
    config = read(name)
    assert {key: getattr(config, key) for key in values} == values
    if hasattr(config, "weight_decay"):
        assert config.weight_decay == 0.05


@pytest.mark.parametrize("name", ["pretrain", "retrieval", "caption", "vqa", "nlvr"])
def test_training_pictures_are_cropped_as_the_config_says(name, in_demo_folder):
    script = import_module(DEMO[name])
    overrides = ["min_scale=0.35", "augmentation=crop", "image_size=48"]
    config = load_config(script.Config, CONFIGS / "demo" / f"{name}.yaml", overrides)
    run = SimpleNamespace(config=config, seed=0, share={}, evaluate_only=False, is_first=True)
    transform = script.build_loader(run).dataset.transform
    assert (transform.image_size, transform.min_scale, transform.augmentation) == (48, 0.35, "crop")


@pytest.mark.parametrize(
    "name", [name for name in SCRIPTS if "# vit: 'large'" in (CONFIGS / f"{name}.yaml").read_text()]
)
def test_the_commented_vit_l_variant_is_accepted(name, tmp_path):
    lines = (CONFIGS / f"{name}.yaml").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("# vit: 'large'"))
    end = next((i for i in range(start, len(lines)) if not re.match(r"# \w+: ", lines[i])), len(lines))
    variant = [line.removeprefix("# ") for line in lines[start:end]]
    replaced = {line.partition(":")[0] for line in variant}
    others = [line for line in lines[:start] + lines[end:] if line.partition(":")[0] not in replaced]
    (tmp_path / "large.yaml").write_text("\n".join(others + variant))
    config = read(name, tmp_path / "large.yaml")
    assert config.vit == "large"
    if name != "nocaps" and hasattr(config, "init_lr"):
        assert config.vit_grad_ckpt
        assert config.vit_ckpt_layer > 0
    if name.startswith("retrieval") and hasattr(config, "init_lr"):
        assert (config.init_lr, config.batch_size_train) == (5e-6, 16)
    if name == "caption_coco":
        assert (config.init_lr, config.batch_size) == (2e-6, 16)


@pytest.mark.parametrize("script", sorted(set(SCRIPTS.values())))
def test_help_lists_the_keys_with_their_meaning(script, capsys):
    with pytest.raises(SystemExit) as ended:
        import_module(script).main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "torch.distributed.run" in printed
    flags = ("--resume", "image_size: a whole number", "pretrained: text")
    for line in ("--output_dir", *(("captioner: text",) if script == "capfilt" else flags)):
        assert line in printed


@pytest.mark.parametrize("name", ["caption_coco", "nocaps"])
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["min_length=25"], "command line: min_length = 25: must be from 1 to max_length = 20"),
        (["min_length=0"], "min_length = 0: must be from 1"),
        (["max_length=4"], "max_length = 4: must be above 4, the start and the prompt"),
        (["num_beams=0"], "num_beams = 0: must be at least 1"),
        (["image_size=225"], "command line: image_size = 225: must be a multiple of the patch size, 16"),
        (["batch_size=0"], "command line: batch_size = 0: must be at least 1"),
        (["vit=huge"], "command line: vit = huge: must be tiny, small, base, large"),
        (["vit_ckpt_layer=-1"], "command line: vit_ckpt_layer = -1: must be 0 or more"),
        (
            ["med_config={hidden_size: 30, num_attention_heads: 4}"],
            "command line: med_config: hidden_size = 30: must be",
        ),
    ],
)
def test_settings_that_cannot_work_are_named_with_their_place(name, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(import_module(SCRIPTS[name]).Config, CONFIGS / f"{name}.yaml", overrides)


def test_other_tasks_settings_that_cannot_work():
    for name, override, message in (
        ("pretrain", "embed_dim=0", "embed_dim = 0: must be at least 1"),
        ("retrieval_coco", "embed_dim=-1", "embed_dim = -1: must be at least 1"),
        ("retrieval_coco", "k_test=0", "k_test = 0: must be at least 1"),
        ("vqa", "k_test=0", "k_test = 0: must be at least 1"),
        ("vqa", "train_files=[]", "train_files = ..: must be at least one"),
        ("retrieval_msrvtt", "num_frm_test=0", "num_frm_test = 0: must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=f"command line: {message}"):
            load_config(import_module(SCRIPTS[name]).Config, CONFIGS / f"{name}.yaml", [override])
