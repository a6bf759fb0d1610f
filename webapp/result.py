"""What a model said, as a visitor sees it: lines of words, of which each has its map of the picture."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from evaluation.web_page import embedded, render_page
from models.word_maps import WordMaps
from prediction.heat_maps import draw_heat_map
from settings import UserError

SHOWN = 512  # pixels: the longer side of a picture in the page
_TEMPLATE = Path(__file__).parent / "result.html"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A text that a model wrote or judged.

    Attributes:
        text: as it was written.
        words: of the text, as the model reads them: those that can be clicked.
        maps: finds the maps of these words, for each picture of the result.
        shows: what the maps tell, after "Where the model looks: ".
        label: what kind of text this is, where there are several.
        figure: how sure the model is.
        share: the same from 0 to 1, drawn as a bar.
    """

    text: str
    words: Sequence[str]
    maps: Callable[[], Sequence[WordMaps]]
    shows: str
    label: str = ""
    figure: str = ""
    share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A picture of the result, and what stands below it."""

    read: Callable[[], Image.Image]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a model said of one picture, or of each picture that a search found.

    Attributes:
        lines: its texts.
        pictures: what the maps are of.
        shows_pictures: whether they are shown before a word is clicked.
    """

    lines: Sequence[Line]
    pictures: Sequence[Found]
    shows_pictures: bool = False
    _maps: dict[int, Sequence[WordMaps]] = field(default_factory=dict)

    def page(self, line: int | None = None, word: int | None = None) -> str:
        """The HTML of this result; with the maps of a word, if one is given, by its line's number and its own.

        Raises:
            UserError: there is no such word, or the model can give no maps of that text.
        """
        clicked, pictures = None, []
        if line is not None and word is not None:
            clicked, pictures = self._clicked(line, word), self._heated(line, word)
        elif self.shows_pictures:
            pictures = [_small(found.read()) for found in self.pictures]
        captions = [found.caption for found in self.pictures[: len(pictures)]]
        return render_page(
            _TEMPLATE,
            lines=self.lines,
            clicked=clicked,
            place=(line, word),
            pictures=list(zip(map(_source, pictures), captions, strict=True)),
        ).decode()

    def _clicked(self, line: int, word: int) -> tuple[str, str, bool]:
        """The word, what its maps tell, and whether they show anything."""
        if not (0 <= line < len(self.lines) and 0 <= word < len(self.lines[line].words)):
            raise UserError("There is no such word in this result: click one of those shown.")
        if line not in self._maps:
            self._maps[line] = self.lines[line].maps()
        lit = any(bool(maps.grad_cam[word].any()) for maps in self._maps[line])
        return self.lines[line].words[word], self.lines[line].shows, lit

    def _heated(self, line: int, word: int) -> list[Image.Image]:
        maps = self._maps[line]
        return [
            draw_heat_map(_small(found.read()), one.grad_cam[word])
            for found, one in zip(self.pictures, maps, strict=True)
        ]


def _small(picture: Image.Image) -> Image.Image:
    """A picture at the size at which the page shows it; small ones grow, so that their map is smooth."""
    scale = SHOWN / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _source(picture: Image.Image) -> str:
    """The picture itself as an address: nothing on this machine has to be served for it."""
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=88)
    return embedded(file.getvalue(), "jpeg")
