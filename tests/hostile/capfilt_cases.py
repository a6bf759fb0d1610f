"""Keys and damaged scores of CapFilt's choice, odd lists for its run, and the flags of `python -m demo.bootstrap`."""

import json
import shutil
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bootstrapping.choice import Selection
from tests.hostile.harness import Arguments, Case
from tests.hostile.home import good
from tests.hostile.mutations import BYTE_CHANGES
from tests.hostile.values import INVALID, PATHS, TEXTS, bad_paths, fits, yaml_value

_A_KEY = 8  # values that a key is given
_RUN = Path("output/good/capfilt")


def cases() -> Iterator[Case]:
    yield from _keys()
    yield from _scores()
    yield from _lists()
    yield from _comparison()


def _keys() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for key, kind in typing.get_type_hints(Selection).items():
        for number in rng.permutation(len(TEXTS))[:_A_KEY]:
            value = yaml_value(TEXTS[number])
            wrong = value is INVALID or not fits(value, kind)

            def chosen(folder: Path, _: np.random.Generator, key: str = key, text: str = TEXTS[number]) -> Arguments:
                place = [] if key == "out" else [f"out={json.dumps(str(folder / 'out'))}"]
                run = shutil.copytree(_RUN, folder / "out" / "run") if key == "out" else _RUN
                return ["select", str(run), "gallery=1", *place, f"{key}={text}"]

            if key != "out" or wrong:  # others make a folder anywhere
                name = f"{key}={TEXTS[number][:60]}"
                yield Case("capfilt", "select, key=value", name, chosen, "refused" if wrong else "either", (key,))
    for what in PATHS:
        for key in ("FOLDER", "truth"):

            def placed(folder: Path, _: np.random.Generator, key: str = key, what: str = what) -> Arguments:
                path = bad_paths(folder)[what]
                run = path if key == "FOLDER" else str(_RUN)
                truth = [f"truth={json.dumps(path)}"] if key == "truth" else []
                return ["select", run, f"out={json.dumps(str(folder / 'out'))}", *truth]

            yield Case("capfilt", "select, path", f"{key}: {what}", placed, "refused")


def _scores() -> Iterator[Case]:
    for what, change in BYTE_CHANGES.items():
        for number in range(4):
            for name in ("scores", "capfilt.json"):

                def damaged(
                    folder: Path, rng: np.random.Generator, change: Callable = change, name: str = name
                ) -> Arguments:
                    run = shutil.copytree(_RUN, folder / "run")
                    file = next((run / "scores").iterdir()) if name == "scores" else run / name
                    file.write_bytes(change(file.read_bytes(), rng))
                    return ["select", str(run), f"out={folder / 'out'}", "gallery=1"]

                yield Case("capfilt", "select, damage", f"{name}: {what} {number}", damaged)


def _lists() -> Iterator[Case]:
    picture = "output/demo/web/images"
    for content in (
        *(
            "",
            "[]",
            "{}",
            "null",
            "[1]",
            "[{}]",
            '[{"image": 5}]',
            '[{"image": ""}]',
            '[{"image": "a.jpg"}',
            "[" * 50_000,
        ),
        *('[{"image": "gone.jpg", "caption": "a cat"}]', '[{"url": "http://a/b.jpg"}]', '[{"image": "\\u0000.jpg"}]'),
        *('[{"image": "a.jpg", "uid": "x"}]', '[{"image": "a.jpg", "uid": 5}]', f'[{{"image": "{picture}"}}]'),
        *('[{"image": "\\ud800.jpg"}]', f'[{{"image": "{"x" * 5000}.jpg"}}]', '[{"image": "/dev/zero"}]'),
    ):
        for suffix in (".json", ".jsonl"):

            def listed(folder: Path, _: np.random.Generator, content: str = content, suffix: str = suffix) -> Arguments:
                (folder / f"list{suffix}").write_text(content, encoding="utf-8")
                corpus = json.dumps([str(folder / f"list{suffix}")])
                return good("capfilt", folder, f"corpus={corpus}", "image_root=")

            yield Case("capfilt", "annotations", f"{suffix} of {content[:40]}", listed, "refused")


def _comparison() -> Iterator[Case]:
    for flags in (
        *(["--seed=x"], ["--seed="], ["--seed=-1"], [f"--seed={2**70}"], ["--seed=" + "9" * 5000], ["--no_such"]),
        *(["--quick=5"], ["x"], ["--folder=/dev/null/x"], ["--folder=/proc/x"], ["--folder=output"], ["--table"]),
    ):
        yield Case("demo.bootstrap", "flag", " ".join(flags)[:40], lambda _, __, flags=flags: flags, "refused")
    for what in PATHS:

        def table(folder: Path, _: np.random.Generator, what: str = what) -> Arguments:
            return ["--table", bad_paths(folder)[what]]

        yield Case("demo.bootstrap", "path", f"--table {what}", table, "refused")
    for content in (b"", b"null", b"[]", b"{}", b"\xff", b"[" * 50_000, b'{"arms": 5}', b'{"seed": 0, "arms": {}}'):

        def read(folder: Path, _: np.random.Generator, content: bytes = content) -> Arguments:
            (folder / "results.json").write_bytes(content)
            return ["--table", str(folder)]

        yield Case("demo.bootstrap", "file", f"results.json of {content[:20]!r}", read, "refused")
