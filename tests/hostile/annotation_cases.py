"""Bad annotation files of every task, ground truths, answer lists, vocabularies and text configs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.harness import Arguments, Case, Outcome
from tests.hostile.home import SCRIPTS, TASK, figures, good, world
from tests.hostile.mutations import Expected, changed_fields, document_texts, json_texts

_TEXT, _TEXTS, _ID = (str,), (str, list), (int, str)
_ALONE = ("test_file=", "test_gt_file=", "val_gt_file=")  # the validation split is the only one, with its own answers


@dataclass(frozen=True)
class _File:
    """An annotation file that a script reads.

    Attributes:
        key: the config's, `{}` standing for the file's name.
        source: the good one.
        fields: of its records, those that must be there and of these types.
        arguments: further ones.
    """

    script: str
    key: str
    source: str
    fields: dict[str, tuple[type, ...]]
    arguments: tuple[str, ...] = ()

    @property
    def records(self) -> list[Any]:
        text = world(self.source).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()] if self.source.endswith("l") else json.loads(text)

    def command(self, folder: Path, file: Path) -> list[str]:
        return good(self.script, folder, *self.arguments, self.key.format(file))


_RETRIEVAL = {"image": _TEXT, "caption": _TEXTS}
_QUESTIONS = {"image": _TEXT, "question": _TEXT, "answer": _TEXTS}
_PAIRS = {"images": (list,), "sentence": _TEXT, "label": (str, bool, int)}
_FILES = {
    "pretrain": _File("pretrain", "train_file=['{}']", "../web/pretrain.json", _RETRIEVAL),
    "caption": _File("train_caption", "train_file={}", "caption_train.json", _RETRIEVAL, ("val_gt_file=",)),
    "caption val": _File("train_caption", "val_file={}", "caption_val.json", _RETRIEVAL, ("--evaluate", *_ALONE)),
    "retrieval": _File("train_retrieval", "train_file={}", "retrieval_train.json", _RETRIEVAL),
    "retrieval test": _File("train_retrieval", "test_file={}", "retrieval_test.json", _RETRIEVAL, ("--evaluate",)),
    "vqa": _File("train_vqa", "train_file={}", "vqa_train.json", _QUESTIONS),
    "vqa val": _File(
        "train_vqa",
        "val_file={}",
        "vqa_val.json",
        {"image": _TEXT, "question": _TEXT},
        ("--evaluate", "test_file=", "test_gt_file="),
    ),
    "nlvr": _File("train_nlvr", "train_file={}", "nlvr_train.json", _PAIRS),
    "nlvr test": _File("train_nlvr", "test_file={}", "nlvr_test.json", _PAIRS, ("--evaluate",)),
    "nocaps": _File("eval_nocaps", "val_file={}", "nocaps_val.json", {"image": _TEXT, "img_id": _ID}),
    "video": _File("eval_retrieval_video", "test_file={}", "video_test.jsonl", {"clip_name": _TEXT, "caption": _TEXTS}),
}
_TRUTHS = {
    "caption": _File(
        "train_caption",
        "val_gt_file={}",
        "caption_val_gt.json",
        {"image_id": _ID, "caption": _TEXT},
        ("--evaluate", "test_file=", "test_gt_file="),
    ),
    "vqa": _File("train_vqa", "test_gt_file={}", "vqa_test_annotations.json", {"question_id": _ID}, ("--evaluate",)),
    "nocaps": _File("eval_nocaps", "val_gt_file={}", "nocaps_val_gt.json", {"image_id": _ID, "caption": _TEXT}),
}
_SHARE = 2  # of the changes of a field, how many are passed over for one that is tried


def cases() -> Iterator[Case]:
    for what, file in _FILES.items():
        for name, content, expected in json_texts(file.records):
            yield _case(file, "annotations", f"{what}: {name}", content, expected)
        for number, (name, content, expected) in enumerate(changed_fields(file.records, file.fields)):
            if number % _SHARE == 0 or expected == "accepted":
                yield _case(file, "annotations", f"{what}: {name}", content, expected)
    for what, file in _TRUTHS.items():
        for name, content, expected in document_texts(
            json.loads(world(file.source).read_text()), "annotations", file.fields
        ):
            yield _case(file, "ground truth", f"{what}: {name}", content, expected)
    yield from _lists()
    yield from _checked()


def _case(file: _File, kind: str, name: str, content: bytes, expected: Expected) -> Case:
    def make(folder: Path, _: np.random.Generator) -> Arguments:
        (folder / "file.json").write_bytes(content)
        return file.command(folder, folder / "file.json")

    def right(folder: Path, _: Outcome) -> str | None:
        baseline = Path("output/good", TASK[file.script] + ("_evaluated" if "--evaluate" in file.arguments else ""))
        if expected != "accepted" or not figures(folder / "out") or file.arguments or file.script == "train_vqa":
            return None
        same = figures(folder / "out") == figures(baseline)
        return None if same else "its figures are not those of the good file"

    named = ("file.json", "missing image", "No such file", "images")
    return Case(file.script, kind, name, make, expected, named, right)


def _lists() -> Iterator[Case]:
    """Answer lists, vocabularies, and the sizes of text models."""
    answers = ["yes", "no", "red", "2"]
    ranked = _File("train_vqa", "answer_list={}", "answer_list.json", {}, ("--evaluate",))
    for name, content, expected in json_texts(answers):
        sure: Expected = "either" if name == '["x"]' else expected
        yield _case(ranked, "answer list", name, content, sure)
    for value in (None, 5, True, [], {}, "", " ", "\0", "\ud800", "x" * 3000, "x " * 3000, 1e400):
        yield _case(
            ranked, "answer list", f"with {json.dumps(value)[:30]}", json.dumps([*answers, value]).encode(), "either"
        )
    words = world("vocab.txt").read_bytes()
    texts: dict[str, bytes] = {
        "nothing": b"",
        "blank lines": b"\n" * 50,
        "a byte order mark": b"\xef\xbb\xbf" + words,
        "UTF-16": words.decode().encode("utf-16"),
        "no UTF-8": words + b"\xff\xfe\n",
        "NULs": bytes(500),
        "a word twice": words + b"red\nred\n",
        "no special tokens": b"a\nb\nc\n",
        "line ends of Windows": words.replace(b"\n", b"\r\n"),
        "JSON": b'{"a": 1}',
        "a line of 1 MB": b"x" * 2**20,
        "a picture": b"\x89PNG\r\n\x1a\n",
    }
    for script in SCRIPTS:
        vocabulary = _File(script, "vocab_file={}", "vocab.txt", {}, ("pretrained=",))
        for name, content in texts.items():
            case = _case(vocabulary, "vocabulary", name, content, "either")
            yield Case(script, case.kind, name, case.make, named=("file.json", "vocab"))
        sizes = _File(script, "med_config={}", "vocab.txt", {}, ("pretrained=",))
        for name, content in _text_configs():
            case = _case(sizes, "med_config", name, content, "either")
            # `{}` is good: the sizes of BERT-base, for which the memory of these cases may not suffice.
            yield Case(script, case.kind, name, case.make, named=("file.json", "med_config", "memory is too small"))


_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def _text_configs() -> Iterator[tuple[str, bytes]]:
    plain = json.dumps(_SIZES).encode()
    for word in (
        b"",
        b"null",
        b"5",
        b"[]",
        b'"x"',
        b"{",
        b"{}",
        b"\xff\xfe",
        b"[" * 50_000,
        b"{'a': 1}",
        b"\xef\xbb\xbf" + plain,
        plain + plain,
    ):
        yield ascii(word[:20]), word
    for number, value in enumerate(
        (None, 0, -1, 1, 7, 1.5, 1e400, 10**30, 10**9, "32", True, [], {}, [32], "x" * 1000)
    ):
        for key in list(_SIZES)[number % 2 :: 2]:
            yield f"{key} = {str(value)[:20]}", json.dumps(_SIZES | {key: value}).encode()
    for extra in (
        {"hidden_act": "x"},
        {"hidden_act": None},
        {"layer_norm_eps": "x"},
        {"layer_norm_eps": -1},
        {"hidden_dropout_prob": 2},
        {"vocab_size": -5},
        {"vocab_size": 10**12},
        {"add_cross_attention": "x"},
        {"": 1},
        {"x" * 5000: 1},
    ):
        yield f"with {str(extra)[:40]}", json.dumps(_SIZES | extra).encode()


def _checked() -> Iterator[Case]:
    """The same files under data.check: what a script refuses it finds."""
    for what, file in _FILES.items():
        texts = [*json_texts(file.records), *changed_fields(file.records, file.fields)]
        for number, (name, content, expected) in enumerate(texts):
            if number % 4 == 1:
                yield _check_case(what, file, name, content, expected)


def _check_case(what: str, file: _File, name: str, content: bytes, expected: Expected) -> Case:
    def make(folder: Path, _: np.random.Generator) -> Arguments:
        (folder / "file.json").write_bytes(content)
        text = Path(f"{TASK[file.script]}.yaml").read_text(encoding="utf-8")
        key, _, value = file.key.format(folder / "file.json").partition("=")
        dropped = [argument.partition("=")[0] for argument in file.arguments if argument.endswith("=")]
        lines = [line for line in text.splitlines() if line.partition(":")[0] not in (key, *dropped)]
        (folder / "config.yaml").write_text("\n".join([*lines, f"{key}: {value}"]) + "\n", encoding="utf-8")
        task = {"video": "msrvtt"}.get(TASK[file.script], TASK[file.script])
        return [str(folder / "config.yaml"), "--task", task, "--out", str(folder / "out")]

    sure: Expected = "either" if expected == "accepted" else expected
    return Case("data.check", "annotations", f"{what}: {name}", make, sure, ("file.json", "missing image"))
