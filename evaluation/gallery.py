"""The best and the worst cases of an evaluation as an HTML page in a single file."""

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from evaluation.findings import Case, Picture
from files import atomic_write
from settings import UserError

_THUMBNAIL = 256  # pixels on the longer side
PAGE_HEAD = (
    "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
    "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
)
"""Of every page, up to its title: phones show it in their own width."""
CASES_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
body { overflow-wrap: anywhere; } pre { white-space: pre-wrap; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1rem; }
.case { border: 1px solid #ddd; border-radius: 6px; padding: .6rem; }
.case img { max-width: 100%; max-height: 16rem; display: block; margin-bottom: .3rem; }
.case dl { margin: 0; } .case dt { color: #777; font-size: .8rem; } .case dd { margin: 0 0 .3rem; }
.score { float: right; font-size: .8rem; font-variant-numeric: tabular-nums; color: #555; }
.missing { background: #eee; padding: 2rem .6rem; color: #777; }
"""


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
    sections = ""
    for heading, some in (("Worst", worst), ("Best", best)):
        shown = "".join(case_html(case, open_source) for case in some)
        sections += f"<h2>{heading} ({len(some)})</h2>\n<div class='cases'>\n{shown}</div>\n"
    page = (
        f"{PAGE_HEAD}<title>{html.escape(title)}</title>\n"
        f"<style>{CASES_STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n"
        f"<pre>{html.escape(about)}</pre>\n<p>{len(cases)} samples.</p>\n{sections}</body></html>\n"
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def case_html(case: Case, open_source: Callable[[Any], Picture]) -> str:
    """A case as HTML, which `CASES_STYLE` lays out in an element of class `cases`; all texts are escaped."""
    pictures = "".join(_picture_html(image, open_source) for image in case.images)
    entries = []
    for label, texts in case.lines.items():
        texts = texts if isinstance(texts, list | tuple) else [texts]
        shown = "".join(f"<dd>{html.escape(str(text))}</dd>" for text in texts)
        entries.append(f"<dt>{html.escape(label)}</dt>{shown}")
    score = f"<span class='score'>{html.escape(case.score)}</span>"
    return f"<div class='case'>{pictures}{score}<dl>{''.join(entries)}</dl></div>\n"


def _picture_html(source: str | Path | Picture, open_source: Callable[[Any], Picture]) -> str:
    name = html.escape("" if isinstance(source, Picture) else str(source))
    try:
        image = ImageOps.exif_transpose(open_source(source)).convert("RGB")
    except (OSError, ValueError, UserError, Image.DecompressionBombError) as error:
        return f"<div class='missing'>{name}: {html.escape(str(error))}</div>"
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"<img alt='{name}' title='{name}' src='data:image/jpeg;base64,{data}'>"
