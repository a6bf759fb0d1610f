"""What an evaluation found on a split: its figures, and its samples as people look at them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

Picture = Image.Image


@dataclass(frozen=True)
class Case:
    """One sample: its pictures, what there is to read about it, how well it went.

    Attributes:
        images: paths or pictures; two for NLVR2, the retrieved ones for a caption's query.
        lines: label -> text, number, or several of them: {'prediction': ..., 'references': [...]}.
        error: larger is worse, as in `evaluation.report.write_samples`.
        score: what is printed in the corner, such as `CIDEr 132.1` or `rank 7`.
    """

    images: Sequence[str | Path | Picture]
    lines: Mapping[str, Any]
    error: float
    score: str = ""

    def record(self) -> dict[str, Any]:
        """The case as JSON takes it: its lines, its files, its error."""
        return {**self.lines, "images": [str(image) for image in self.images], "error": self.error}


@dataclass(frozen=True)
class Findings:
    """What an evaluation found on one split.

    Attributes:
        metrics: values for the logs, by short names (`r_mean`); the split's name is put before them.
        figures: values for people, by the names that papers use (`TR R@1`).
        cases: the samples.
        not_computed: why a figure is not among `figures`, by its name.
        remarks: what to mind about the figures.
    """

    metrics: Mapping[str, float]
    figures: Mapping[str, float]
    cases: Sequence[Case] = ()
    not_computed: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()
