"""Damaged and odd checkpoints, to predict with, to evaluate, and to go on from."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from tests.hostile.harness import Arguments, Case, Outcome
from tests.hostile.home import PICTURE, good
from tests.hostile.mutations import BYTE_CHANGES, Change


def cases() -> Iterator[Case]:
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
            return ["caption", PICTURE, "--checkpoint", str(file), "--out", str(folder / "out.jsonl")]
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
            return ["caption", PICTURE, "--checkpoint", str(folder / file), "--out", str(folder / "out.jsonl")]
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
