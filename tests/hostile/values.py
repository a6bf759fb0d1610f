"""Bad values: texts behind `key=`, YAML files, paths, flags; and an own judgement of which type a text has."""

import functools
import os
import socket
import types
import typing
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

TEXTS = (
    *("", "null", "true", "false", "yes", "~", "0", "-1", "1", "3", "1.5", "-0.5", "1e-5", "0x10", "0o17", "1e400"),
    *(
        "-1e400",
        ".inf",
        "-.inf",
        ".nan",
        "1e308",
        "9007199254740992",
        "99999999999999999999",
        "9" * 5000,
        "-" + "9" * 30,
    ),
    *("[]", "[1, 2]", "[[[[]]]]", "[null]", "['']", "{}", "{a: 1}", "{1: 2}", "{[1]: 2}", "? [a]", "{a: {b: {c: 1}}}"),
    *("!!int x", "!!binary ====", "!!python/object:os.system x", "!!float x", "!!timestamp x", "!!set {a}", "!x y"),
    *("&a [*a]", "*a", "2026-02-31", "2026-02-28", "'", '"', "[", "{", "a: b: c", "- a", "\t", "\0", "a\0b", "\x07"),
    *(
        "\x1b[31mred",
        "\ud800",
        "x" * 300,
        "/" + "x" * 5000,
        "~nosuchuser/x",
        "{" * 60,
        "[" * 5000,
        "|\n text",
        "\U0001f4a5",
    ),
    *("%s%s%n", "../../..", "-", "--help", "=", "a=b", "<<: 1", "{<<: 1}", "'\\0'", '"\\0"', '"\\ud800"', "%YAML 9.9"),
    *("http://[::1/x", "ftp://h/x.pth", "file:///etc/passwd", "http://127.0.0.1:9/x.pth", "https://" + "h" * 3000),
)

YAML_FILES: dict[str, bytes] = {
    "empty": b"",
    "blank": b"\n \n",
    "a comment": b"# nothing\n",
    "a list": b"- a\n- b\n",
    "a text": b"only words\n",
    "a number": b"5\n",
    "a date": b"2026-01-01\n",
    "null": b"null\n",
    "two documents": b"a: 1\n---\nb: 2\n",
    "a tab": b"a:\n\tb: 1\n",
    "a merge key": b"<<: 5\n",
    "a merge of lists": b"<<: [1, 2]\n",
    "a key that is a list": b"[a]: 1\n",
    "a key that is a mapping": b"{a: 1}: 1\n",
    "a key that is null": b"null: 1\n",
    "a key that is a number": b"5: 1\n",
    "a key that is true": b"true: 1\n",
    "a key that is not a number": b".nan: 1\n",
    "a key that is long": b"x" * 3000 + b": 1\n",
    "a key of control characters": b'"\\e[31m": 1\n',
    "a key that is half a character": b'"\\ud800": 1\n',
    "a key of NUL": b'"\\0": 1\n',
    "a key twice": b"image_size: 32\nimage_size: 32\n",
    "an unknown key": b"imagesize: 32\n",
    "no UTF-8": b"image_size: 32\nimage_root: \xff\xfe\n",
    "UTF-16": "image_size: 32\n".encode("utf-16"),
    "Latin-1": "image_root: \xe4\n".encode("latin-1"),
    "NUL bytes": b"image_size: 32\n\0\0\0",
    "a bell": b"image_size: 32\a\n",
    "an escape": b"\x1b[31mimage_size: 32\n",
    "open quotes": b"image_root: 'a\n",
    "an open list": b"train_file: [a\n",
    "an open mapping": b"vit: {a: 1\n",
    "an anchor in itself": b"vit: &a {a: *a}\n",
    "an unknown anchor": b"vit: *nothing\n",
    "a billion of laughs": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 9)) for c in range(97, 105)),
    "deep lists": b"vit: " + b"[" * 3000 + b"\n",
    "deep mappings": b"vit: " + b"{a: " * 300 + b"\n",
    "a tag of Python": b"vit: !!python/object/apply:os.system ['true']\n",
    "an unknown tag": b"vit: !nobody x\n",
    "a wrong integer": b"image_size: !!int x\n",
    "a wrong float": b"image_size: !!float x\n",
    "a wrong date": b"image_size: 2026-02-31\n",
    "wrong base64": b"image_size: !!binary '='\n",
    "5,000 digits": b"image_size: " + b"9" * 5000 + b"\n",
    "a number of hex digits": b"image_size: 0x" + b"f" * 400 + b"\n",
    "infinity": b"image_size: .inf\n",
    "not a number": b"image_size: .nan\n",
    "a directive": b"%YAML 7.3\n---\nimage_size: 32\n",
    "a bad directive": b"%TAG x\n---\nimage_size: 32\n",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a zip": b"PK\3\4" + bytes(300),
    "JSON": b'{"image_size": "a"}',
    "HTML": b"<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "2 MB": b"# comment\n" * 200_000,
    "a line of 900 KB": b"x" * 900_000 + b": 1\n",
    "a set": b"image_size: !!set {32}\n",
    "an ordered map": b"image_size: !!omap [a: 1]\n",
    "a question mark": b"? image_size\n: [\n",
    "a percent sign": b"image_root: %s\n",
    "an at sign": b"image_root: @x\n",
    "a backtick": b"image_root: `x`\n",
}


def bad_paths(folder: Path) -> dict[str, str]:
    """Paths that no file can be read from, by what they are; makes what is needed in `folder`."""
    things = folder / "things"
    things.mkdir(parents=True, exist_ok=True)
    os.mkfifo(things / "pipe")
    (things / "folder").mkdir()
    (things / "plain").write_bytes(b"plain")
    (things / "dangling").symlink_to(things / "nothing")
    (things / "circle").symlink_to(things / "circle")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(things)  # a socket's name may have 107 characters
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
    return {
        "missing": str(things / "missing"),
        "a pipe": str(things / "pipe"),
        "a folder": str(things / "folder"),
        "a socket": str(things / "socket"),
        "a dangling link": str(things / "dangling"),
        "a circle of links": str(things / "circle"),
        "below a file": str(things / "plain" / "x"),
        "a device": "/dev/zero",
        "the null device": "/dev/null",
        "a terminal": "/dev/tty",
        "a user without a home": "~nosuchuser/x",
        "a name of 300 characters": str(things / ("x" * 300)),
        "a path of 5,000 characters": "/" + "x/" * 2500,
        "memory": "/proc/self/mem",
        "half a character": str(things / "a\udcffb"),
        "an escape": str(things / "a\x1b[31mb"),
        "a line end": str(things / "a\nb"),
        "an address": "http://127.0.0.1:9/x.json",
    }


PATHS = (
    *("missing", "a pipe", "a folder", "a socket", "a dangling link", "a circle of links", "below a file", "a device"),
    *("the null device", "a terminal", "a user without a home", "a name of 300 characters"),
    *("a path of 5,000 characters", "memory", "half a character", "an escape", "a line end", "an address"),
)
WRITABLE = ("missing", "an address", "half a character", "an escape", "a line end", "a user without a home")
"""Of the paths, those at which a file or folder can be made."""


INVALID = object()


@functools.cache
def yaml_value(text: str) -> Any:
    """What a text means as YAML; `INVALID` where it means nothing."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except Exception:
        return INVALID


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a key's type: a whole number is a number too, and nothing else is two things."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is list:
        return isinstance(value, list) and all(fits(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind
