"""The best and the worst cases of an evaluation as an HTML page in a single file."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from evaluation.findings import Case, Picture
from evaluation.web_page import embedded, render_page
from files import atomic_write
from settings import UserError

_THUMBNAIL = 256  # pixels on the longer side


@dataclass(frozen=True)
class ShownPicture:
    """A picture of a page: its address (it stands inside the page), or why there is none."""

    name: str
    source: str = ""
    error: str = ""


@dataclass(frozen=True)
class ShownCase:
    """A case as `parts.html` shows it: figures stand in a row, texts below each other.

    Attributes:
        figures: (label, number, or whether something is so) each.
        texts: (label, its texts) each.
    """

    pictures: Sequence[ShownPicture]
    score: str
    figures: Sequence[tuple[str, str]]
    texts: Sequence[tuple[str, Sequence[str]]]


def open_picture(source: str | Path | Picture) -> Picture:
    return source if isinstance(source, Picture) else Image.open(source)


def write_gallery(
    path: str | Path,
    title: str,
    cases: Sequence[Case],
    about: str = "",
    open_source: Callable[[Any], Picture] = open_picture,
    number: int = 24,
) -> None:
    """Write a page of the `number` worst cases, worst first, and the `number` best, best first; no case is in both.

    Images are embedded as small JPEGs, so that the file can be moved or mailed. In place of one that cannot be read,
    its name and the error are shown.

    Args:
        about: preformatted text above the cases.
        open_source: opens an image of a case; the frame of a clip, for videos.
    """
    ordered = sorted(cases, key=lambda case: (math.isnan(case.error), case.error))
    best = ordered[: min(number, (len(ordered) + 1) // 2)]
    worst = ordered[len(best) :][::-1][:number]
    sections = [
        ("Worst", [shown_case(case, open_source) for case in worst]),
        ("Best", [shown_case(case, open_source) for case in best]),
    ]
    page = render_page(
        Path(__file__).with_name("gallery.html"), title=title, about=about, number=len(cases), sections=sections
    )
    with atomic_write(path) as temporary:
        temporary.write_bytes(page)


def shown_case(case: Case, open_source: Callable[[Any], Picture]) -> ShownCase:
    """A case for the macro `samples` of `parts.html`."""
    figures: list[tuple[str, str]] = []
    texts: list[tuple[str, list[str]]] = []
    for label, value in case.lines.items():
        if isinstance(value, int | float):
            if not case.score.startswith(f"{label} "):  # which stands before the others
                figures.append((label, str(value) if isinstance(value, int) else f"{value:.4g}"))
        else:
            several = value if isinstance(value, list | tuple) else [value]
            texts.append((label, [str(text) for text in several]))
    return ShownCase([_shown_picture(image, open_source) for image in case.images], case.score, figures, texts)


def _shown_picture(source: str | Path | Picture, open_source: Callable[[Any], Picture]) -> ShownPicture:
    name = "" if isinstance(source, Picture) else str(source)
    try:
        image = ImageOps.exif_transpose(open_source(source)).convert("RGB")
    except (OSError, ValueError, UserError, Image.DecompressionBombError) as error:
        return ShownPicture(name, error=str(error) or type(error).__name__)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return ShownPicture(name, embedded(buffer.getvalue(), "jpeg"))
