"""What a web corpus holds, for CapFilt: pictures, texts, and what cannot be used with the reasons."""

import os

from PIL import Image

from data.check.contact_sheet import ON_SHEET, contact_sheet
from data.check.split_check import EvenSubset, SplitCheck
from data.corpus.sources import CorpusData
from data.corpus.units import CorpusImage
from data.media.image_file import BadImage
from settings import UserError


def check_corpus(config: CorpusData, read: int) -> tuple[SplitCheck, Image.Image | None]:
    """Check all images of a corpus, of which `read` are decoded: the result, and a contact sheet (None without one).

    Raises UserError where there is no such corpus.
    """
    corpus, result = config.open_corpus(), SplitCheck()
    result.count("units of work", len(corpus.units))
    seen: set[str] = set()
    chosen: EvenSubset[tuple[str, str]] = EvenSubset(read)
    for unit in corpus.units:
        try:
            for image in corpus.read(unit):
                if not isinstance(image, CorpusImage):
                    result.problem("image that cannot be used", f"{image.name}: {image.reason}")
                elif isinstance(image.picture, str) and not os.path.exists(image.picture):
                    result.problem("missing image", f"{image.image}: {image.picture}")
                else:
                    if image.uid in seen:
                        result.problem("uid that an earlier image has", f"{image.image}: {image.uid}")
                    seen.add(image.uid)
                    result.count("images")
                    result.count("texts", len(image.texts))
                    result.count("images without a text", not image.texts)
                    chosen.offer((image.image, " | ".join(image.texts)))
        except UserError as error:
            result.problem("broken file", str(error))
    shown: EvenSubset[tuple[Image.Image, str]] = EvenSubset(ON_SHEET)  # only these stay in memory
    for name, text in chosen.kept:
        result.count("images that were read")
        try:
            shown.offer((corpus.open(name).read(), text))
        except BadImage as error:
            result.problem("unreadable image", str(error))
    return result, contact_sheet(shown.kept) if shown.kept else None
