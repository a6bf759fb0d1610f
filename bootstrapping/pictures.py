"""The pictures of a run's corpus, by what its scores call them."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from evaluation.findings import Picture
from settings import UserError


def picture_opener(run: Mapping[str, Any]) -> Callable[[str], Picture]:
    """Opens a picture of the corpus of a run, whose `capfilt.json` holds `run`; raises UserError.

    Nothing of the corpus is looked for before the first picture is opened.
    """
    roots: dict[str, str] = {}

    def open_picture(image: str) -> Picture:
        from data.records.pictures import downloaded_name, is_address, open_picture  # imports torch

        if not roots:
            roots.update(_roots(run))
        if is_address(image):
            return open_picture(os.path.join(roots["url_root"], downloaded_name(image))).read()
        return open_picture(os.path.join(roots["image_root"], image)).read()

    return open_picture


def _roots(run: Mapping[str, Any]) -> dict[str, str]:
    """The folders that downloads, and the names of the other images, start from."""
    try:
        kind, config = run["corpus"]["kind"], run["config"]
        sources, image_root, url_root = config["corpus"], config["image_root"], config["url_root"]
    except (KeyError, TypeError):
        raise UserError("capfilt.json does not say what the corpus was") from None
    if kind == "folder":
        image_root = os.path.expanduser(sources[0])
    elif kind != "lists":
        from data.records.annotations import list_files
        from data.records.shards import relative_names

        image_root, _ = relative_names(list_files(sources, "corpus"))
    return {"url_root": url_root, "image_root": image_root}
