"""Every flag of data.shapes, the demonstration and the benchmarks, their files, and the arguments of the factories."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import models
from tests.hostile.harness import Arguments, Case
from tests.hostile.values import PATHS, WRITABLE, bad_paths


def cases() -> Iterator[Case]:
    yield from _tools()
    yield from _factories()


def _tools() -> Iterator[Case]:
    for flags in (
        *(
            ["--out=x"],
            ["--images=24"],
            ["--out=x", "--images=x"],
            ["--out=x", "--images=0"],
            ["--out=x", "--images=-5"],
            ["--out=x", "--images=5"],
        ),
        *(
            ["--out=x", "--images=" + "9" * 5000],
            ["--out=x", "--images=" + "9" * 30],
            ["--out=x", "--images=9007199254740992"],
            ["--out=x", "--images=1.5"],
            ["--out=", "--images=24"],
        ),
    ):
        yield Case("data.shapes", "flag", " ".join(flags)[:60], lambda folder, _, flags=flags: flags, "refused")
    for flag, values in {
        "seed": ("x", "-1", "1.5", str(2**70), "9" * 5000, ""),
        "noise": ("x", "-1", "2", "nan", "inf", "1e400", ""),
        "size": ("x", "0", "-1", "1", "31", "63", "9" * 30, str(2**31), "1000000", ""),
        "max_objects": ("x", "0", "5", "-1", "9" * 30, ""),
        "level": ("x", "0", "4", ""),
        "no_such": ("1",),
    }.items():
        for value in values:

            def made(folder: Path, _: np.random.Generator, flag: str = flag, value: str = value) -> Arguments:
                return [f"--out={folder / 'out'}", "--images=24", f"--{flag}={value}"]

            yield Case(
                "data.shapes",
                "flag",
                f"--{flag}={value[:30]}",
                made,
                "either" if flag in ("seed", "size") else "refused",
            )
    for what in PATHS:
        if what not in (*WRITABLE, "a folder"):

            def placed(folder: Path, _: np.random.Generator, what: str = what) -> Arguments:
                return [f"--out={bad_paths(folder)[what]}", "--images=24"]

            yield Case("data.shapes", "path", what, placed, "either")
        if what not in WRITABLE:
            yield Case(
                "demo",
                "path",
                f"--report --folder: {what}",
                lambda folder, _, what=what: ["--report", "--folder", bad_paths(folder)[what]],
                "refused",
            )
        for flag in ("source", "out"):

            def emoji(folder: Path, _: np.random.Generator, flag: str = flag, what: str = what) -> Arguments:
                places = {"source": str(folder / "none"), "out": str(folder / "out")} | {flag: bad_paths(folder)[what]}
                return [f"--{name}={place}" for name, place in places.items()]

            yield Case("demo.emoji", "path", f"--{flag}: {what}", emoji, "refused")
    for flags in (
        ["--seed=x"],
        ["--seed="],
        ["--seed=-1"],
        [f"--seed={2**70}"],
        ["--seed=" + "9" * 5000],
        ["--no_such"],
        ["--quick=5"],
        ["x"],
    ):
        yield Case(
            "demo",
            "flag",
            " ".join(flags)[:40],
            lambda folder, _, flags=flags: [*flags, "--quick", "--folder", str(folder / "out")],
            "refused",
        )
    steps = {"seed": 0, "quick": True, "machine": "x", "steps": []}
    for name, content in {
        "nothing": b"",
        "null": b"null",
        "a list": b"[]",
        "an object": b"{}",
        "no UTF-8": b"\xff",
        "deep": b"[" * 50_000,
        "cut": json.dumps(steps).encode()[:-5],
        "no folders": json.dumps(steps).encode(),
        "steps of numbers": json.dumps(steps | {"steps": [1]}).encode(),
        "a step of others": json.dumps(steps | {"steps": [{"a": 1}]}).encode(),
        "steps of None": json.dumps(steps | {"steps": None}).encode(),
    }.items():

        def reported(folder: Path, _: np.random.Generator, content: bytes = content) -> Arguments:
            (folder / "run.json").write_bytes(content)
            return ["--report", "--folder", str(folder)]

        yield Case("demo", "file", f"run.json of {name}", reported, "refused")
    for number, content in enumerate(
        (
            b"",
            b"PK",
            b"x" * 100,
            _zip({}),
            _zip({"../a": b"x"}),
            _zip({"/a": b"x"}),
            _zip({"a" * 300: b"x"}),
            _zip({"images/a\0.png": b"x"}),
            _zip({"images/a.png": b"x"})[:-5],
        )
    ):
        for texts in (b"[]", b"{", b"null", b"[1]", b'[{"caption": "a"}]', b"\xff", b"[" * 50_000):

            def unpacked(
                folder: Path, _: np.random.Generator, content: bytes = content, texts: bytes = texts
            ) -> Arguments:
                source = folder / "source"
                source.mkdir()
                (source / "images.zip").write_bytes(content)
                for name in ("pretrain.json", "train.json", "val.json", "val_gt.json"):
                    (source / name).write_bytes(texts)
                return ["--source", str(source), "--out", str(folder / "out")]

            yield Case("demo.emoji", "file", f"zip {number}, {texts[:20]!r}", unpacked)
    for name, flags in {
        "annotations": ("captions",),
        "run": ("budget", "rounds"),
        "select": ("rows",),
    }.items():
        for flag in flags:
            for value in ("x", "", "0", "-1", "1.5", "9" * 5000):
                yield Case(
                    f"benchmarks.{name}",
                    "flag",
                    f"--{flag}={value[:20]}",
                    lambda folder, _, flag=flag, value=value: [f"--{flag}={value}"],
                    "refused",
                )
        for more in (["--no_such"], ["--device=x"], ["--precision=x"], ["--only=x"], ["--sizes=x"], ["x"]):
            yield Case(f"benchmarks.{name}", "flag", " ".join(more), lambda folder, _, more=more: more, "refused")
        if name == "run":
            for place in ("/dev/null/x", "/proc/x", "x" * 300, "a\0b"):
                yield Case(
                    f"benchmarks.{name}",
                    "flag",
                    f"--out={place[:20]}",
                    lambda folder, _, place=place: [f"--out={place}"],
                    "refused",
                )


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _factories() -> Iterator[Case]:
    small = {
        "image_size": 32,
        "vit": {"embed_dim": 32, "depth": 1, "num_heads": 2, "patch_size": 16},
        "med_config": "configs/demo/med_config.json",
    }
    names = [name for name in models.__all__ if name.startswith("blip_")]
    changes: list[dict[str, Any]] = [
        *({"image_size": value} for value in (0, -1, 33, 10**30)),
        *(
            {"vit": value}
            for value in (
                "huge",
                "",
                {},
                {"embed_dim": 0},
                {"a": 1},
                {**small["vit"], "depth": -1},
                {**small["vit"], "num_heads": 7},
                {**small["vit"], "patch_size": 0},
                {**small["vit"], "embed_dim": 10**15 * 2},
            )
        ),
        *(
            {"med_config": value}
            for value in (
                "missing.json",
                "",
                {"hidden_size": 0},
                {"hidden_size": "x"},
                "configs",
                "\0",
                "x" * 300,
                {"hidden_size": 32, "num_attention_heads": 7},
            )
        ),
        *({"vocab_file": value} for value in ("missing", "configs", "\0", "configs/demo/caption.yaml")),
        *(
            {"pretrained": value}
            for value in (
                "missing.pth",
                "x",
                "\0",
                "~nosuchuser/x",
                "configs",
                "http://[::1/x",
                "ftp://h/x",
                "configs/demo/caption.yaml",
            )
        ),
        {"vit_ckpt_layer": -1},
    ]
    for number, change in enumerate(changes):
        for name in names[number % 2 :: 2]:
            kind = next(iter(change))
            yield Case(
                "hubconf",
                "argument",
                f"{name} {str(change)[:80]}",
                lambda folder, _, name=name, change=change: [name, small | change],
                "either" if change.get(kind) in ("", None, {}, True) or kind == "vocab_file" else "refused",
            )
