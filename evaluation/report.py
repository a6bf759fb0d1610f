"""Reports an evaluation: scores beside published ones, warnings, samples sorted by error, and a gallery."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data.records.published import SPLITS
from engine.log import finite
from evaluation.findings import Findings, Picture
from evaluation.gallery import open_picture, write_gallery
from files import atomic_write, resolve
from models.weights.conversions import CONVERSIONS

logger = logging.getLogger("blip.evaluation")


class Checkpoint(Protocol):
    """What is known of a checkpoint; see `evaluation.provenance`.

    Attributes:
        task: 'retrieval', 'caption', 'vqa', 'nlvr', or 'pretrain' for one that was not fine-tuned.
        finetuned_on: what it was trained on: published splits by their file's name without suffix (`vqa_val`), own
            annotation files by their absolute paths.
        scores: published scores by name; only released checkpoints have any.
    """

    @property
    def task(self) -> str: ...
    @property
    def finetuned_on(self) -> Sequence[str]: ...
    @property
    def scores(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Comparison:
    """One line of the table: a metric, the score got and the one published (None: none), and why none was got."""

    metric: str
    got: float | None
    published: float | None
    reason: str = ""

    @property
    def difference(self) -> float | None:
        return None if self.got is None or self.published is None else self.got - self.published

    def record(self) -> dict[str, float | str | None]:
        """The line as JSON."""
        if self.got is None:
            return {"published": self.published, "not computed": self.reason}
        difference = None if self.difference is None else round(self.difference, 4)
        return {"got": self.got, "published": self.published, "difference": difference}


@dataclass(frozen=True)
class EvaluatedSplit:
    """An evaluated split, and the checkpoint that was evaluated on it.

    Attributes:
        split: the split's name in the config: 'val'.
        files: its annotation files; published splits are recognized by the file's name.
        task: 'retrieval', 'caption', 'vqa' or 'nlvr'.
        source: the checkpoint as the user named it, '' if none was named; None during training.
        checkpoint: what is known of it, if anything.
    """

    split: str
    files: Sequence[Path]
    task: str
    source: str | None = None
    checkpoint: Checkpoint | None = None

    def named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Prefix names with the split's: `val CIDEr`, or as published, for a released checkpoint: `COCO CIDEr`."""
        splits = [SPLITS.get(Path(file).stem) for file in self.files]
        published = self.checkpoint is not None and self.checkpoint.scores
        name = self.split
        if published and len(splits) == 1 and splits[0] is not None:
            name = splits[0].figures or splits[0].name
        return {f"{name} {metric}": value for metric, value in values.items()}

    def warnings(self) -> list[str]:
        """Reasons why the scores may mislead; see `checkpoint_warnings`."""
        if self.source is None:
            return []
        if not self.source:
            return ["no checkpoint was given (--checkpoint): the weights are random"]
        if self.checkpoint is None:
            return []
        splits = [Path(file).stem for file in self.files if Path(file).stem in SPLITS]
        paths = [str(resolve(file).absolute()) for file in self.files]
        found = checkpoint_warnings(splits + paths, self.task, self.checkpoint.task, self.checkpoint.finetuned_on)
        conversion = CONVERSIONS.get(self.source)
        if conversion and conversion.source is None:
            found.append(
                f"which released file {self.source} holds is not known ({conversion.reason}), so no published score "
                "stands beside its own"
            )
        return found


def report(
    folder: Path, evaluated: EvaluatedSplit, found: Findings, open_source: Callable[[Any], Picture] = open_picture
) -> dict[str, dict[str, float | str | None]]:
    """Log the warnings and the table; write `result/SPLIT_samples.json` and `result/SPLIT.html`.

    Call it on one process only. `open_source` opens the images of the cases.

    Returns:
        for `evaluate.txt`, of each metric with a published score: that score, the one got, and the difference.
    """
    for warning in (*evaluated.warnings(), *found.remarks):
        logger.warning("%s", warning)
    published = evaluated.checkpoint.scores if evaluated.checkpoint else {}
    lines = compare(evaluated.named(found.figures), published, evaluated.named(found.not_computed))
    text = format_table(lines)
    logger.info("%s\n%s", evaluated.split, text)
    if found.cases:
        stem = folder / "result" / evaluated.split
        write_samples(stem.with_name(f"{stem.name}_samples.json"), [case.record() for case in found.cases])
        write_gallery(stem.with_name(f"{stem.name}.html"), evaluated.split, found.cases, text, open_source)
    return {line.metric: line.record() for line in lines if line.published is not None}


def compare(
    got: Mapping[str, float],
    published: Mapping[str, float] | None = None,
    not_computed: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """Compare scores with published ones -> a line for each of `got` and of `not_computed`.

    They are matched by name, which includes the dataset: `COCO CIDEr`. A published accuracy is named by its split only:
    `NLVR2 dev`. Published scores that match none are left out.
    """
    published, not_computed = published or {}, not_computed or {}

    def expected(metric: str) -> float | None:
        return published.get(metric, published.get(metric.removesuffix(" accuracy")))

    lines = [Comparison(metric, value, expected(metric)) for metric, value in got.items()]
    return lines + [Comparison(metric, None, expected(metric), why) for metric, why in not_computed.items()]


def format_table(lines: Sequence[Comparison]) -> str:
    """Format the comparison as aligned text. Without any published score, those columns are left out."""
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


def checkpoint_warnings(
    splits: Sequence[str], task: str, checkpoint_task: str, finetuned_on: Iterable[str]
) -> list[str]:
    """Reasons why a score may mislead: a checkpoint of another task, or one that was trained on the split.

    Args:
        splits: the evaluated splits, named as in `finetuned_on`.
        task: the evaluated task: 'retrieval', 'caption', 'vqa', 'nlvr'.
        checkpoint_task: the task that the checkpoint was fine-tuned for, or 'pretrain'.
        finetuned_on: what it was fine-tuned on.
    """
    warnings = []
    if checkpoint_task == "pretrain":
        warnings.append(
            f"the checkpoint is pre-trained only, not fine-tuned for {task}: expect scores far below the paper's"
        )
    elif checkpoint_task != task:
        warnings.append(f"the checkpoint was fine-tuned for {checkpoint_task}, not for {task}")
    seen = set(finetuned_on)
    return warnings + [
        f"the checkpoint was trained on {SPLITS[split].name if split in SPLITS else split}: its score there says "
        "nothing about new data"
        for split in splits
        if split in seen
    ]


def write_samples(path: str | Path, samples: Iterable[Mapping[str, Any]]) -> None:
    """Write samples as a JSON list, one object a line, by falling `error`.

    Each sample must have an `error`, a number that is larger for worse: 1 - accuracy, the rank of the right answer,
    -CIDEr, ... Samples of equal error keep their order. NaN is the worst; it is written as null.
    """
    worst_first = sorted(samples, key=lambda sample: -math.inf if math.isnan(sample["error"]) else -sample["error"])
    lines = [json.dumps(finite(sample), ensure_ascii=False, allow_nan=False) for sample in worst_first]
    with atomic_write(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
