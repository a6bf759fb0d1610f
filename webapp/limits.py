"""What a visitor may ask: uploads are read, and texts taken, within limits."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data.media.image_file import BadImage, ImageFile
from settings import UserError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one visitor gets at once.

    Attributes:
        upload: of an uploaded file, in MB; the server refuses larger ones while they come.
        pixels: of a picture, in millions.
        characters: of what is typed into a field.
        texts: that are compared with a picture.
        answers: to choose from.
        captions: of a picture.
        beams: of the search for captions.
        found: pictures that a search shows.
    """

    upload: int = 10
    pixels: int = 50
    characters: int = 5000
    texts: int = 20
    answers: int = 200
    captions: int = 5
    beams: int = 10
    found: int = 12

    def picture(self, path: str | Path | None) -> Image.Image:
        """An uploaded picture, upright RGB. Messages have its name, not its place on this machine.

        Raises:
            UserError: there is none, it cannot be read, or it has too many pixels.
        """
        if not path:
            raise UserError("Choose a picture first.")
        name = Path(path).name
        try:
            file = ImageFile(path, name)
            width, height = file.size
            if width * height > self.pixels * 10**6:
                raise BadImage(name, f"{width}x{height} pixels: more than {self.pixels} million are not accepted")
            return file.read()
        except BadImage as error:
            raise UserError(f"{error.path}: {error.reason}") from error

    def text(self, name: str, typed: str) -> str:
        """What was typed into a field, stripped.

        Args:
            name: of the field, for messages.

        Raises:
            UserError: it is empty, or too long.
        """
        if len(typed) > self.characters:
            raise UserError(f"{name}: {len(typed):,} characters, and at most {self.characters:,} are read.")
        if not (text := " ".join(typed.split())):
            raise UserError(f"{name}: nothing is written there yet.")
        return text

    def lines(self, name: str, typed: str, most: int) -> list[str]:
        """The lines of what was typed into a field, without empty ones and repetitions.

        Raises:
            UserError: there is none, or more than `most`.
        """
        self.text(name, typed)
        lines = list(dict.fromkeys(line for part in typed.splitlines() if (line := " ".join(part.split()))))
        if len(lines) > most:
            raise UserError(f"{name}: {len(lines)} lines, and at most {most} are read.")
        return lines

    def number(self, name: str, value: float | None, most: int) -> int:
        """A whole number from 1 to `most`, which the page's sliders keep to and others may not; None is an empty field.

        Raises:
            UserError: it is not.
        """
        if value is None or not 1 <= value <= most:
            raise UserError(f"{name}: must be from 1 to {most}.")
        return int(value)
