"""The bootstrapped corpus as JSON lists of {image | url, caption}, as the data released with the paper have them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bootstrapping.arrow import compute
from bootstrapping.whole_files import write_whole
from data.records.addresses import are_web_addresses

if TYPE_CHECKING:
    import pyarrow as pa

_CONTROLS = [chr(code) for code in range(32)]


def json_records(images: "pa.Array", captions: "pa.Array") -> "pa.Array":
    """A JSON object for each image and caption, after a comma and the end of a line. No Python object is made a row."""
    pc = compute()
    beginnings = pc.if_else(are_web_addresses(images), ',\n{"url": "', ',\n{"image": "')
    return pc.binary_join_element_wise(beginnings, _escaped(images), '", "caption": "', _escaped(captions), '"}', "")


def _escaped(texts: "pa.Array") -> "pa.Array":
    """Texts as they stand between the quotation marks of JSON."""
    pc = compute()
    texts = pc.replace_substring(pc.replace_substring(texts, "\\", "\\\\"), '"', '\\"')
    if pc.any(pc.match_substring_regex(texts, r"[\x00-\x1f]")).as_py():
        for control in _CONTROLS:
            texts = pc.replace_substring(texts, control, json.dumps(control)[1:-1])
    return texts


class JsonList:
    """A JSON list that is being written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._empty = True
        file.write(b"[")

    def add(self, records: "pa.Array") -> None:
        """Add what `json_records` gave."""
        if not len(records):
            return
        start, end = _offsets(records)
        content = memoryview(records.buffers()[2])[start:end]
        self._file.write(content[1:] if self._empty else content)  # no comma before the first
        self._empty = False

    def close(self) -> None:
        self._file.write(b"\n]\n")


def _offsets(records: "pa.Array") -> tuple[int, int]:
    import pyarrow as pa

    offsets = pa.Array.from_buffers(pa.int32(), len(records) + 1, [None, records.buffers()[1]], offset=records.offset)
    return offsets[0].as_py(), offsets[-1].as_py()


@contextmanager
def open_list(path: Path) -> Iterator[JsonList]:
    """Write a JSON list whole or not at all."""
    with write_whole(path) as file:
        opened = JsonList(file)
        yield opened
        opened.close()
