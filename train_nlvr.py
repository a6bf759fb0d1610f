"""Fine-tune visual reasoning over two images (NLVR2), or evaluate it (paper, section 5.4).

Published accuracy, dev / test-P: ViT-B 82.48 / 83.08 (CapFilt-L 82.15 / 82.24).

    python train_nlvr.py --config configs/nlvr.yaml --output_dir output/nlvr
    python -m torch.distributed.run --nproc_per_node=8 train_nlvr.py --config configs/nlvr.yaml
    python train_nlvr.py --evaluate --checkpoint model_base_nlvr
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

import engine
from data.config import NLVRData
from data.loaders import EvalLoader, TrainLoader
from data.nlvr import NLVREval, NLVRTrain, check_lengths
from evaluation.cases import nlvr_findings
from evaluation.findings import Findings
from evaluation.run import evaluate_splits
from evaluation.text_limit import text_limit
from evaluation.text_survey import survey_texts
from models.blip_nlvr import BLIPNLVR, blip_nlvr
from prediction.results import require_finite
from settings.model import ModelSettings
from transform.image import normalize

Pairs = EvalLoader[NLVREval]


@dataclass
class Config(engine.TrainConfig, ModelSettings, NLVRData):
    """NLVR2's keys are those of training, model and data."""


def read_split(run: engine.Run[Config], name: str) -> Pairs:
    config = run.config
    pairs = NLVREval(config.annotations(name), config.image_root, config.eval_transform())
    check_lengths(pairs, text_limit(config))
    return config.eval_loader(pairs, config.batch_size_test, run.share)


def build_loader(run: engine.Run[Config]) -> TrainLoader:
    config = run.config
    dataset = NLVRTrain(config.annotations("train"), config.image_root, config.train_transform(), seed=run.seed)
    check_lengths(dataset, text_limit(config))
    if run.is_first:
        survey_texts(dataset.annotations, "sentence", config)
    return config.train_loader(dataset, config.batch_size_train, run.share)


def build_model(config: Config) -> BLIPNLVR:
    return blip_nlvr(config.pretrained, **config.architecture())


def train_step(model: nn.Module, batch: dict[str, Any], progress: engine.Progress) -> dict[str, Tensor]:
    del progress
    return {"loss": model(normalize(batch["image"]), batch["sentence"], batch["label"])}


def predict(run: engine.Run[Config], model: BLIPNLVR, pairs: Pairs) -> list[dict[str, Any]]:
    """Judge each pair of images with its sentence, with the probability that the sentence is true."""
    predictions = []
    for batch in run.batches(pairs, "judge pairs"):
        logits = model(normalize(batch["image"]), batch["sentence"], train=False)
        require_finite(logits)
        probability = logits.softmax(dim=1)[:, 1]
        columns = (batch["index"], logits.argmax(dim=1), batch["label"], probability)
        for index, predicted, label, p in zip(*(column.tolist() for column in columns), strict=True):
            one = {"index": index, "prediction": bool(predicted), "label": bool(label), "probability": round(p, 6)}
            record = pairs.dataset.annotations[index]
            predictions.append({**one, "identifier": record["identifier"], "sentence": record["sentence"]})
    return predictions


def score(run: engine.Run[Config], name: str, pairs: Pairs, predictions: list[dict[str, Any]]) -> Findings:
    """Accuracy, and consistency over the pairs of one statement."""
    del run, name
    return nlvr_findings(predictions, {one["index"]: pairs.dataset.files(one["index"]) for one in predictions})


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/nlvr.yaml", "output/nlvr", arguments) as run:
        splits = {name: read_split(run, name) for name in run.config.evaluated_splits()}
        engine.fit(
            run,
            build_model,
            build_loader,
            train_step,
            evaluate=partial(evaluate_splits, run, "nlvr", splits, predict, score),
            best=f"{next(iter(splits))}_acc",
        )


if __name__ == "__main__":
    main()
