"""The values of large JSON files, one by one, in memory that does not grow with the file; and other tools' layouts."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from data.records.layouts import COMPRESSED, hint, hint_on_beginning
from files import open_regular
from settings import UserError

logger = logging.getLogger("blip.data")

_CHUNK = 1 << 22  # characters parsed at once
_LONGEST_VALUE = 1 << 26  # characters; what is longer is taken for broken JSON instead of being read to the file's end
_BEGINNING = 1 << 12  # characters that tell a layout
_QUOTED = 60  # of them, in an error
_VALUE_START = re.compile(r"[^\s,\ufeff]")  # a byte order mark is in the middle where files were put together

_COCO = re.compile(
    r'\{\s*"(?:(?:images|annotations|licenses|categories|questions)"\s*:\s*\[\s*[{\]]'
    r'|info"\s*:\s*\{|(?:type|data_type|data_subtype|task_type)"\s*:\s*")'
)
_KOHYA = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{\s*"(?:caption|tags|train_resolution)"\s*:')
_FROM_KOHYA = (
    "python -c \"import json; json.dump([{'image': k, 'caption': v['caption']} for k, v in "
    "json.load(open('OLD.json', 'rb')).items() if 'caption' in v], open('NEW.json', 'w'))\""
)


class AnnotationError(UserError, ValueError):
    """A file that is not a list of records, or a record that is not in its format; names the file and the record."""


def json_records(source: Path) -> Iterator[Any]:
    """The records of a JSON list, of a JSON Lines file, or of a file in COCO's layout of captions.

    Raises AnnotationError where the file stops being JSON, or is in a layout of other tools.
    """
    opened = open_regular(source)
    beginning = opened.read(8)
    for mark, program in COMPRESSED.items():
        if beginning.startswith(mark):
            opened.close()
            raise AnnotationError(f"{source} is compressed: unpack it ({program})")
    encoding = json.detect_encoding(beginning)  # UTF-8, or UTF-16 as some of Windows' programs write it
    opened.seek(0)
    with io.TextIOWrapper(opened, encoding="utf-8-sig" if encoding == "utf-8" else encoding) as file:
        text = _Text(source, file)
        try:
            yield from _records(text)
        except UnicodeDecodeError as error:
            raise AnnotationError(f"{source}, after record {text.count}: not UTF-8 text ({error.reason})") from None
        except OSError as error:
            raise AnnotationError(f"{source}, after record {text.count}: {error.strerror or error}") from error


def _records(text: "_Text") -> Iterator[Any]:
    if not text.peek():
        raise AnnotationError(f"{text.source} is empty")
    if text.peek() == "[":
        yield from text.items()
        if text.peek():
            raise AnnotationError(f"{text.source}: more follows the closing ]; are these several lists?")
        return
    if text.starts_like(_KOHYA):
        raise AnnotationError(
            f"{text.source} is in kohya's layout, {{path: {{caption, tags}}}}; expected a list of {{image, caption}}. "
            f"To convert it: {_FROM_KOHYA}"
        )
    if text.peek() != "{":
        raise AnnotationError(f"{text.source}, record 1: not valid JSON records: {hint_on_beginning(text.beginning())}")
    if text.starts_like(_COCO):
        yield from _coco_records(text)
    while text.peek():
        yield text.value()


def _coco_records(text: "_Text") -> Iterator[Any]:
    """One record an image, {image, image_id, caption: [..]}; an object that has no images is a record itself."""
    members: dict[str, Any] = {}
    names: dict[Any, str] = {}
    captions: dict[Any, list[Any]] = {}
    seen: set[str] = set()
    for name in text.member_names():
        seen.add(name)
        if name == "images" and text.peek() == "[":
            for image in text.items():
                text.check(isinstance(image, dict) and _is_id(image.get("id")), "an image without id", image)
                text.check(isinstance(image.get("file_name"), str), "an image without file_name", image)
                text.check(image["id"] not in names, "a second image with one id", image)
                names[image["id"]] = image["file_name"]
        elif name in ("annotations", "questions") and text.peek() == "[":
            for one in text.items():
                about_image = isinstance(one, dict) and _is_id(one.get("image_id"))
                text.check(about_image and "caption" in one, "what is no caption", one)
                captions.setdefault(one["image_id"], []).append(one["caption"])
        else:
            members[name] = text.value()
    if not names and not captions and not {"images", "annotations"} <= seen:
        yield members
        return
    if not names:
        raise AnnotationError(f"{text.source} is in COCO's layout, but has no images {{id, file_name}}")
    if lost := captions.keys() - names.keys():
        logger.warning(
            "%s: %d captions are left out, since no image has their image_id; one is %r",
            *(text.source, sum(len(captions[image_id]) for image_id in lost), min(lost, key=str)),
        )
    text.count = 0
    for image_id, file_name in names.items():
        text.count += 1
        # An image without captions, among others with some, is left out of training, and counted there.
        texts = {"caption": captions.get(image_id, [""])} if captions else {}
        yield {"image": file_name, "image_id": image_id, **texts}


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


class _Text:
    """A JSON text that is read in pieces; `count` values have been read."""

    def __init__(self, source: Path, file: TextIO) -> None:
        self.source = source
        self.count = 0
        self._file = file
        self._buffer, self._position = "", 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The character that the next value (or a closing bracket) starts with; "" at the end of the file."""
        while not (start := _VALUE_START.search(self._buffer, self._position)):
            self._buffer, self._position = self._file.read(_CHUNK), 0
            if not self._buffer:
                return ""
        self._position = start.start()
        return start[0]

    def beginning(self) -> str:
        """What comes next, as far as layouts are told by it."""
        while len(self._buffer) - self._position < _BEGINNING and self._more():
            pass
        return self._buffer[self._position : self._position + _BEGINNING]

    def starts_like(self, layout: re.Pattern[str]) -> bool:
        """Whether what comes next has this beginning."""
        return layout.match(self.beginning()) is not None

    def value(self) -> Any:
        """The next value."""
        while True:
            try:
                value, end = self._decode(self._buffer, self._position)
                if end < len(self._buffer) or not self._more():  # a number may go on
                    break
            except json.JSONDecodeError as error:
                too_long = len(self._buffer) - self._position > _LONGEST_VALUE
                if too_long or not self._more():
                    reason = (
                        f"one value of over {_LONGEST_VALUE:,} characters, or {error.msg}; it begins with "
                        f"{self.beginning()[:_QUOTED]!a}"
                        if too_long
                        else error.msg
                    )
                    raise self._wrong(f"not valid JSON ({reason})") from None
            except RecursionError:
                raise self._wrong("not valid JSON (lists or objects are nested too deep)") from None
            except ValueError as error:  # a whole number of thousands of digits
                raise self._wrong(f"not valid JSON ({error})") from None
        self._position = end
        self.count += 1
        return value

    def items(self) -> Iterator[Any]:
        """The values of the list that comes next."""
        self._position += 1
        while (start := self.peek()) != "]":
            if not start:
                raise AnnotationError(
                    f"{self.source} ends after record {self.count} without the closing ]: is it a part of a file?"
                )
            yield self.value()
        self._position += 1

    def member_names(self) -> Iterator[str]:
        """The names in the object that comes next; the value of each must be read before the next is asked for."""
        self._position += 1
        while (start := self.peek()) != "}":
            name = self.value() if start == '"' else None
            if self.peek() != ":" or not isinstance(name, str):
                raise self._wrong("not valid JSON (expected a name and a colon)")
            self._position += 1
            self.peek()
            yield name
        self._position += 1

    def check(self, holds: bool, found: str, value: Any) -> None:
        """Raise AnnotationError for an entry of COCO's layout that is no image or caption."""
        if not holds:
            fields = f"its fields: {', '.join(list(value)[:8])}" if isinstance(value, dict) else "no object"
            described = hint(value) or "; docs/data.md shows the records of each task, a list of objects"
            raise AnnotationError(
                f"{self.source} is in COCO's layout, {{images, annotations}}, with {found} ({fields}); of this layout "
                f"only captions are read{described}"
            )

    def _more(self) -> bool:
        """Read on; False at the end of the file."""
        more = self._file.read(_CHUNK)
        if more:
            self._buffer, self._position = self._buffer[self._position :] + more, 0
        return bool(more)

    def _wrong(self, what: str) -> AnnotationError:
        return AnnotationError(f"{self.source}, record {self.count + 1}: {what}")
