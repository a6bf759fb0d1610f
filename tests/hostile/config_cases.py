"""Bad configs: every key of every script with values of all kinds, bad YAML files, and every flag of the scripts."""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

import capfilt
from tests.hostile.harness import Arguments, Case, Outcome
from tests.hostile.home import SCRIPTS, TASK, TRAININGS, good
from tests.hostile.mutations import cut, flip
from tests.hostile.values import INVALID, PATHS, TEXTS, YAML_FILES, bad_paths, fits, yaml_value

_A_KEY = 5  # values that a key of a script is given
_LONG = {  # what is right, but takes its time
    "max_epoch": ("9007199254740992", "0x10", "0o17"),
    "compile": ("true",),
    "initialize": ("true",),
    "num_workers": ("0x10", "0o17"),
}
_SAYS_NOTHING = ("empty", "blank", "a comment", "null")  # so the paper's data are asked for
_MAKES_A_FOLDER = ("missing", "a folder", "a user without a home", "half a character", "an address")
_DATA_CHECKS = ("pretrain", "caption", "retrieval", "vqa", "nlvr", "nocaps", "video", "capfilt")


def cases() -> Iterator[Case]:
    for script, module in {**SCRIPTS, "capfilt": capfilt}.items():
        kinds = typing.get_type_hints(module.Config)
        rng = np.random.default_rng(0)
        for key, kind in kinds.items():
            if key.startswith("published"):
                continue
            texts = [text for text in TEXTS if text not in _LONG.get(key, ())]
            for number in rng.permutation(len(texts))[:_A_KEY]:
                yield _override(script, key, kind, texts[number])
            if _is_path(key):
                for what in PATHS[:: 1 if key in ("pretrained", "vocab_file", "med_config", "captioner") else 3]:
                    yield _path(script, key, kind, what)
        for name, content in YAML_FILES.items():
            named = ("config.yaml", *(("forbids the network", "corpus = []") if name in _SAYS_NOTHING else ()))
            yield Case(script, "YAML", name, _yaml(script, content), named=named)
        for number in range(10):
            yield Case(script, "YAML", f"cut {number}", _changed_yaml(script, cut))
            yield Case(script, "YAML", f"flipped {number}", _changed_yaml(script, flip))
        yield from _flags(script)
    yield from _checked()


def _is_path(key: str) -> bool:
    return key.endswith(("_file", "_root", "_path", "_files")) or key in (
        *("pretrained", "med_config", "answer_list", "shards", "corpus", "captioner", "filter"),
    )


def _override(script: str, key: str, kind: Any, text: str) -> Case:
    value = yaml_value(text) if text or kind is not str else ""
    wrong = value is INVALID or not fits(value, kind)

    def right(folder: Path, _: Outcome) -> str | None:
        saved = YAML(typ="safe", pure=True).load(folder / "out" / "config.yaml")[key]
        same = saved == value or (isinstance(value, str) and value.startswith("~"))
        return None if same else f"{key} = {saved!r} is in config.yaml"

    return Case(
        script,
        "key=value",
        f"{key}={text[:60]}",
        lambda folder, _: good(script, folder, *_evaluated(script, key), f"{key}={text}"),
        "refused" if wrong else "either",
        (key, key.replace("_file", ""), "vocabulary", *_also_named(key), *filter(None, (text[:20], _as_read(value)))),
        right,
    )


def _as_read(value: Any) -> str:
    """The beginning of a text as YAML has it, without line ends; of other values nothing."""
    return value.strip()[:20] if isinstance(value, str) else ""


def _evaluated(script: str, key: str) -> list[str]:
    return ["--evaluate"] if script in TRAININGS and script != "pretrain" and key == "max_epoch" else []


def _also_named(key: str) -> tuple[str, ...]:
    """What a message may name in place of a key: the one that it contradicts, or the file that takes its place."""
    others = {
        "train_file": ("val_file", "shards"),
        "val_file": ("test_file", "coco_karpathy"),
        "image_root": ("pretrain.json", "images cannot be used"),
        "num_beams": ("num_return_sequences",),
    }
    return others.get(key, ()) + (("offline", "forbids the network") if "file" in key or "root" in key else ())


def _path(script: str, key: str, kind: Any, what: str) -> Case:
    def make(folder: Path, _: np.random.Generator) -> Arguments:
        path = bad_paths(folder)[what]
        return good(script, folder, f"{key}={json.dumps([path] if _is_list(kind) else path)}")

    return Case(
        script, "path", f"{key}: {what}", make, named=(key, "things", "/dev/", "~nosuchuser", "/x/", "/proc/", "127")
    )


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) is list


def _yaml(script: str, content: bytes) -> Any:
    def make(folder: Path, _: np.random.Generator) -> Arguments:
        (folder / "config.yaml").write_bytes(content)
        required = ["train_file=[]"] if script == "pretrain" else []
        return ["--config", str(folder / "config.yaml"), "--output_dir", str(folder / "out"), *required]

    return make


def _changed_yaml(script: str, change: Any) -> Any:
    def make(folder: Path, rng: np.random.Generator) -> Arguments:
        content = (
            Path(f"{TASK[script]}.yaml").read_bytes().replace(b"num_workers: 0\n", b"").replace(b"max_epoch: 1\n", b"")
        )
        (folder / "config.yaml").write_bytes(change(content, rng))
        kept = ["num_workers=0", *(["max_epoch=1"] if script in TRAININGS else [])]
        return ["--config", str(folder / "config.yaml"), "--output_dir", str(folder / "out"), *kept]

    return make


def _flags(script: str) -> Iterator[Case]:
    flags: list[tuple[list[str], str]] = [
        ([f"--seed={value}"], "refused")
        for value in ("x", "", "1.5", "-1", str(2**63), str(2**70), "9" * 5000, "0x10", "nan", "\x1b[31m")
    ]
    flags += [
        ([f"--device={value}"], "refused")
        for value in (
            "x",
            "",
            "meta",
            "cuda:99",
            "cuda:-1",
            "cpu:x",
            "xla",
            "vulkan",
            "cpu,cuda",
            "\x1b[31m",
            "9" * 400,
        )
    ]
    flags += [
        ([flag], "refused")
        for flag in (
            "--no_such_flag",
            "--seed",
            "--evaluate=x",
            "x",
            "=",
            "--config=",
            "--config=x",
            "--config=/dev/zero",
        )
    ]
    flags += [([f"--output_dir={place}"], "refused") for place in ("/dev/null", "/dev/null/x", "/proc/x", "x" * 300)]
    flags += [
        ([f"--output_dir={place}"], "refused") for place in (f"{TASK[script]}.yaml", "~nosuchuser/\0", "a/" * 3000)
    ]
    flags += [([f"--checkpoint={place}"], "refused") for place in ("x.pth", "no_such_model", "\x1b[31m", "/dev/zero")]
    flags += [([f"--resume={place}"], "refused") for place in ("x.pth", "/dev/zero", "output", f"{TASK[script]}.yaml")]
    for arguments, expected in flags:
        yield Case(
            script,
            "flag",
            " ".join(arguments)[:60],
            lambda folder, _, arguments=arguments: good(script, folder, *arguments),
            expected,  # pyright: ignore[reportArgumentType]
        )
    for what in PATHS:
        for flag in ("config", "output_dir", "checkpoint", "resume"):
            if flag != "output_dir" or what not in _MAKES_A_FOLDER:

                def make(folder: Path, _: np.random.Generator, flag: str = flag, what: str = what) -> Arguments:
                    path = bad_paths(folder)[what]
                    return good(script, folder, f"--{flag}={path}")

                expected = "either" if flag == "output_dir" else "refused"
                yield Case(script, "flag", f"--{flag}: {what}", make, expected)


def _checked() -> Iterator[Case]:
    """The same files under data.check, and its flags."""
    for number, (name, content) in enumerate(YAML_FILES.items()):
        task = _DATA_CHECKS[number % len(_DATA_CHECKS)]

        def make(folder: Path, _: np.random.Generator, content: bytes = content, task: str = task) -> Arguments:
            (folder / "config.yaml").write_bytes(content)
            task = {"video": "msrvtt"}.get(task, task)
            return [str(folder / "config.yaml"), "--task", task, "--out", str(folder / "out")]

        yield Case("data.check", "YAML", name, make)
    for task in _DATA_CHECKS:
        name = {"video": "msrvtt"}.get(task, task)
        for flags in (
            *(["--read=0"], ["--read=x"], ["--read=-1"], ["--read=" + "9" * 5000], ["--task=x"], ["--task="], ["--x"]),
            *(["--out=/dev/null/x"], ["--out=/proc/x"], ["--out=" + "x" * 300], ["--out=a\0b"], ["y.yaml"]),
        ):
            yield Case(
                "data.check",
                "flag",
                f"{task} {' '.join(flags)[:50]}",
                lambda folder, _, flags=flags, task=task, name=name: [f"{task}.yaml", f"--task={name}", *flags],
                "refused",
            )
    for what in PATHS:

        def of_path(folder: Path, _: np.random.Generator, what: str = what) -> Arguments:
            return ["--task=caption", bad_paths(folder)[what], "--out", str(folder / "out")]

        yield Case("data.check", "flag", f"config: {what}", of_path, "refused")
