"""What an evaluation leaves behind: a table against published figures, `evaluate.txt`, and each sample by its error."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import atomic_write


@dataclass(frozen=True)
class Comparison:
    """One line of the table: a metric, what was got, what was published (None: not known), why there is no number."""

    metric: str
    got: float | None
    published: float | None
    reason: str = ""

    @property
    def difference(self) -> float | None:
        return None if self.got is None or self.published is None else self.got - self.published


def compare(
    got: Mapping[str, float],
    published: Mapping[str, float] | None = None,
    not_computed: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """Lines for all of `got` and `not_computed`, beside the figures of a released checkpoint where one was evaluated.

    A published figure is matched by its name, which therefore says the dataset: `COCO CIDEr`, `NLVR2 dev`. Published
    figures of other datasets are left out.
    """
    published, not_computed = published or {}, not_computed or {}
    lines = [Comparison(metric, value, published.get(metric)) for metric, value in got.items()]
    return lines + [Comparison(metric, None, published.get(metric), why) for metric, why in not_computed.items()]


def table(lines: Sequence[Comparison]) -> str:
    """The comparison as text, aligned; the columns for published figures only where there is one."""
    columns = ["metric", "got"]
    if any(line.published is not None for line in lines):
        columns += ["published", "difference"]
    rows = [columns]
    for line in lines:
        got = f"{line.got:.2f}" if line.got is not None else f"not computed: {line.reason}"
        published = "" if line.published is None else f"{line.published:.2f}"
        difference = "" if line.difference is None else f"{line.difference:+.2f}"
        rows.append([line.metric, got, published, difference][: len(columns)])
    numbers = [row for row, line in zip(rows[1:], lines, strict=True) if line.got is not None]
    widths = [max(len(row[i]) for row in [columns, *(numbers if i else rows)]) for i in range(len(columns))]
    aligned = (
        [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return "\n".join("  ".join(row).rstrip() for row in aligned)


def checkpoint_warnings(split: str, task: str, checkpoint_task: str, finetuned_on: Iterable[str]) -> list[str]:
    """What makes a figure mean less than it seems: a split seen in training, a checkpoint made for something else.

    Args:
        split: what is evaluated, named as in `finetuned_on`: `VQA v2 val`.
        task: what it is evaluated for: 'retrieval', 'caption', 'vqa', 'nlvr'.
        checkpoint_task: what the checkpoint was fine-tuned for, or 'pretrain'.
        finetuned_on: splits that the fine-tuning saw.
    """
    warnings = []
    if checkpoint_task == "pretrain":
        warnings.append(
            f"the checkpoint is pre-trained only, not fine-tuned for {task}: expect scores far below the paper's"
        )
    elif checkpoint_task != task:
        warnings.append(f"the checkpoint was fine-tuned for {checkpoint_task}, not for {task}")
    if split in finetuned_on:
        warnings.append(f"the checkpoint was trained on {split}: its score there says nothing about new data")
    return warnings


def write_evaluation(path: str | Path, lines: Sequence[Comparison], **about: Any) -> None:
    """`evaluate.txt`: one JSON object with `about` (checkpoint, split, counts, ...), `scores`, and where there are any,
    `published`, `difference` and `not_computed`."""
    result = {
        **about,
        "scores": {line.metric: line.got for line in lines if line.got is not None},
        "published": {line.metric: line.published for line in lines if line.published is not None},
        "difference": {line.metric: round(line.difference, 4) for line in lines if line.difference is not None},
        "not_computed": {line.metric: line.reason for line in lines if line.got is None},
    }
    _write_json(path, {key: value for key, value in result.items() if value != {}}, indent=2)


def write_samples(path: str | Path, samples: Iterable[Mapping[str, Any]]) -> None:
    """Every sample's prediction, truth and `error`, worst first: a JSON list, an object a line.

    `error` is a number, larger for worse (1 - accuracy, rank of the right answer, minus CIDEr, ...); each sample must
    have one. Samples of equal error keep their order.
    """
    worst_first = sorted(samples, key=lambda sample: -sample["error"])
    lines = [json.dumps(sample, ensure_ascii=False, allow_nan=False) for sample in worst_first]
    with atomic_write(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def _write_json(path: str | Path, content: Any, indent: int) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
