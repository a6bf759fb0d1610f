"""Fine-tune image-text retrieval, or evaluate it (paper, section 5.1).

Published, test, R@1 of image-to-text / text-to-image: COCO 5k ViT-B 81.9 / 64.3 (CapFilt-L 81.2 / 64.1), ViT-L 82.4 /
65.1; Flickr30k 1k ViT-B 97.3 / 87.3, ViT-L 97.4 / 87.6.

    python train_retrieval.py --config configs/retrieval_coco.yaml --output_dir output/retrieval_coco
    python -m torch.distributed.run --nproc_per_node=8 train_retrieval.py --config configs/retrieval_flickr.yaml
    python train_retrieval.py --evaluate --checkpoint model_base_retrieval_coco
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

if __name__ == "__main__":
    from settings.interrupts import exit_on_interrupt

    exit_on_interrupt()

from torch import Tensor, nn

import engine
from data.config import RetrievalData
from data.loaders import TrainLoader
from data.retrieval import RetrievalEval, RetrievalTrain
from evaluation.search import evaluate_retrieval
from evaluation.text_survey import survey_texts
from models.blip_retrieval import BLIPRetrieval, blip_retrieval
from settings import setting
from settings.model import ContrastSettings, ModelSettings, RerankSettings
from transform.image import normalize


@dataclass
class Config(engine.TrainConfig, ModelSettings, ContrastSettings, RerankSettings, RetrievalData):
    """Retrieval's keys beside those of training, model and data."""

    negative_all_rank: bool = setting(True, "draw hard negatives from the batches of all processes")


def read_split(run: engine.Run[Config], name: str) -> RetrievalEval:
    config = run.config
    return RetrievalEval(config.annotations(name), config.image_root, config.eval_transform())


def build_loader(run: engine.Run[Config]) -> TrainLoader:
    config = run.config
    pairs, transform = config.annotations("train"), config.train_transform()
    dataset = RetrievalTrain(pairs, config.image_root, transform, seed=run.seed)
    if run.is_first:
        survey_texts(dataset.annotations, "caption", config)
    return config.train_loader(dataset, config.batch_size_train, run.share)


def build_model(config: Config) -> BLIPRetrieval:
    return blip_retrieval(
        config.pretrained,
        negative_all_rank=config.negative_all_rank,
        **config.contrast(),
        **config.architecture(),
    )


def train_step(alpha: float, model: nn.Module, batch: dict[str, Any], progress: engine.Progress) -> dict[str, Tensor]:
    alpha *= min(1.0, progress.epochs)
    loss_ita, loss_itm = model(normalize(batch["image"]), batch["caption"], alpha, batch["image_id"])
    statistics = engine.unwrap(model, BLIPRetrieval).statistics
    return {"loss": loss_ita + loss_itm, "loss_ita": loss_ita, "loss_itm": loss_itm, **statistics}


def encode_images(model: BLIPRetrieval, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    states = model.visual_encoder(normalize(batch["image"]))
    return states, model.project_image(states)


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/retrieval_coco.yaml", "output/retrieval_coco", arguments) as run:
        splits = {name: read_split(run, name) for name in run.config.evaluated_splits()}
        engine.fit(
            run,
            build_model,
            build_loader,
            partial(train_step, run.config.alpha),
            evaluate=partial(evaluate_retrieval, run, splits, encode_images, run.config.batch_size_test),
            best=f"{next(iter(splits))}_r_mean",
        )


if __name__ == "__main__":
    main()
