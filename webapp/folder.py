"""A folder of pictures that visitors search: by similarity first, and then by the matching head."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from data.media.folder import find_pictures
from data.media.image_file import BadImage
from models.image_text import similarities
from prediction import Matcher, TextMatch
from prediction.predictor import Predictor
from settings import UserError

logger = logging.getLogger("blip.app")

CANDIDATES = 32  # the most similar pictures, which the matching head then compares with the text
_BATCH = 32


@dataclass(frozen=True)
class FoundPicture:
    """A picture of the folder, how well the text fits it, and its place among all by similarity, from 1."""

    path: Path
    match: TextMatch
    place: int


class SearchedFolder:
    """The pictures of a folder, each as the vector that texts are compared with.

    Args:
        matcher: the model.
        folder: searched at any depth, once, here; pictures that come later are not found.

    Attributes:
        paths: its pictures that can be read.

    Raises:
        UserError: there is no such folder, or none of its pictures can be read.
    """

    def __init__(self, matcher: Matcher, folder: Path) -> None:
        self._matcher = matcher
        names, self.paths, vectors = find_pictures([str(folder)]), list[Path](), []
        predictor = Predictor(matcher.model, matcher.device, "fp32", _BATCH)
        with predictor.computing(), tqdm(total=len(names), desc="look at the folder", disable=None) as bar:
            for readable, image, broken in predictor.batches(names):
                for error in broken:
                    logger.warning("left out: %s", error)
                if readable:
                    self.paths += readable
                    vectors.append(matcher.model.encode_image(image))
                bar.update(len(readable) + len(broken))
        if not vectors:
            raise UserError(f"{folder}: none of its {len(names)} pictures can be read")
        self._vectors = torch.cat(vectors)

    @torch.no_grad()
    def search(self, text: str, count: int) -> Sequence[FoundPicture]:
        """The `count` pictures that the text fits best: of the most similar ones, those with the best match.

        Raises:
            UserError: one of them is no longer there.
        """
        cosines = similarities(self._matcher.model.encode_text(text), self._vectors)[0]
        similar = cosines.topk(min(CANDIDATES, len(cosines))).indices.tolist()
        candidates = [self.paths[place] for place in similar]
        try:
            matches = self._matcher(candidates, text)
        except BadImage as error:
            logger.warning("%s", error)
            raise UserError("A picture of the folder is no longer there. Start the app again.") from error
        found = [
            FoundPicture(path, match, place)
            for place, (path, match) in enumerate(zip(candidates, matches, strict=True), start=1)
        ]
        return sorted(found, key=lambda one: (-one.match.match, -one.match.cosine))[:count]
