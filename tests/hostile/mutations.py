"""Changes of good files that make them bad, or other in form alone: of bytes, of JSON, of a tar's headers."""

import copy
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

Change = Callable[[bytes, np.random.Generator], bytes]
Expected = Literal["refused", "accepted", "either"]


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """Change one byte."""
    changed = bytearray(content)
    if changed:
        changed[rng.integers(len(changed))] ^= int(rng.integers(1, 256))
    return bytes(changed)


def flip_many(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a hundredth of the bytes."""
    for _ in range(1 + len(content) // 100):
        content = flip(content, rng)
    return content


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """Drop the end."""
    return content[: rng.integers(len(content))] if content else content


def punch(content: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite a part by zeros."""
    start = int(rng.integers(len(content)))
    length = int(rng.integers(1, 1 + len(content) // 4))
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def splice(content: bytes, rng: np.random.Generator) -> bytes:
    """Repeat a part, or leave one out."""
    first, second = sorted(int(place) for place in rng.integers(len(content), size=2))
    return content[:second] + content[first:] if rng.integers(2) else content[:first] + content[second:]


BYTE_CHANGES: dict[str, Change] = {
    "one byte": flip,
    "many bytes": flip_many,
    "the end missing": cut,
    "zeros within": punch,
    "a part twice or missing": splice,
}


def json_texts(records: list[Any]) -> Iterator[tuple[str, bytes, Expected]]:
    """Bad and odd texts made of good records: (what, the file's bytes, what should become of it)."""
    text = json.dumps(records)
    plain = text.encode()
    lines = "\n".join(map(json.dumps, records)).encode()
    yield "nothing", b"", "refused"
    yield "blanks", b" \n\t ", "refused"
    yield "an empty list", b"[]", "refused"
    for word in ("null", "5", "true", '"x"', "[null]", "[5]", '["x"]', "[[]]", "[{}]", "{}", '{"a": 1}', "NaN"):
        yield word, word.encode(), "refused"
    yield "a byte order mark", b"\xef\xbb\xbf" + plain, "accepted"
    yield "indented", json.dumps(records, indent=3).encode(), "accepted"
    yield "line ends of Windows", json.dumps(records, indent=1).replace("\n", "\r\n").encode(), "accepted"
    of_lines = "accepted" if isinstance(records[0], dict) else "refused"  # a file of bare strings is read by nobody
    yield "JSON lines", lines, of_lines
    yield "JSON lines with empty ones", lines.replace(b"\n", b"\n\n") + b"\n\n", of_lines
    yield "blanks around", b"\n\n " + plain + b" \n", "accepted"
    yield "UTF-16", text.encode("utf-16"), "either"
    yield "UTF-32", text.encode("utf-32"), "either"
    yield "a byte that is no UTF-8", plain[:-3] + b"\xff" + plain[-3:], "refused"
    yield "compressed", gzip.compress(plain), "refused"
    yield "a NUL after it", plain + b"\0", "refused"
    yield "NULs", bytes(2000), "refused"
    yield "two lists", plain + plain, "refused"
    yield "a comma at the end", plain[:-1] + b",]", "either"
    yield "single quotes", plain.replace(b'"', b"'"), "refused"
    yield "no closing bracket", plain[:-1], "refused"
    yield "a brace too many", plain[:-2] + b"}}]", "refused"
    yield "comments", b"// of mine\n" + plain, "refused"
    yield "deep", b"[" * 100_000, "refused"
    yield "deep and closed", b"[" * 50_000 + b"]" * 50_000, "refused"
    yield "deep objects", b'[{"a":' * 20_000, "refused"
    yield "5,000 digits", b"[" + b"9" * 5000 + b"]", "refused"
    yield "HTML", b"<!DOCTYPE html><html><body>404</body></html>", "refused"
    yield "YAML", b"- image: a.jpg\n  caption: b\n", "refused"
    yield "CSV", b"image,caption\na.jpg,b\n", "refused"
    yield "Python", repr(records).encode(), "refused"
    yield "a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "refused"
    yield "by id", json.dumps({str(number): record for number, record in enumerate(records)}).encode(), "refused"
    yield "under data", json.dumps({"data": records}).encode(), "refused"
    yield "in a list more", json.dumps([records]).encode(), "refused"
    yield (
        "kohya's layout",
        json.dumps({f"{n}.jpg": {"caption": "a", "tags": "b"} for n in range(9)}).encode(),
        "refused",
    )
    for number in range(4):
        rng = np.random.default_rng(number)
        yield f"cut {number}", cut(plain, rng), "refused"
        yield f"cut lines {number}", lines[: len(lines) // 2 + 3 * number], "either"
        yield f"flipped {number}", flip(plain, rng), "either"
        yield f"spliced {number}", splice(plain, rng), "either"


_OF_NO_TYPE: tuple[Any, ...] = (None, True, 5, 1.5, float("nan"), -(10**30), [], {}, [[]], [None], [5], {"a": 1}, [{}])
_TEXTS: tuple[Any, ...] = (
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "\x1b[31m",
    "x" * 300,
    "x " * 40_000,
    "!!!",
    "\U0001f4a5",
    "../../../etc/passwd",
)


def changed_fields(
    records: list[dict[str, Any]], fields: dict[str, tuple[type, ...]]
) -> Iterator[tuple[str, bytes, Expected]]:
    """One record with one field missing or of another kind; `fields` are those that must be of these types."""
    for number, (field, kinds) in enumerate(fields.items()):
        for value in (*_OF_NO_TYPE, *_TEXTS):
            changed = copy.deepcopy(records)
            changed[min(number, len(records) - 1)][field] = value
            fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
            sure = not fits and not (list in kinds and value and all(isinstance(x, str) for x in _listed(value)))
            of_list = isinstance(value, list) and list in kinds  # of what it may be, the task's own table tells
            expected: Expected = (
                "refused" if sure or (of_list and value and not isinstance(value[0], str)) else "either"
            )
            yield f"{field} = {json.dumps(value)[:40]}", json.dumps(changed).encode(), expected
        missing = copy.deepcopy(records)
        del missing[-1][field]
        yield f"no {field}", json.dumps(missing).encode(), "refused"
        renamed = [{f"{k}s" if k == field else k: v for k, v in record.items()} for record in records]
        yield f"{field}s for {field}", json.dumps(renamed).encode(), "refused"
    for extra in (None, [], {"a": [1, {"b": None}]}, 10**40, "x" * 100_000, 1e308):
        more = json.dumps([{**record, "of no use": extra} for record in records]).encode()
        yield f"a field of no use, {json.dumps(extra)[:20]}", more, "accepted"
    yield (
        "a field twice",
        json.dumps(records).replace('{"', '{"of no use": 1, "of no use": 2, "', 1).encode(),
        "accepted",
    )


def document_texts(
    document: dict[str, Any], key: str, fields: dict[str, tuple[type, ...]]
) -> Iterator[tuple[str, bytes, Expected]]:
    """Bad and odd texts made of a good document, an object with a list of objects under `key`."""
    plain = json.dumps(document).encode()
    for text in (
        b"",
        b" ",
        b"null",
        b"5",
        b"[]",
        b"[5]",
        b'"x"',
        b"{}",
        b"{",
        b"NaN",
        plain[:-1],
        plain + plain,
        plain + b"\0",
    ):
        yield ascii(text[:12]) + f" of {len(text)}", text, "refused"
    yield "UTF-16", plain.decode().encode("utf-16"), "either"
    yield "no UTF-8", plain.replace(b"e", b"\xff", 1), "refused"
    yield "deep", b"[" * 100_000, "refused"
    yield "5,000 digits", b'{"' + key.encode() + b'": ' + b"9" * 5000 + b"}", "refused"
    yield "a byte order mark", b"\xef\xbb\xbf" + plain, "accepted"
    yield "indented", json.dumps(document, indent=1).encode(), "accepted"
    yield "a field of no use", json.dumps(document | {"of no use": [1, {"a": None}]}).encode(), "accepted"
    for value in (*_OF_NO_TYPE, *_TEXTS[:4]):
        sure = not isinstance(value, list) or value == [] or not isinstance(value[0], dict)
        yield (
            f"{key} = {json.dumps(value)[:30]}",
            json.dumps(document | {key: value}).encode(),
            "refused" if sure else "either",
        )
    for field, kinds in fields.items():
        for value in (*_OF_NO_TYPE, *_TEXTS):
            changed = copy.deepcopy(document)
            changed[key][0][field] = value
            sure = not isinstance(value, kinds) or isinstance(value, bool)
            yield f"{field} = {json.dumps(value)[:30]}", json.dumps(changed).encode(), "refused" if sure else "either"
        missing = copy.deepcopy(document)
        del missing[key][-1][field]
        yield f"no {field}", json.dumps(missing).encode(), "refused"
    for number in range(8):
        rng = np.random.default_rng(number)
        yield f"cut {number}", cut(plain, rng), "refused"
        yield f"flipped {number}", flip(plain, rng), "either"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def tar_of(members: list[tuple[str, bytes]], kind: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar file of these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def tar_header_changed(tar: bytes, rng: np.random.Generator) -> bytes:
    """One byte of a member's header changed, and its checksum made to fit."""
    changed = bytearray(tar)
    headers = [at for at in range(0, len(tar), 512) if tar[at + 257 : at + 262] == b"ustar"]
    at = headers[rng.integers(len(headers))]
    place = at + int(rng.choice([0, 50, 99, 100, 110, 124, 125, 130, 135, 136, 156, 157, 160, 257, 262, 300, 345, 400]))
    changed[place] = int(rng.choice([0, 32, 47, 48, 49, 50, 53, 55, 57, 65, 76, 103, 120, 128, 255, rng.integers(256)]))
    changed[at + 148 : at + 156] = b" " * 8
    changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + 512])
    return bytes(changed)
