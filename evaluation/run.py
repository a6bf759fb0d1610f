"""Evaluates a task split by split: predict, gather, write, score, and compare with published scores.

The script of a task provides `predict`, the model's predictions on a split, and `score`, the findings on them.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from engine import Run, barrier, gather_objects
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
    """Evaluate a model on every split, and write its predictions to `result/SPLIT.json`, as test servers take them.

    Args:
        run: its config has `pretrained`, and `annotations(split)`.
        task: 'caption', 'vqa' or 'nlvr'; compared with the checkpoint's.
        splits: what `predict` reads, by the split's name.
        predict: predicts this process's share of a split.
        score: makes findings of a split's predictions by all processes; called on the first process.
        model: in eval mode.

    Returns:
        on the first process, the metrics with the split's name as prefix; and what `evaluation.report.report` returns.
    """
    metrics: dict[str, Any] = {}
    for name, split in splits.items():
        predictions = gather_objects(predict(run, model, split), f"the predictions on {name}")
        run.write_json(f"result/{name}.json", predictions)
        if run.is_first:
            metrics |= report_split(run, task, name, score(run, name, split, predictions), f"{name}_")
        barrier(f"the scores of {name}")  # SPICE may take longer than an exchange waits
    return metrics


def report_split(
    run: Run[Any],
    task: str,
    split: str,
    findings: Findings,
    prefix: str,
    open_source: Callable[[Any], Picture] = open_picture,
) -> dict[str, Any]:
    """Report the findings on a split -> its metrics, and what `evaluation.report.report` returns.

    Call it on the first process only.

    Args:
        prefix: of the metrics' names.
        open_source: opens the images of the cases.
    """
    source = run.config.pretrained if run.evaluate_only else None  # in training, these were only the start
    evaluated = EvaluatedSplit(split, run.config.annotations(split), task, source, provenance(source))
    metrics = {f"{prefix}{name}": value for name, value in findings.metrics.items()}
    return metrics | report(run.output_dir, evaluated, findings, open_source)
