"""Fine-tune a captioner, or evaluate one (paper, section 5.2).

Published, COCO Karpathy test (BLEU-4 / CIDEr): ViT-B with CapFilt-L 39.7 / 133.3, ViT-L 40.4 / 136.7.

    python train_caption.py --config configs/caption_coco.yaml --output_dir output/caption_coco
    python -m torch.distributed.run --nproc_per_node=8 train_caption.py --config configs/caption_coco.yaml
    python train_caption.py --evaluate --checkpoint model_base_caption_capfilt_large
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import engine
from data.caption import CaptionEval, CaptionTrain
from data.config import CaptionData
from data.loaders import EvalLoader, TrainLoader
from evaluation.captioning import caption_images, images_at_once
from evaluation.cases import caption_findings
from evaluation.findings import Findings
from evaluation.run import evaluate_splits
from evaluation.text_survey import survey_texts
from metrics.caption import read_references, score_captions
from metrics.scorers import require_scorers
from models.blip import BLIPDecoder, blip_decoder
from settings import check, setting
from settings.model import CaptionSettings, ModelSettings
from transform.image import normalize


@dataclass
class Config(engine.TrainConfig, ModelSettings, CaptionSettings, CaptionData):
    """Captioning's keys beside those of training, model and data."""

    max_words: int = setting(30, "words of a caption that are trained on; further ones are cut")
    max_tokens: int = setting(40, "tokens of it that are trained on, the prompt's counted; further ones are cut")
    use_java: bool = setting(True, "also compute METEOR and SPICE if Java is installed; they take longer than all else")

    def __post_init__(self) -> None:
        check(self.max_words >= 1, "max_words", self.max_words, "at least 1")
        check(self.max_tokens >= 3, "max_tokens", self.max_tokens, "at least 3: start, a word, end")
        super().__post_init__()


@dataclass(frozen=True)
class CaptionSplit:
    """The images of a split, and their reference captions in COCO's format: a file, or its content."""

    images: EvalLoader[CaptionEval]
    ground_truth: Path | dict[str, Any]


def read_split(run: engine.Run[Config], name: str) -> CaptionSplit:
    config = run.config
    images = CaptionEval(config.annotations(name), config.image_root, config.eval_transform())
    ground_truth = config.ground_truth(name) or images.ground_truth()
    if run.is_first:  # a missing package or a wrong file ends the run now, not after an epoch
        require_scorers()
        read_references(ground_truth, images.image_ids)
    batch_size = images_at_once(config.batch_size_test, run.device)
    return CaptionSplit(config.eval_loader(images, batch_size, run.share), ground_truth)


def build_loader(run: engine.Run[Config]) -> TrainLoader:
    config = run.config
    captions, transform = config.annotations("train"), config.train_transform()
    dataset = CaptionTrain(
        captions, config.image_root, transform, prompt=config.prompt, max_words=config.max_words, seed=run.seed
    )
    if run.is_first:
        survey_texts(dataset.annotations, "caption", config, config.max_words)
    return config.train_loader(dataset, config.batch_size, run.share)


def build_model(config: Config) -> BLIPDecoder:
    model = blip_decoder(config.pretrained, prompt=config.prompt, **config.architecture())
    model.max_caption_length = config.max_tokens
    prompt = model.prompt_length
    rule = f"at least {prompt + 2}: the prompt, a word, the end"
    check(config.max_tokens >= prompt + 2, "max_tokens", config.max_tokens, rule)
    check(config.max_length > prompt, "max_length", config.max_length, f"above the {prompt} tokens of the prompt")
    return model


def train_step(model: nn.Module, batch: dict[str, Any], progress: engine.Progress) -> dict[str, Tensor]:
    del progress
    return {"loss": model(normalize(batch["image"]), batch["caption"])}


def predict(run: engine.Run[Config], model: BLIPDecoder, split: CaptionSplit) -> list[dict[str, Any]]:
    return caption_images(run, model, split.images, run.config.search())


def score(run: engine.Run[Config], name: str, split: CaptionSplit, predictions: list[dict[str, Any]]) -> Findings:
    del name
    found = score_captions(predictions, split.ground_truth, run.config.use_java)
    images = split.images.dataset
    files = {image_id: images.files(row) for row, image_id in enumerate(images.image_ids)}
    return caption_findings(predictions, read_references(split.ground_truth), found, files)


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/caption_coco.yaml", "output/caption_coco", arguments) as run:
        splits = {name: read_split(run, name) for name in run.config.evaluated_splits()}
        engine.fit(
            run,
            build_model,
            build_loader,
            train_step,
            evaluate=partial(evaluate_splits, run, "caption", splits, predict, score),
            best=f"{next(iter(splits))}_CIDEr+BLEU-4",
        )


if __name__ == "__main__":
    main()
