"""Web pages in a single file each: templates in one frame (page.html), with all texts escaped and pictures inside."""

import base64
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_page(template: Path, **values: Any) -> bytes:
    """A page in UTF-8.

    Args:
        template: a file that extends `page.html`; it finds `parts.html` too.
        values: what the template names. Texts among them stay texts, whatever they hold.
    """
    text = _environment(template.parent).get_template(template.name).render(values)
    return text.encode("utf-8", errors="replace")  # a text may hold half a surrogate pair


@cache
def _environment(folder: Path) -> Environment:
    """Templates of a folder, and those of this one."""
    return Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def embedded(content: bytes, kind: str) -> str:
    """The address of a picture that stands inside the page.

    Args:
        content: of its file.
        kind: 'png' or 'jpeg'.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
