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

from torch import Tensor, nn

import engine
from data.config import RetrievalData
from data.loaders import TrainLoader, listed_loader
from data.retrieval import RetrievalEval, RetrievalTrain
from evaluation.cases import Searched, retrieval_findings
from evaluation.provenance import provenance
from evaluation.report import Evaluated, report
from models.blip_retrieval import BLIPRetrieval, blip_retrieval
from models.config import ModelConfig
from models.rerank.image_states import ImageStates
from models.rerank.search import Candidates, rerank
from models.rerank.work_shares import Processes
from settings import setting
from transform.image import EvalTransform, TrainTransform, normalize


@dataclass
class Config(engine.TrainConfig, ModelConfig, RetrievalData):
    """Retrieval's keys beside those of training, model and data."""

    embed_dim: int = setting(256, "width of the space in which images and texts are compared")
    queue_size: int = setting(57600, "features kept as further candidates of the contrastive loss")
    alpha: float = setting(0.4, "share of the momentum model's similarities in the targets, reached after one epoch")
    negative_all_rank: bool = setting(True, "draw hard negatives over the batches of all processes")
    k_test: int = setting(256, "candidates of each query that the matching head re-ranks")
    states_gib: float = setting(
        16.0, "GiB of image states that a process keeps for re-ranking; where they take more, images are encoded again"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        engine.check(0 <= self.alpha <= 1, "alpha", self.alpha, "from 0 to 1")
        engine.check(self.queue_size >= 1, "queue_size", self.queue_size, "at least 1")
        engine.check(self.k_test >= 1, "k_test", self.k_test, "at least 1")
        engine.check(self.states_gib >= 0, "states_gib", self.states_gib, "0 or more")


def build_data(run: engine.Run[Config]) -> tuple[TrainLoader | None, dict[str, RetrievalEval]]:
    """Batches to train on, and the validation and test splits."""
    config, share = run.config, {"num_workers": run.config.num_workers, **run.share}
    splits = dict.fromkeys(config.own_split(split) or split for split in ("val", "test"))
    evaluated = {
        split: RetrievalEval(config.annotations(split), config.image_root, EvalTransform(config.image_size))
        for split in splits
    }
    if run.evaluate_only:
        return None, evaluated
    transform = TrainTransform(config.image_size, config.min_scale, config.augmentation)
    dataset = RetrievalTrain(config.annotations("train"), config.image_root, transform, seed=run.seed)
    return TrainLoader(dataset, config.batch_size_train, max_bad_images=config.max_bad_images, **share), evaluated


def build_model(config: Config) -> BLIPRetrieval:
    return blip_retrieval(
        config.pretrained,
        image_size=config.image_size,
        embed_dim=config.embed_dim,
        queue_size=config.queue_size,
        negative_all_rank=config.negative_all_rank,
        **config.architecture(),
    )


def train_step(config: Config, model: nn.Module, batch: dict[str, Any], progress: engine.Progress) -> dict[str, Tensor]:
    alpha = config.alpha * min(1.0, progress.epochs)
    loss_ita, loss_itm = model(normalize(batch["image"]), batch["caption"], alpha, batch["image_id"])
    statistics = engine.unwrap(model).statistics
    return {"loss": loss_ita + loss_itm, "loss_ita": loss_ita, "loss_itm": loss_itm, **statistics}


def search(run: engine.Run[Config], model: BLIPRetrieval, dataset: RetrievalEval) -> tuple[Candidates, Candidates]:
    """The texts found for each image of a split, and the images found for each text."""
    config = run.config

    def encode(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        embeds = model.visual_encoder(normalize(run.to_device(batch)["image"]))
        return embeds, model.project_image(embeds)

    read = partial(listed_loader, dataset, num_workers=config.num_workers, pin_memory=run.share["pin_memory"])
    images = ImageStates(len(dataset), config.batch_size_test, read, encode, config.states_gib)
    processes = Processes(run.rank, run.world_size, engine.gather_objects)
    return rerank(model, images, dataset.text, config.k_test, processes=processes, progress=run.progress)


def evaluate(run: engine.Run[Config], splits: dict[str, RetrievalEval], model: BLIPRetrieval) -> dict[str, Any]:
    """Recall in both directions on each split: `txt_r1` of texts found by images, `img_r1` of images by texts."""
    config, metrics = run.config, {}
    source = config.pretrained if run.evaluate_only else None
    for split, dataset in splits.items():
        to_text, to_image = search(run, model, dataset)
        images = range(len(dataset))
        texts_of, image_of = [dataset.img2txt[i] for i in images], list(dataset.txt2img.values())
        searched = Searched(dataset.text, texts_of, image_of, [dataset.files(i) for i in images])
        scores, found = retrieval_findings(to_text, to_image, searched)
        metrics |= {f"{split}_{name}": value for name, value in scores.items()}
        if run.is_first:
            evaluated = Evaluated(split, config.annotations(split), "retrieval", source, provenance(source))
            metrics |= report(run.output_dir, evaluated, found)
    return metrics


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/retrieval_coco.yaml", "output/retrieval_coco", arguments) as run:
        loader, evaluated = build_data(run)
        engine.fit(
            run,
            build_model(run.config),
            loader,
            partial(train_step, run.config),
            schedule=engine.cosine_by_epoch(run.config),
            evaluate=partial(evaluate, run, evaluated),
            best=f"{next(iter(evaluated))}_r_mean",
        )


if __name__ == "__main__":
    main()
