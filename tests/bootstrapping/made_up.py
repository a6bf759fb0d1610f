"""Made-up scores, and what a plain loop chooses among them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bootstrapping.scores import TextScore, write_scores
from data.corpus.sources import CorpusData, open_corpus
from data.corpus.units import CorpusImage

ABOUT = {"captioner": {"source": "a.pth", "sha256": "a" * 64}, "filter": {"source": "b.pth", "sha256": "b" * 64}}
TEXTS = ["a cat", "a dog", 'say "no"', "back\\slash", "tab\tand\nline", "\x01\x1f", "é 字 🙂", "", "a cat "]


def uid(number: int) -> str:
    return f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"


def row(
    number: int, source: str = "web", n: int = 0, text: str = "a cat", match: float = 0.5, **more: Any
) -> TextScore:
    values = {"uid": uid(number), "image": f"{number:03d}.jpg", "cosine": 0.25, **more}
    return TextScore(source=source, n=n, text=text, match=match, **values)


def random_rows(images: Iterable[int], seed: int) -> list[TextScore]:
    """A few texts an image, with many equal texts and equal scores."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in images:
        image = f"https://example.org/{number}?a=1" if number % 3 == 0 else f'folder "{number % 7}"/{number}.jpg'
        for source, most in (("web", 3), ("synthetic", 4)):
            for n in range(rng.integers(0, most)):
                match, cosine = np.float32(rng.integers(0, 21) / 20), np.float32(rng.integers(-10, 11) / 10)
                text = TEXTS[rng.integers(len(TEXTS))]
                rows.append(row(number, source, n, text, float(match), cosine=float(cosine), image=image))
    return rows


def write_run(
    folder: Path, files: Mapping[str, list[TextScore]], run: Mapping[str, Any] | None = None, about: Any = ABOUT
) -> Path:
    """An output folder as a run leaves it: rows by the unit's name."""
    for name, rows in files.items():
        write_scores(folder / "scores" / f"{name}.parquet", rows, about)
    folder.mkdir(exist_ok=True)
    (folder / "capfilt.json").write_text(json.dumps(run if run is not None else {}))
    return folder


def scored(folder: Path, sources: list[str], texts: dict[str, list[tuple[str, str, float]]], **keys) -> Path:
    """The output folder of a run over a corpus, in which images (by the end of their names) have the given texts."""
    corpus = open_corpus(sources, **keys)
    files = {}
    for unit in corpus.units:
        rows = []
        for image in corpus.read(unit):
            if not isinstance(image, CorpusImage):
                continue
            found = next((found for end, found in texts.items() if image.image.endswith(end)), [])
            for n, (source, text, match) in enumerate(found):
                rows.append(TextScore(image.uid, image.image, source, n, text, match, 0.1))
        files[unit.name] = rows
    return write_run(folder, files, {"corpus": corpus.identity, "places": CorpusData(corpus=sources, **keys).places()})


def chosen_plainly(
    rows: list[TextScore],
    threshold: float | None = None,
    keep: float | None = None,
    by_source: bool = False,
    cosine: float | None = None,
    captions_per_image: int | None = None,
) -> list[TextScore]:
    """What is to be kept of all rows, in their order, by the documentation's words."""
    name = "match" if cosine is None else "cosine"
    least = dict.fromkeys(("web", "synthetic"), np.float32(0.5 if threshold is None else threshold))
    if cosine is not None:
        least = dict.fromkeys(least, np.float32(cosine))
    if keep is not None:
        for source in least:
            found = sorted((r.match for r in rows if not by_source or r.source == source), reverse=True)
            if found:
                least[source] = np.float32(found[max(1, round(keep * len(found))) - 1])
    kept: list[TextScore] = []
    by_image: dict[str, list[TextScore]] = {}
    for one in rows:
        by_image.setdefault(one.uid, []).append(one)
    for texts in by_image.values():
        unique: dict[str, TextScore] = {}
        for one in sorted(texts, key=lambda r: (r.source != "web", r.n)):
            if np.float32(getattr(one, name)) >= least[one.source]:
                unique.setdefault(one.text, one)
        best = sorted(unique.values(), key=lambda r: (-np.float32(getattr(r, name)), r.source != "web", r.n))
        kept += best[:captions_per_image]
    return [one for one in rows if one in set(kept)]
