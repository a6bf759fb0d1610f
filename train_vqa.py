"""Fine-tune visual question answering, or answer a test split (paper, section 5.3).

Published accuracy, VQA v2 test-dev / test-std: ViT-B 78.24 / 78.17 (CapFilt-L 78.25 / 78.32). The paper trains on
train, val and Visual Genome, which leaves nothing to validate on: name a `val_file` to see accuracy while training (and
`val_file=''` with `--evaluate`, where your own file comes before the published test split).

    python train_vqa.py --config configs/vqa.yaml --output_dir output/vqa
    python -m torch.distributed.run --nproc_per_node=8 train_vqa.py --config configs/vqa.yaml
    python train_vqa.py --evaluate --checkpoint model_base_vqa_capfilt_large
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.data import DataLoader

import engine
from data.config import VQAData
from data.loaders import TrainLoader, eval_loader
from data.vqa import VQAEval, VQATrain, answer_list
from evaluation.cases import answer_cases
from evaluation.provenance import provenance
from evaluation.report import Evaluated, Findings, report
from files import resolve
from metrics.vqa import read_annotations, score_vqa
from models.blip_vqa import BLIPVQA, blip_vqa
from models.config import ModelConfig
from settings import setting
from transform.image import EvalTransform, TrainTransform, normalize


@dataclass
class Config(engine.TrainConfig, ModelConfig, VQAData):
    """VQA's keys beside those of training, model and data."""

    val_gt_file: str = setting("", "official annotations to score val_file by; empty: its own answers")
    test_gt_file: str = setting("", "official annotations to score test_file by; empty: its own answers, if any")
    inference: Literal["rank", "generate"] = setting("rank", "choose among the answer list, or write an answer")
    k_test: int = setting(128, "candidates, by their first token, that are ranked by the whole answer's loss")

    def __post_init__(self) -> None:
        super().__post_init__()
        engine.check(self.k_test >= 1, "k_test", self.k_test, "at least 1")


@dataclass
class Questions:
    """A split to answer.

    Attributes:
        loader: its questions.
        annotated: what people answered to each, empty where that is not known (and on all processes but the first).
        candidates: the answers to choose from; empty where they are written.
    """

    loader: DataLoader
    annotated: dict[Any, dict[str, Any]]
    candidates: list[str]


def build_data(run: engine.Run[Config]) -> tuple[TrainLoader | None, dict[str, Questions]]:
    """Batches to train on, and questions: of a validation file after each epoch, of the test split with --evaluate."""
    config, share = run.config, {"num_workers": run.config.num_workers, **run.share}
    roots = {"image_root": config.image_root, "vqa_root": config.vqa_root, "vg_root": config.vg_root}

    def questions(split: str) -> dict[str, Questions]:
        # All is read now, so that a wrong file costs neither a training nor an evaluation.
        dataset = VQAEval(config.annotations(split), EvalTransform(config.image_size), **roots)
        annotated = ground_truth(config, split, dataset) if run.is_first else {}
        candidates = answer_list(config.answer_file()) if config.inference == "rank" else []
        return {split: Questions(eval_loader(dataset, config.batch_size_test, **share), annotated, candidates)}

    if run.evaluate_only:
        return None, questions(config.own_split("test") or "test")
    transform = TrainTransform(config.image_size, config.min_scale, config.augmentation)
    dataset = VQATrain(config.annotations("train"), transform, seed=run.seed, **roots)
    loader = TrainLoader(dataset, config.batch_size_train, max_bad_images=config.max_bad_images, **share)
    return loader, questions("val") if config.val_file else {}


def build_model(config: Config) -> BLIPVQA:
    return blip_vqa(config.pretrained, image_size=config.image_size, **config.architecture())


def train_step(model: nn.Module, batch: dict[str, Any], progress: engine.Progress) -> dict[str, Tensor]:  # noqa: ARG001
    image = normalize(batch["image"])
    return {"loss": model(image, batch["question"], batch["answers"], n=batch["n"], weights=batch["weights"])}


def ground_truth(config: Config, split: str, dataset: VQAEval) -> dict[Any, dict[str, Any]]:
    """What people answered to each question: official annotations, or the answers beside the questions, if any."""
    official = getattr(config, f"{split}_gt_file")
    return read_annotations(resolve(official), dataset.question_ids) if official else dataset.ground_truth()


def evaluate(run: engine.Run[Config], splits: dict[str, Questions], model: BLIPVQA) -> dict[str, Any]:
    """Answer every question: `result/SPLIT.json` is what the server takes. Accuracy where the split has answers."""
    config, metrics = run.config, {}
    source = config.pretrained if run.evaluate_only else None
    known = provenance(source)
    for split, questions in splits.items():
        loader, annotated, candidates = questions.loader, questions.annotated, questions.candidates
        tokens = model.tokenizer(candidates, padding="longest", return_tensors="pt") if candidates else None
        predictions = []
        for batch in run.batches(loader, f"answer {split}"):
            image = normalize(batch["image"])
            if tokens is not None:
                best = model(image, batch["question"], tokens, train=False, k_test=config.k_test)
                answers = [candidates[i] for i in best.tolist()]
            else:
                answers = model(image, batch["question"], train=False, inference="generate")
            given = zip(batch["question_id"], answers, strict=True)
            predictions += [{"question_id": question, "answer": answer} for question, answer in given]
        predictions = engine.gather_objects(predictions)
        run.write_json(f"result/{split}.json", predictions)
        if not run.is_first:
            continue
        if annotated:
            scores = score_vqa(predictions, annotated)
            metrics |= {f"{split}_acc": scores.overall}
            metrics |= {f"{split}_acc_{kind}": accuracy for kind, accuracy in scores.by_answer_type.items()}
            if run.evaluate_only:  # 65 curves more would help nobody who watches a training
                by_question_type = scores.by_question_type.items()
                metrics |= {f"{split}_acc_question_{kind}": accuracy for kind, accuracy in by_question_type}
            figures = {"accuracy": scores.overall, **scores.by_answer_type, **scores.by_question_type}
            cases = answer_cases(predictions, annotated, scores.per_question, loader.dataset.questions())
            found = Findings(figures, cases, remarks=scores.remarks)
        else:
            served = (
                ("test-dev", "test-std") if known and known.scores and not config.own_split(split) else ("accuracy",)
            )
            found = Findings({}, [], dict.fromkeys(served, f"no answers here; the server takes result/{split}.json"))
        evaluated = Evaluated(split, config.annotations(split), "vqa", source, known)
        metrics |= report(run.output_dir, evaluated, found)
    return metrics


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/vqa.yaml", "output/vqa", arguments) as run:
        loader, evaluated = build_data(run)
        engine.fit(
            run,
            build_model(run.config),
            loader,
            train_step,
            schedule=engine.cosine_by_epoch(run.config),
            evaluate=partial(evaluate, run, evaluated) if evaluated else None,
        )


if __name__ == "__main__":
    main()
