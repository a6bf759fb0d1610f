"""The result of an evaluation on a split: scores, and samples for people to inspect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

Picture = Image.Image


@dataclass(frozen=True)
class Case:
    """One sample: its images, the texts about it, and how wrong the model was.

    Attributes:
        images: paths or images: two for NLVR2; for a text query of retrieval, the right image and the one found.
        lines: label -> text, number, or a list of them: {'prediction': ..., 'references': [...]}.
        error: larger is worse; see `evaluation.report.write_samples`.
        score: shown beside the images, such as `CIDEr 132.1` or `rank 7`.
    """

    images: Sequence[str | Path | Picture]
    lines: Mapping[str, Any]
    error: float
    score: str = ""

    def record(self) -> dict[str, Any]:
        """The case for JSON: its lines, files and error."""
        return {**self.lines, "images": [str(image) for image in self.images], "error": self.error}


@dataclass(frozen=True)
class Findings:
    """The result of an evaluation on one split.

    Attributes:
        metrics: scores for the logs, by short names (`r_mean`), which get the split's name as prefix.
        figures: scores for people, by the names that papers use (`TR R@1`).
        cases: the samples.
        not_computed: the reason why a figure is not in `figures`, by its name.
        remarks: warnings about the figures.
    """

    metrics: Mapping[str, float]
    figures: Mapping[str, float]
    cases: Sequence[Case] = ()
    not_computed: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()
