"""The evaluation of a task, split by split: predict, gather, write, score, and compare with what was published.

A script brings what is its own: `predict`, what its model says of a split, and `score`, what that is worth.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from engine import Run, gather_objects
from evaluation.findings import Findings, Picture
from evaluation.gallery import open_picture
from evaluation.provenance import provenance
from evaluation.report import EvaluatedSplit, report

Model = TypeVar("Model", bound=nn.Module)
Split = TypeVar("Split")


def evaluate_splits(
    run: Run[Any],
    task: str,
    splits: Mapping[str, Split],
    predict: Callable[[Run[Any], Model, Split], list[dict[str, Any]]],
    score: Callable[[Run[Any], str, Split, list[dict[str, Any]]], Findings],
    model: Model,
) -> dict[str, Any]:
    """Evaluate a model on every split; `result/SPLIT.json` gets the predictions in the form that servers take.

    Args:
        run: its config has `pretrained`, and `annotations(split)`.
        task: 'caption', 'vqa' or 'nlvr', as checkpoints are known by.
        splits: what `predict` reads, by the split's name.
        predict: the predictions of this process's share of a split.
        score: what they are worth, all of them together; called on the first process.
        model: in eval mode.

    Returns:
        metrics, each under the name of its split; on the first process. Beside them, for `evaluate.txt`, figures that
        were published, with what was got and the difference.
    """
    metrics: dict[str, Any] = {}
    for name, split in splits.items():
        predictions = gather_objects(predict(run, model, split))
        run.write_json(f"result/{name}.json", predictions)
        if run.is_first:
            metrics |= report_split(run, task, name, score(run, name, split, predictions), f"{name}_")
    return metrics


def report_split(
    run: Run[Any],
    task: str,
    split: str,
    findings: Findings,
    prefix: str,
    open_source: Callable[[Any], Picture] = open_picture,
) -> dict[str, Any]:
    """Report what was found on a split, by the first process -> its metrics and its published figures, by name.

    Args:
        prefix: put before the names of the metrics.
        open_source: opens the pictures that the cases name.
    """
    source = run.config.pretrained if run.evaluate_only else None  # while training it is no checkpoint
    evaluated = EvaluatedSplit(split, run.config.annotations(split), task, source, provenance(source))
    metrics = {f"{prefix}{name}": value for name, value in findings.metrics.items()}
    return metrics | report(run.output_dir, evaluated, findings, open_source)
