"""Pre-train a BLIP model: contrastive, matching and language-model losses at once (paper, sections 3.2 and 4.1).

The authors' losses with 14M images, contrastive / matching / language-model: 3.002 / 0.337 / 3.352 in epoch 0, 2.414 /
0.196 / 2.651 in epoch 3, 2.138 / 0.170 / 2.488 in epoch 7. If the matching loss stays at 0.63, the head always answers
"no match": watch itm_accuracy_match and itm_accuracy_mismatch.

    python pretrain.py --config configs/pretrain.yaml --output_dir output/pretrain
    python -m torch.distributed.run --nproc_per_node=8 pretrain.py --config configs/pretrain.yaml
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

import engine
from data.config import PretrainData
from data.loaders import TrainLoader
from data.pretrain import PretrainDataset
from data.records.shard_index import look_at
from data.records.shards import shard_files
from engine.schedules import step_lr, warmup_lr
from evaluation.text_survey import survey_texts
from models.blip_pretrain import BLIPPretrain, blip_pretrain
from models.weights.imagenet_bert import initialize_pretraining
from settings import check, setting
from settings.model import ContrastSettings, ModelSettings
from transform.image import normalize


@dataclass
class Config(engine.TrainConfig, ModelSettings, ContrastSettings, PretrainData):
    """Pre-training's keys beside those of training, model and data."""

    initialize: bool = setting(
        True, "without `pretrained`, start from ImageNet's ViT and from BERT, not from random weights"
    )
    med_config: str | dict[str, Any] = setting(
        "configs/bert_config.json", "sizes of the text models: a BERT configuration, as a file or a mapping"
    )
    init_lr: float = setting(3e-4, "learning rate after the warm-up")
    warmup_lr: float = setting(1e-6, "learning rate of the first step")
    warmup_steps: int = setting(3000, "steps from warmup_lr to init_lr")
    lr_decay_rate: float = setting(0.9, "factor of the learning rate from one epoch to the next")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.warmup_lr <= self.init_lr, "warmup_lr", self.warmup_lr, "from 0 to init_lr")
        check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        check(0 < self.lr_decay_rate <= 1, "lr_decay_rate", self.lr_decay_rate, "above 0, at most 1")
        named = self.vit in ("base", "large") or bool(self.pretrained) or not self.initialize
        check(named, "initialize", True, f"false for vit = {self.vit}: ImageNet weights are known of base, large")


def build_loader(run: engine.Run[Config]) -> TrainLoader:
    config = run.config
    dataset = PretrainDataset(
        config.annotations("train"),
        config.train_transform(),
        image_root=config.image_root,
        url_root=config.url_root,
        laion_files=config.laion_files(),
        shards=engine.once_a_node(
            lambda: look_at(shard_files(config.shards), config.staging()), "the list of the shards"
        ),
        uids=config.uids,
        shards_share=config.shards_share,
        shard_lanes=config.shard_lanes,
        staging=config.staging(),
        epochs=config.max_epoch,
        seed=run.seed,
    )
    if run.is_first:
        survey_texts(dataset.annotations, "caption", config)
    return config.train_loader(dataset, config.batch_size, run.share)


def build_model(config: Config) -> BLIPPretrain:
    return blip_pretrain(config.pretrained, **config.contrast(), **config.architecture())


def build_initialized_model(config: Config) -> BLIPPretrain:
    """The model, whose weights come from ImageNet and BERT where the config names none."""
    model = build_model(config)
    if config.initialize and not config.pretrained:
        initialize_pretraining(model, str(config.vit))
    return model


def train_step(config: Config, model: nn.Module, batch: dict[str, Any], progress: engine.Progress) -> dict[str, Tensor]:
    alpha = config.alpha * min(1.0, progress.epochs / 2)
    inputs = normalize(batch["image"]), batch["caption"], alpha
    loss_ita, loss_itm, loss_lm = model(*inputs, update_momentum=progress.batch == 0)
    losses = {"loss_ita": loss_ita, "loss_itm": loss_itm, "loss_lm": loss_lm}
    return {"loss": loss_ita + loss_itm + loss_lm, **losses, **engine.unwrap(model, BLIPPretrain).statistics}


def schedule(config: Config, progress: engine.Progress) -> float:
    """Learning rate: linear warm-up over the first steps, then a decay with each epoch."""
    return min(
        warmup_lr(progress.step, config.warmup_steps, config.warmup_lr, config.init_lr),
        step_lr(progress.epoch, config.init_lr, config.min_lr, config.lr_decay_rate),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/pretrain.yaml", "output/pretrain", arguments) as run:
        build = build_model if run.resume_from else build_initialized_model
        step, rate = partial(train_step, run.config), partial(schedule, run.config)
        engine.fit(run, build, build_loader, step, schedule=rate)


if __name__ == "__main__":
    main()
