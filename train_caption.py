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
from torch.utils.data import DataLoader

import engine
from data.caption import CaptionEval, CaptionTrain
from data.config import CaptionData
from data.loaders import TrainLoader, eval_loader
from evaluation.cases import caption_cases
from evaluation.provenance import provenance
from evaluation.report import Evaluated, Findings, report
from metrics.caption import read_references, score_captions
from models.blip import BLIPDecoder, blip_decoder
from models.config import ModelConfig, SearchConfig
from settings import setting
from transform.image import EvalTransform, TrainTransform, normalize


@dataclass
class Config(engine.TrainConfig, ModelConfig, SearchConfig, CaptionData):
    """Captioning's keys beside those of training, model and data."""

    use_java: bool = setting(True, "compute METEOR and SPICE too, where Java is; they take longer than all else")


GroundTruth = Path | dict[str, Any]


def build_data(run: engine.Run[Config]) -> tuple[TrainLoader | None, dict[str, tuple[DataLoader, GroundTruth]]]:
    """Batches to train on; the images of the validation and test splits, and the captions to compare with."""
    config, share = run.config, {"num_workers": run.config.num_workers, **run.share}
    evaluated = {}
    for split in dict.fromkeys(config.own_split(split) or split for split in ("val", "test")):
        images = CaptionEval(config.annotations(split), config.image_root, EvalTransform(config.image_size))
        truth = config.ground_truth(split) or images.ground_truth()
        if run.is_first:
            read_references(truth, images.image_ids)  # a wrong file ends the run now, not after an epoch
        evaluated[split] = eval_loader(images, config.batch_size, **share), truth
    if run.evaluate_only:
        return None, evaluated
    dataset = CaptionTrain(
        config.annotations("train"),
        config.image_root,
        TrainTransform(config.image_size, config.min_scale, config.augmentation),
        prompt=config.prompt,
        seed=run.seed,
    )
    return TrainLoader(dataset, config.batch_size, max_bad_images=config.max_bad_images, **share), evaluated


def build_model(config: Config) -> BLIPDecoder:
    return blip_decoder(config.pretrained, image_size=config.image_size, prompt=config.prompt, **config.architecture())


def train_step(model: nn.Module, batch: dict[str, Any], progress: engine.Progress) -> dict[str, Tensor]:  # noqa: ARG001
    return {"loss": model(normalize(batch["image"]), batch["caption"])}


def evaluate(
    run: engine.Run[Config], splits: dict[str, tuple[DataLoader, GroundTruth]], model: BLIPDecoder
) -> dict[str, Any]:
    """Caption every image of each split; `result/SPLIT.json` is what COCO's server takes."""
    config, metrics = run.config, {}
    lengths = {"max_length": config.max_length, "min_length": config.min_length}
    source = config.pretrained if run.evaluate_only else None
    for split, (loader, truth) in splits.items():
        predictions = []
        for batch in run.batches(loader, f"caption {split}"):
            captions = model.generate(normalize(batch["image"]), num_beams=config.num_beams, **lengths)
            predictions += _predictions(batch["image_id"], captions)
        predictions = engine.gather_objects(predictions)
        run.write_json(f"result/{split}.json", predictions)
        if run.is_first:
            found = score_captions(predictions, truth, config.use_java)
            files = {image: loader.dataset.files(row) for row, image in enumerate(loader.dataset.image_ids)}
            cases = caption_cases(predictions, read_references(truth), found, files)
            findings = Findings(found.scores, cases, found.not_computed, found.remarks)
            evaluated = Evaluated(split, config.annotations(split), "caption", source, provenance(source))
            metrics |= report(run.output_dir, evaluated, findings)
            scores = dict(found.scores)
            scores["CIDEr+BLEU-4"] = scores.get("CIDEr", 0.0) + scores["BLEU-4"]
            metrics |= {f"{split}_{name}": value for name, value in scores.items()}
    return metrics


def _predictions(image_ids: Sequence[int | str], captions: Sequence[str]) -> list[dict[str, Any]]:
    return [{"image_id": i, "caption": caption} for i, caption in zip(image_ids, captions, strict=True)]


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/caption_coco.yaml", "output/caption_coco", arguments) as run:
        loader, evaluated = build_data(run)
        engine.fit(
            run,
            build_model(run.config),
            loader,
            train_step,
            schedule=engine.cosine_by_epoch(run.config),
            evaluate=partial(evaluate, run, evaluated),
            best=f"{next(iter(evaluated))}_CIDEr+BLEU-4",
        )


if __name__ == "__main__":
    main()
