"""The pictures of a run's corpus, by what its scores call them."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from data.media.image_file import open_image
from evaluation.findings import Picture
from files import is_web_address
from settings import UserError


def picture_opener(run: Mapping[str, Any]) -> Callable[[str], Picture]:
    """Opens a picture of the corpus of a run, whose `capfilt.json` holds `run`; raises UserError.

    Nothing of the corpus is looked for before the first picture is opened.
    """
    roots: dict[str, str] = {}

    def open_picture(image: str) -> Picture:
        if not roots:
            roots.update(_roots(run))
        file = os.path.join(roots["image_root"], image)
        if os.path.isfile(file):  # what follows imports torch, which takes longer than most choices
            return open_image(file)
        from data.records import pictures

        if is_web_address(image):
            file = os.path.join(roots["url_root"], pictures.downloaded_name(image))
        return pictures.open_picture(file).read()

    return open_picture


def _roots(run: Mapping[str, Any]) -> dict[str, str]:
    """The folders that downloads, and the names of the other images, start from."""
    try:
        kind, places = run["corpus"]["kind"], run["places"]
        sources, image_root, url_root = places["corpus"], places["image_root"], places["url_root"]
    except (KeyError, TypeError):
        raise UserError("capfilt.json does not say what the corpus was") from None
    if kind == "folder":
        image_root = sources[0]
    elif kind != "lists":
        from data.records.annotations import list_files
        from data.records.shards import relative_names

        image_root, _ = relative_names(list_files(sources, "corpus", "corpus: file"))
    return {"url_root": url_root, "image_root": image_root}
