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
from torch.utils.data import DataLoader

import engine
from data.config import NLVRData
from data.loaders import TrainLoader, eval_loader
from data.nlvr import NLVREval, NLVRTrain
from evaluation.cases import judgement_cases
from evaluation.provenance import provenance
from evaluation.report import Evaluated, Findings, report
from metrics.nlvr import score_nlvr, statement_of
from models.blip_nlvr import BLIPNLVR, blip_nlvr
from models.config import ModelConfig
from transform.image import EvalTransform, TrainTransform, normalize


@dataclass
class Config(engine.TrainConfig, ModelConfig, NLVRData):
    """NLVR2's keys are those of training, model and data."""


def build_data(run: engine.Run[Config]) -> tuple[TrainLoader | None, dict[str, DataLoader]]:
    """Batches to train on, and the pairs of the validation and test splits."""
    config, share = run.config, {"num_workers": run.config.num_workers, **run.share}
    evaluated = {}
    for split in dict.fromkeys(config.own_split(split) or split for split in ("val", "test")):
        pairs = NLVREval(config.annotations(split), config.image_root, EvalTransform(config.image_size))
        evaluated[split] = eval_loader(pairs, config.batch_size_test, **share)
    if run.evaluate_only:
        return None, evaluated
    transform = TrainTransform(config.image_size, config.min_scale, config.augmentation)
    dataset = NLVRTrain(config.annotations("train"), config.image_root, transform, seed=run.seed)
    return TrainLoader(dataset, config.batch_size_train, max_bad_images=config.max_bad_images, **share), evaluated


def build_model(config: Config) -> BLIPNLVR:
    return blip_nlvr(config.pretrained, image_size=config.image_size, **config.architecture())


def train_step(model: nn.Module, batch: dict[str, Any], progress: engine.Progress) -> dict[str, Tensor]:  # noqa: ARG001
    return {"loss": model(normalize(batch["image"]), batch["sentence"], batch["label"])}


def evaluate(run: engine.Run[Config], loaders: dict[str, DataLoader], model: BLIPNLVR) -> dict[str, Any]:
    """Accuracy, and consistency over the pairs of one statement, on each split; predictions in `result/SPLIT.json`."""
    config, metrics = run.config, {}
    source = config.pretrained if run.evaluate_only else None
    for split, loader in loaders.items():
        predictions = []
        for batch in run.batches(loader, f"judge {split}"):
            logits = model(normalize(batch["image"]), batch["sentence"], train=False)
            probability = logits.softmax(dim=1)[:, 1]  # that the sentence is true
            columns = (batch["index"], logits.argmax(dim=1), batch["label"], probability)
            for index, said, true, p in zip(*(column.tolist() for column in columns), strict=True):
                one = {"index": index, "prediction": bool(said), "label": bool(true), "probability": round(p, 6)}
                predictions.append(one)
        predictions = engine.gather_objects(predictions)
        for prediction in predictions:
            record = loader.dataset.annotations[prediction["index"]]
            prediction |= {"identifier": record["identifier"], "sentence": record["sentence"]}
        run.write_json(f"result/{split}.json", predictions)
        scores = score_nlvr(
            [prediction["prediction"] for prediction in predictions],
            [prediction["label"] for prediction in predictions],
            [statement_of(prediction["identifier"], prediction["sentence"]) for prediction in predictions],
        )
        metrics |= {f"{split}_acc": scores.accuracy, f"{split}_consistency": scores.consistency}
        if run.is_first:
            files = {one["index"]: loader.dataset.files(one["index"]) for one in predictions}
            found = {"accuracy": scores.accuracy, "consistency": scores.consistency}
            evaluated = Evaluated(split, config.annotations(split), "nlvr", source, provenance(source))
            metrics |= report(run.output_dir, evaluated, Findings(found, judgement_cases(predictions, files)))
    return metrics


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/nlvr.yaml", "output/nlvr", arguments) as run:
        loader, evaluated = build_data(run)
        engine.fit(
            run,
            build_model(run.config),
            loader,
            train_step,
            schedule=engine.cosine_by_epoch(run.config),
            evaluate=partial(evaluate, run, evaluated),
            best=f"{next(iter(evaluated))}_acc",
        )


if __name__ == "__main__":
    main()
