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
    roots: list[str] = []

    def open_picture(image: str) -> Picture:
        from data.records.pictures import downloaded_name, is_address, open_picture  # imports torch

        if is_address(image):
            return open_picture(os.path.join(run["config"]["url_root"], downloaded_name(image))).read()
        if not roots:
            roots.append(image_root(run))
        return open_picture(os.path.join(roots[0], image)).read()

    return open_picture


def image_root(run: Mapping[str, Any]) -> str:
    """The folder that the scores' names of images start from."""
    try:
        kind, config = run["corpus"]["kind"], run["config"]
        sources, root = config["corpus"], config["image_root"]
    except (KeyError, TypeError):
        raise UserError("capfilt.json does not say what the corpus was") from None
    if kind == "lists":
        return str(root)
    if kind == "folder":
        return os.path.expanduser(sources[0])
    from data.records.annotations import list_files
    from data.records.shards import relative_names

    return relative_names(list_files(sources, "corpus"))[0]
