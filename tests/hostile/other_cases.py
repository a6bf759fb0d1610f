"""Damaged checkpoints; every flag of predict.py, data.shapes, the demonstration and the benchmarks; the factories."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from tests.hostile.harness import Arguments, Case, Outcome
from tests.hostile.home import good
from tests.hostile.mutations import BYTE_CHANGES, Change
from tests.hostile.values import PATHS, bad_paths

_PICTURE = "output/demo/world/images/val/shapes_val_000000000000.jpg"
_CHECKPOINTS = {"caption": "caption.pth", "vqa": "vqa.pth", "match": "retrieval.pth", "features": "retrieval.pth"}
_OF_TASK = {"caption": [], "vqa": ["--question=what?"], "match": ["--text=a cat"], "features": ["--out=out.npz"]}


def cases() -> Iterator[Case]:
    yield from _checkpoints()
    yield from _predict()
    yield from _tools()
    yield from _factories()


def _checkpoints() -> Iterator[Case]:
    for what, change in BYTE_CHANGES.items():
        for number in range(6):
            yield _damaged("predict", "caption.pth", f"{what} {number}", change)
            yield _damaged("predict", "caption.safetensors", f"{what} {number}", change)
            if number < 3:
                yield _damaged("train_caption", "caption.pth", f"evaluated: {what} {number}", change)
                yield _damaged("train_vqa", "vqa.pth", f"--resume: {what} {number}", change)
    for name, content in _odd_checkpoints():
        for entry in ("predict", "train_caption"):
            yield _odd(entry, "odd.pth", name, content)
    for name in (
        "empty",
        "text",
        "cut header",
        "huge header",
        "deep header",
        "header of a list",
        "no UTF-8",
        "one tensor",
    ):
        for entry in ("predict", "train_caption"):
            yield _odd(entry, "odd.safetensors", name, _safetensors(name))
    for key in (
        "model",
        "optimizer",
        "epoch",
        "step",
        "config",
        "rng",
        "progress",
        "scaler",
        "best",
        "version",
        "none",
    ):
        for number, value in enumerate(
            (None, [], {}, "x", -1, 10**30, float("nan"), torch.ones(2), {"a": torch.ones(1)})
        ):
            if number % 3 == len(key) % 3:
                yield _resumed(f"{key} = {str(value)[:20]}", key, value)
        yield _resumed(f"no {key}", key, _MISSING)


_MISSING = object()


def _damaged(entry: str, name: str, what: str, change: Change) -> Case:
    def make(folder: Path, rng: np.random.Generator) -> Arguments:
        if name.endswith("safetensors"):
            model = torch.load("caption.pth", weights_only=True)["model"]
            whole = save({key: value.clone().contiguous() for key, value in model.items()})
        else:
            whole = Path(name).read_bytes()
        file = folder / f"damaged{Path(name).suffix}"
        file.write_bytes(change(whole, rng))
        if entry == "predict":
            return ["caption", _PICTURE, "--checkpoint", str(file), "--out", str(folder / "out.jsonl")]
        if what.startswith("--resume"):
            return good(entry, folder, f"--resume={file}", "max_epoch=2")
        return good(entry, folder, "--evaluate", f"--checkpoint={file}")

    def right(folder: Path, _: Outcome) -> str | None:
        if entry != "predict":
            return None
        read = torch.load if name.endswith("pth") else None
        if read is None:
            return None  # safetensors that others wrote hold no checksums
        try:
            found = read(folder / "damaged.pth", weights_only=True)["model"]
        except Exception as error:
            return f"torch does not read it: {error}"
        expected = torch.load(name, weights_only=True)["model"]
        same = found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
        return None if same else "its weights are others"

    return Case(entry, "checkpoint", f"{name} {what}", make, named=("damaged", "does not fit"), right=right)


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _odd_checkpoints() -> Iterator[tuple[str, Callable[[], bytes]]]:
    def with_model(changes: dict[str, Any]) -> Callable[[], bytes]:
        def make() -> bytes:
            content = torch.load("caption.pth", weights_only=True)
            return _saved({"model": content["model"] | changes, "config": content["config"]})

        return make

    def with_config(config: Any) -> Callable[[], bytes]:
        def make() -> bytes:
            content = torch.load("caption.pth", weights_only=True)
            new = content["config"] | config if isinstance(config, dict) and config else config
            return _saved({"model": content["model"], "config": new})

        return make

    plain: dict[str, Any] = {
        "a list": [1],
        "a tensor": torch.ones(3),
        "a number": 5,
        "None": None,
        "a text": "x",
        "nothing": {},
        "a model of nothing": {"model": {}},
        "a model of None": {"model": None},
        "a model of numbers": {"model": {"a": 5}},
        "keys of numbers": {1: torch.ones(2)},
        "keys of pairs": {(1, 2): torch.ones(2)},
        "a key of None": {None: torch.ones(2)},
        "a model in a model": {"model": {"model": {"a": torch.ones(2)}}},
        "an empty key": {"": torch.ones(2)},
        "a long key": {"x" * 5000: torch.ones(2)},
        "a key of controls": {"\x1b[31m": torch.ones(2)},
        "others' weights": {f"layer{n}.weight": torch.ones(2) for n in range(300)},
        "complex": {"a": torch.ones(2, dtype=torch.complex64)},
    }
    for name, content in plain.items():
        yield name, lambda content=content: _saved(content)
    yield "sparse", lambda: _saved({"model": {"a": torch.ones(2, 2).to_sparse()}})
    yield "meta", lambda: _saved({"model": {"visual_encoder.pos_embed": torch.ones(2, device="meta")}})
    yield "quantized", lambda: _saved({"model": {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}})
    for name in (
        "visual_encoder.pos_embed",
        "visual_encoder.patch_embed.proj.weight",
        "text_decoder.cls.predictions.bias",
    ):
        for value in (
            torch.ones(0),
            torch.ones(()),
            torch.ones(1, 2),
            torch.tensor([[[float("nan")]]]),
            torch.ones(2, dtype=torch.int8),
            torch.ones(2, dtype=torch.bool),
            torch.ones(1, 5, 32).to_sparse(),
            torch.ones(1, 5, 32, device="meta"),
            torch.full((1, 5, 32), float("nan")),
            torch.ones(1, 5, 32, dtype=torch.complex64),
        ):
            yield f"{name} {list(value.shape)} {value.dtype} {value.layout} {value.device}", with_model({name: value})
    for config in (
        None,
        5,
        [],
        "x",
        {},
        {"vit": None},
        {"vit": "huge"},
        {"vit": 5},
        {"vit": {"a": 1}},
        {"vit": {"embed_dim": 0}},
        {"image_size": None},
        {"image_size": "x"},
        {"image_size": -1},
        {"image_size": 33},
        {"image_size": 10**30},
        {"med_config": None},
        {"med_config": 5},
        {"med_config": "missing.json"},
        {"med_config": []},
        {"med_config": {"hidden_size": "x"}},
        {"med_config": {"num_attention_heads": 0}},
        {"vocab_file": 5},
        {"vocab_file": "missing"},
        {"vocab_file": []},
        {"train_file": 5},
        {"train_file": [[]]},
        {"pretrained": 5},
        {"ann_root": []},
        {"prompt": 5},
        {1: 2},
        {"embed_dim": "x"},
    ):
        yield f"config {str(config)[:50]}", with_config(config)
    for content in (
        b"",
        b"\x80",
        b"\x80\x02}q\0.",
        b"PK\x03\x04",
        b"version https://git-lfs",
        b"<html>",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02" + b"(" * 100_000,
        b"\x80\x02" + b"]" * 50_000 + b".",
        bytes(5000),
    ):
        yield f"bytes {content[:16]!r} of {len(content)}", lambda content=content: content


def _safetensors(name: str) -> Callable[[], bytes]:
    def with_header(header: bytes, rest: bytes = b"") -> bytes:
        return len(header).to_bytes(8, "little") + header + rest

    return lambda: {
        "empty": b"",
        "text": b"no tensors here, only words",
        "cut header": with_header(b'{"a": {')[:12],
        "huge header": (2**62).to_bytes(8, "little") + b"{}",
        "deep header": with_header(b"[" * 100_000),
        "header of a list": with_header(b"[1]"),
        "no UTF-8": with_header(b'{"\xff": 1}'),
        "one tensor": save({"a": torch.ones(2)}),
    }[name]


def _odd(entry: str, file: str, name: str, content: Callable[[], bytes]) -> Case:
    def make(folder: Path, _: np.random.Generator) -> Arguments:
        (folder / file).write_bytes(content())
        if entry == "predict":
            return ["caption", _PICTURE, "--checkpoint", str(folder / file), "--out", str(folder / "out.jsonl")]
        return good(entry, folder, "--evaluate", f"--checkpoint={folder / file}")

    sure = not (name.startswith(("config", "text_decoder", "visual_encoder", "bytes")) or name == "others' weights")
    return Case(
        entry, "checkpoint", f"odd: {file} {name}", make, "refused" if sure else "either", ("odd", "med_config")
    )


def _resumed(name: str, key: str, value: Any) -> Case:
    def make(folder: Path, _: np.random.Generator) -> Arguments:
        content = torch.load("nlvr.pth", weights_only=False)
        content[key] = value
        if value is _MISSING:
            del content[key]
            content.pop(sorted(content)[len(name) % len(content)])
        torch.save(content, folder / "odd.pth")
        return good("train_nlvr", folder, f"--resume={folder / 'odd.pth'}", "max_epoch=2")

    return Case("train_nlvr", "checkpoint", f"--resume: {name}", make, named=("odd.pth",))


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


def _predict() -> Iterator[Case]:
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
            if what not in (
                "missing",
                "an address",
                "half a character",
                "an escape",
                "a line end",
                "a user without a home",
                "a dangling link",
            ):
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
        yield _predicted("caption", [f"--sidecar={value}"], "flag", "refused" if value else "either")
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
        ["vqa", _PICTURE],
        ["match", _PICTURE],
        ["features", _PICTURE],
        ["features", _PICTURE, "--out=x.txt"],
        ["caption", _PICTURE, "--resume"],
        ["caption", _PICTURE, "--out=a", "--sidecar=.txt"],
        ["caption", "-"],
        ["--help="],
        ["caption", _PICTURE, "--no_such"],
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
        (folder / "picture.jpg").write_bytes(Path(_PICTURE).read_bytes())
        return [task, str(folder / "picture.jpg"), "--checkpoint", _CHECKPOINTS[task], *others, *given]

    return Case("predict", kind, f"{task} {' '.join(flags)[:60]}", make, expected)


def _with_file(task: str, flag: str, name: str, content: bytes, file: str, expected: Any) -> Case:
    def make(folder: Path, _: np.random.Generator) -> Arguments:
        (folder / "given").mkdir()
        target = folder / ("given" if flag != "--out" else "out")
        target.mkdir(exist_ok=True)
        (target / file).write_bytes(content)
        resume = ["--resume"] if flag == "--out" else []
        return [task, _PICTURE, "--checkpoint", _CHECKPOINTS[task], *_OF_TASK[task], flag, str(target / file), *resume]

    return Case("predict", "file", name, make, expected, ("answers.json", "out.jsonl"))


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
        if what not in (
            "missing",
            "a folder",
            "a user without a home",
            "an address",
            "half a character",
            "an escape",
            "a line end",
        ):

            def placed(folder: Path, _: np.random.Generator, what: str = what) -> Arguments:
                return [f"--out={bad_paths(folder)[what]}", "--images=24"]

            yield Case("data.shapes", "path", what, placed, "either")
        if what not in (
            "missing",
            "an address",
            "half a character",
            "an escape",
            "a line end",
            "a user without a home",
        ):
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
        "caption": ("images", "rounds"),
        "loader": ("rounds", "draws"),
        "retrieval": ("images", "texts", "textbook_pairs", "rounds"),
        "vqa": ("questions", "k", "rounds"),
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
        for flags_of_all in (["--no_such"], ["--device=x"], ["--precision=x"], ["x"]):
            yield Case(
                f"benchmarks.{name}", "flag", " ".join(flags_of_all), lambda folder, _, f=flags_of_all: f, "refused"
            )
        if name != "annotations":
            for place in ("/dev/null/x", "/proc/x", "x" * 300, "a\0b"):
                yield Case(
                    f"benchmarks.{name}",
                    "flag",
                    f"--out={place[:20]}",
                    lambda folder, _, place=place: [f"--out={place}"],
                    "refused",
                )


def _zip(members: dict[str, bytes]) -> bytes:
    import zipfile

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
    names = (
        "blip_decoder",
        "blip_feature_extractor",
        "blip_itm",
        "blip_nlvr",
        "blip_pretrain",
        "blip_retrieval",
        "blip_vqa",
    )
    changes: list[dict[str, Any]] = [
        *({"image_size": value} for value in (0, -1, 33, 10**30, "x", None, 1.5, [], True, float("nan"))),
        *(
            {"vit": value}
            for value in (
                "huge",
                "",
                None,
                5,
                [],
                {},
                {"embed_dim": 0},
                {"a": 1},
                {**small["vit"], "depth": -1},
                {**small["vit"], "num_heads": 7},
                {**small["vit"], "patch_size": 0},
                {**small["vit"], "embed_dim": "x"},
                {**small["vit"], "embed_dim": 10**15 * 2},
            )
        ),
        *(
            {"med_config": value}
            for value in (
                "missing.json",
                "",
                None,
                5,
                [],
                {},
                {"hidden_size": 0},
                {"hidden_size": "x"},
                "configs",
                "\0",
                "x" * 300,
                {"hidden_size": 32, "num_attention_heads": 7},
                {"num_hidden_layers": 10**9},
            )
        ),
        *({"vocab_file": value} for value in ("missing", "configs", "\0", "configs/demo/caption.yaml", 5)),
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
                5,
                "configs/demo/caption.yaml",
            )
        ),
        *({"vit_ckpt_layer": value} for value in (-1, "x", None)),
        {"no_such": 1},
    ]
    for number, change in enumerate(changes):
        for name in names[number % 2 :: 2]:
            if change.get("med_config") == {"num_hidden_layers": 10**9}:
                continue  # right, if slow
            kind = next(iter(change))
            yield Case(
                "hubconf",
                "argument",
                f"{name} {str(change)[:80]}",
                lambda folder, _, name=name, change=change: [name, small | change],
                "either" if change.get(kind) in ("", None, {}, True) or kind == "vocab_file" else "refused",
            )
