"""Fine-tune visual question answering, or answer a test split (paper, section 5.3).

Published accuracy, VQA v2 test-dev / test-std: ViT-B 78.24 / 78.17 (CapFilt-L 78.25 / 78.32). The paper trains on
train, val and Visual Genome, which leaves nothing to validate on: set `val_file` to see accuracy during training. With
`--evaluate`, your own file comes before the published test split; `val_file=''` evaluates the latter.

    python train_vqa.py --config configs/vqa.yaml --output_dir output/vqa
    python -m torch.distributed.run --nproc_per_node=8 train_vqa.py --config configs/vqa.yaml
    python train_vqa.py --evaluate --checkpoint model_base_vqa_capfilt_large
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

if __name__ == "__main__":
    from settings.interrupts import exit_on_interrupt

    exit_on_interrupt()

from torch import Tensor, nn

import engine
from data.config import VQAData
from data.loaders import EvalLoader, TrainLoader
from data.vqa import VQAEval, VQATrain, answer_list, check_lengths
from evaluation.cases import vqa_findings
from evaluation.findings import Findings
from evaluation.run import evaluate_splits
from evaluation.text_limit import text_limit
from evaluation.text_survey import survey_candidates, survey_texts
from metrics.vqa import read_annotations, score_vqa
from models.blip_vqa import BLIPVQA, blip_vqa
from settings import check, setting
from settings.model import ModelSettings
from transform.image import normalize


@dataclass
class Config(engine.TrainConfig, ModelSettings, VQAData):
    """VQA's keys beside those of training, model and data."""

    inference: Literal["rank", "generate"] = setting("rank", "choose from the answer list, or generate an answer")
    k_test: int = setting(128, "candidates with the likeliest first token, which the loss of the whole answer ranks")

    def __post_init__(self) -> None:
        check(self.k_test >= 1, "k_test", self.k_test, "at least 1")
        super().__post_init__()


@dataclass(frozen=True)
class VQASplit:
    """Questions, what people answered to each (where known; on the first process), answers to choose from (if any)."""

    loader: EvalLoader[VQAEval]
    annotated: dict[Any, dict[str, Any]]
    candidates: list[str]


def evaluated_splits(run: engine.Run[Config]) -> list[str]:
    """With --evaluate the test split, or what stands in for it; after each epoch of a training, val_file if given."""
    if run.evaluate_only:
        return [run.config.own_split("test") or "test"]
    return ["val"] if run.config.val_file else []


def read_split(run: engine.Run[Config], name: str) -> VQASplit:
    """All of a split but its pictures, so that a wrong file costs neither a training nor an evaluation."""
    config = run.config
    questions = VQAEval(config.annotations(name), config.eval_transform(), **config.image_folders())
    official, annotated = config.ground_truth(name), {}
    if run.is_first:
        annotated = read_annotations(official, questions.question_ids) if official else questions.ground_truth()
    candidates = answer_list(config.answer_file(), text_limit(config)) if config.inference == "rank" else []
    if candidates and annotated:
        survey_candidates(name, annotated, candidates, config.answer_file())
    return VQASplit(config.eval_loader(questions, config.batch_size_test, run.share), annotated, candidates)


def build_loader(run: engine.Run[Config]) -> TrainLoader:
    config = run.config
    folders = config.image_folders()
    dataset = VQATrain(config.annotations("train"), config.train_transform(), seed=run.seed, **folders)
    check_lengths(dataset, text_limit(config))
    if run.is_first:
        survey_texts(dataset.annotations, "question", config)
        survey_texts(dataset.annotations, "answer", config)
    return config.train_loader(dataset, config.batch_size_train, run.share)


def build_model(config: Config) -> BLIPVQA:
    return blip_vqa(config.pretrained, **config.architecture())


def train_step(model: nn.Module, batch: dict[str, Any], progress: engine.Progress) -> dict[str, Tensor]:
    del progress
    image = normalize(batch["image"])
    return {"loss": model(image, batch["question"], batch["answers"], n=batch["n"], weights=batch["weights"])}


def predict(run: engine.Run[Config], model: BLIPVQA, questions: VQASplit) -> list[dict[str, Any]]:
    """Answer each question, by choosing among candidates or generating -> `{question_id, answer}` each."""
    candidates, predictions = questions.candidates, []
    tokens = model.tokenizer(candidates, padding="longest", return_tensors="pt") if candidates else None
    for batch in run.batches(questions.loader, "answer questions"):
        image, question = normalize(batch["image"]), batch["question"]
        if tokens is None:
            answers = model.generate_answers(image, question)
        else:
            best, _ = model.rank_answers(image, question, tokens, run.config.k_test)
            answers = [candidates[i] for i in best[:, 0].tolist()]
        given = zip(batch["question_id"], answers, strict=True)
        predictions += [{"question_id": question_id, "answer": answer} for question_id, answer in given]
    return predictions


def score(run: engine.Run[Config], name: str, questions: VQASplit, predictions: list[dict[str, Any]]) -> Findings:
    """Accuracy, if people's answers are known: those of the published test split are on the server only."""
    if not questions.annotated:
        figures = ("accuracy",) if run.config.own_split(name) else ("test-dev", "test-std")
        reason = f"no answers here; the server takes result/{name}.json"
        return Findings({}, {}, not_computed=dict.fromkeys(figures, reason))
    scores = score_vqa(predictions, questions.annotated)
    asked = questions.loader.dataset.questions()
    return vqa_findings(predictions, questions.annotated, scores, asked, log_question_types=run.evaluate_only)


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/vqa.yaml", "output/vqa", arguments) as run:
        splits = {name: read_split(run, name) for name in evaluated_splits(run)}
        engine.fit(
            run,
            build_model,
            build_loader,
            train_step,
            evaluate=partial(evaluate_splits, run, "vqa", splits, predict, score) if splits else None,
        )


if __name__ == "__main__":
    main()
