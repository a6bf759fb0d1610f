"""Every flag of predict.py, the files that it reads, and those that it goes on with."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.harness import Arguments, Case
from tests.hostile.home import PICTURE
from tests.hostile.values import PATHS, WRITABLE, bad_paths

_CHECKPOINTS = {"caption": "caption.pth", "vqa": "vqa.pth", "match": "retrieval.pth", "features": "retrieval.pth"}
_OF_TASK = {"caption": [], "vqa": ["--question=what?"], "match": ["--text=a cat"], "features": ["--out=out.npz"]}
_ODD_TEXTS = (
    "",
    " ",
    "\n",
    "x" * 100_000,
    "\U0001f4a5",
    "\x1b[31mred",
    "\ud800",
    "-",
    "%s%n",
    "[SEP]",
    "?" * 3000,
    "\u202e\u0000".replace("\0", ""),
)
_WRONG_NUMBERS = (
    "",
    "x",
    "-1",
    "1.5",
    "nan",
    "1e9",
    "9" * 5000,
    "0x10",
    "٣",
    "\x1b[31m",
    "1,000",
    "99999999999999999999",
)


def cases() -> Iterator[Case]:
    for task in _OF_TASK:
        for flag in ("batch_size", "device", "precision", "checkpoint"):
            values = {
                "batch_size": (*_WRONG_NUMBERS, "0"),
                "device": ("", "x", "meta", "cuda:99", "cpu:-5", "\x1b[31m", "xla"),
                "precision": ("", "x", "fp64", "FP32"),
                "checkpoint": (
                    "",
                    "x",
                    "x.pth",
                    "a/b",
                    "~nosuchuser/x",
                    "ftp://h/x",
                    "http://[::1/x",
                    "http://127.0.0.1:9/x.pth",
                    "\x1b[31m",
                    "/dev/zero",
                    "/",
                    ".",
                    "x" * 300,
                    "http://" + "h" * 5000 + "/x",
                    "https:///x",
                    "http://h:99999/x",
                ),
            }[flag]
            for value in values:
                sure = flag != "batch_size" or value not in ("٣", "99999999999999999999")
                yield _predicted(task, [f"--{flag}={value}"], "flag", "refused" if sure else "either")
        for what in PATHS:
            yield _predicted(task, ["--checkpoint", what], "path", "refused", path=True)
            if what != "a folder":
                yield _predicted(task, [what], "path", "either", path=True)
            if what not in (*WRITABLE, "a dangling link"):
                yield _predicted(task, ["--out", what], "path", "either", path=True)
    for flag in ("num_beams", "n_best", "max_length", "min_length", "top_k", "seed"):
        for value in _WRONG_NUMBERS:
            if value not in ("1e9",) and not (flag in ("seed",) and value in ("-1",)):
                yield _predicted("caption", ["--sample"] * (flag == "seed") + [f"--{flag}={value}"], "flag")
    for flag in ("top_p", "repetition_penalty"):
        for value in ("", "x", "0", "-1", "nan", "inf", "-inf", "1e400", "2", "1e-300", "1e300"):
            yield _predicted("caption", ["--sample", f"--{flag}={value}"], "flag")
    for value in (
        "",
        "txt",
        ".",
        "..",
        ".jpg",
        ".JPG",
        ".png",
        "./x",
        ".a/b",
        ".\0",
        ".tar.gz",
        "." + "x" * 300,
        ".\x1b[31m",
    ):
        yield _predicted(
            "caption", [f"--sidecar={value}"], "flag", "refused" if value.isprintable() and value else "either"
        )
    for text in _ODD_TEXTS:
        yield _predicted("vqa", [f"--question={text}"], "text", "refused" if text == "\ud800" else "either")
        yield _predicted("match", [f"--text={text}"], "text", "refused" if text == "\ud800" else "either")
        yield _predicted("features", [f"--text={text}"], "text", "refused" if text == "\ud800" else "either")
    for name, content in {
        "nothing": b"",
        "null": b"null",
        "a number": b"5",
        "numbers": b"[1, 2]",
        "an object": b'{"a": 1}',
        "no UTF-8": b'["\xff"]',
        "deep": b"[" * 50_000,
        "blank ones": b'["", " "]',
        "one": b'["yes"]',
        "a surrogate": b'["\\ud800", "a"]',
        "long ones": json.dumps(["x " * 3000, "a"]).encode(),
        "cut": b'["a", "b',
        "a picture": b"\x89PNG\r\n",
        "5,000 digits": b"[" + b"9" * 5000 + b"]",
    }.items():
        yield _with_file("vqa", "--answers", f"answers of {name}", content, "answers.json", "either")
    line = b'{"image": "a.jpg", "caption": "b", "log_prob": -1.0}\n'
    for name, content in {
        "nothing": b"",
        "a half line": line[:20],
        "lines and a half": line + line[:9],
        "no JSON": b"x\n",
        "a list": b"[1]\n",
        "null": b"null\n",
        "NULs": bytes(50) + b"\n",
        "no UTF-8": b"\xff\n",
        "another task's": b'{"image": "a.jpg", "answers": []}\n',
        "deep": b"[" * 50_000 + b"\n",
        "an image of a number": b'{"image": 5, "caption": "b"}\n',
        "a picture": b"\x89PNG\r\n\x1a\n",
        "5,000 digits": b"9" * 5000 + b"\n",
        "blank lines": b"\n\n\n",
        "UTF-16": line.decode().encode("utf-16"),
    }.items():
        yield _with_file("caption", "--out", f"--resume with {name}", content, "out.jsonl", "either")
    for arguments in (
        [],
        ["caption"],
        ["x"],
        ["caption", "*"],
        ["caption", "**/*.nothing"],
        ["caption", "["],
        ["caption", ""],
        ["caption", "\0"],
        ["vqa", PICTURE],
        ["match", PICTURE],
        ["features", PICTURE],
        ["features", PICTURE, "--out=x.txt"],
        ["caption", PICTURE, "--resume"],
        ["caption", PICTURE, "--out=a", "--sidecar=.txt"],
        ["caption", "-"],
        ["--help="],
        ["caption", PICTURE, "--no_such"],
    ):
        yield Case("predict", "flag", f"only {' '.join(arguments)[:50]}", lambda folder, _, a=arguments: a, "refused")


def _predicted(task: str, flags: list[str], kind: str, expected: Any = "either", path: bool = False) -> Case:
    def make(folder: Path, _: np.random.Generator) -> Arguments:
        paths = bad_paths(folder) if path else {}
        given = [paths.get(flag, flag) for flag in flags]
        others = [
            flag
            for flag in _OF_TASK[task]
            if not (flag.startswith("--out") and any(f.startswith("--out") for f in given))
        ]
        others = [flag.replace("out.npz", str(folder / "out.npz")) for flag in others]
        (folder / "picture.jpg").write_bytes(Path(PICTURE).read_bytes())
        return [task, str(folder / "picture.jpg"), "--checkpoint", _CHECKPOINTS[task], *others, *given]

    return Case("predict", kind, f"{task} {' '.join(flags)[:60]}", make, expected)


def _with_file(task: str, flag: str, name: str, content: bytes, file: str, expected: Any) -> Case:
    def make(folder: Path, _: np.random.Generator) -> Arguments:
        (folder / "given").mkdir()
        target = folder / ("given" if flag != "--out" else "out")
        target.mkdir(exist_ok=True)
        (target / file).write_bytes(content)
        resume = ["--resume"] if flag == "--out" else []
        return [task, PICTURE, "--checkpoint", _CHECKPOINTS[task], *_OF_TASK[task], flag, str(target / file), *resume]

    return Case("predict", "file", name, make, expected, ("answers.json", "out.jsonl"))
