"""`report.html`: one page with every figure and picture inside it."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from data.shapes import caption_is_right
from demo.curves import draw
from demo.recipe import Step
from demo.retrieved import retrieve
from demo.scores import Results, Score
from files import atomic_write
from metrics.vqa import answer_accuracy

SHOWN = 12  # pictures a section; always the first ones of the split, never chosen


def write_report(folder: Path, steps: Sequence[Step], about: str) -> list[Score]:
    """Write `report.html` and its figures into `folder`, where the recipe has run. Returns the scores shown."""
    results = Results(folder)
    scores = results.scores()
    minutes = sum(step.seconds for step in steps) / 60
    body = [
        "<h1>BLIP on the embedded world</h1>",
        f"<p>A small BLIP model, pre-trained and fine-tuned in {minutes:.1f} minutes. {escape(about)} All scores and "
        "pictures are of held-out scenes, which no training has seen; pictures are the first of the split, not chosen."
        "</p>",
        f"<div class='scores'>{''.join(map(_card, scores))}</div>",
        "".join(_figure(title, path) for title, path in draw(results, scores)),
        _section(
            "What pre-training is worth",
            "The same fine-tuning, as many steps on the same annotations, from the pre-trained checkpoint and from "
            "random weights.",
            _table(
                ("score", "pre-trained", "from scratch"),
                [(s.name, _number(s.value), _number(s.scratch)) for s in scores if s.scratch is not None],
            ),
        ),
        _section("Captions", "", _grid(_captions(results))),
        *_retrieval(results),
        _section("Questions", "", _grid(_questions(results))),
        _table(
            ("type of question", "accuracy", "most common answer"),
            [(kind, _number(value), _number(guess)) for kind, value, guess in results.by_question_type()],
        ),
        _section(
            "Statements about two pictures (NLVR2)",
            "Is the sentence true of the left and the right picture?",
            _grid(_statements(results), wide=True),
        ),
        _section(
            "The commands",
            "Each runs by hand too, from the root of the repository.",
            _table(
                ("step", "seconds", "command"),
                [(s.title, f"{s.seconds:.0f}", s.command) for s in steps],
                code=True,
            ),
        ),
    ]
    page = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text(page.substitute(body="\n".join(body)), encoding="utf-8")
    return scores


def _card(score: Score) -> str:
    lines = []
    if score.chance is not None:
        lines.append(f"a guess: {_number(score.chance)} ({score.guess})")
    if score.target is not None:
        lines.append(f"target: {_number(score.target)}")
    if score.scratch is not None:
        lines.append(f"without pre-training: {_number(score.scratch)}")
    small = "".join(f"<small>{escape(line)}</small>" for line in lines)
    mark = "" if score.target is None else f" class='{_mark(score.value >= score.target)}'"
    name = f"<div{mark}>{escape(score.name)}</div>"
    return f"<div class='card'>{name}<div class='value'>{_number(score.value)}</div>{small}</div>"


def _captions(results: Results) -> Iterable[str]:
    for image, caption in list(results.captions().items())[:SHOWN]:
        right = caption_is_right(caption, results.scenes[image])
        yield f"{_scene(results, image)}<div class='{_mark(right)}'>{escape(caption)}</div>"


def _retrieval(results: Results) -> Iterable[str]:
    by_text, by_picture = retrieve(results, queries=min(6, len(results.images)), answers=5)
    cards = []
    for found in by_text:
        shown = zip(found.answers, found.right, strict=True)
        pictures = "".join(_scene(results, image, "yes" if right else "no") for image, right in shown)
        cards.append(f"<strong>{escape(found.query)}</strong><div class='row'>{pictures}</div>")
    about = f"The best 5 of {len(results.images)}; green: the text was written of this picture, or of one just like it."
    yield _section("Pictures found by a text", about, "".join(f"<div class='card'>{card}</div><br>" for card in cards))
    cards = []
    for found in by_picture:
        shown = zip(found.answers[:3], found.right, strict=False)
        texts = "".join(f"<li class='{_mark(right)}'>{escape(text)}</li>" for text, right in shown)
        cards.append(f"<div class='row'>{_scene(results, found.query)}</div><ul>{texts}</ul>")
    yield _section("Texts found by a picture", f"The best 3 of {len(results.images)}.", _grid(cards, wide=True))


def _questions(results: Results) -> Iterable[str]:
    said = {entry["question_id"]: entry["answer"] for entry in results.predictions("vqa")}
    for number, image in enumerate(results.images[:SHOWN]):
        lines = []
        for entry in results.questions:
            question = entry["question_id"]
            if entry["image_id"] != number:
                continue
            right = answer_accuracy(said[question], results.answers[question]["answers"]) > 0.5
            truth = "" if right else f" <span class='truth'>({escape(results.right_answer[question])})</span>"
            answer = f"<b>{escape(said[question])}</b>{truth}"
            lines.append(f"<li>{escape(entry['question'])}<div class='{_mark(right)}'>{answer}</div></li>")
        yield f"{_scene(results, image)}<ul>{''.join(lines)}</ul>"


def _statements(results: Results) -> Iterable[str]:
    # every fifth, as four neighbors share a sentence
    for entry in results.predictions("nlvr")[: 5 * SHOWN : 5]:
        pictures = "".join(_scene(results, image) for image in results.pairs[entry["index"]]["images"])
        right = entry["prediction"] == entry["label"]
        answer = f"<div class='{_mark(right)}'>{'true' if entry['prediction'] else 'false'}</div>"
        yield f"<div class='row'>{pictures}</div><div>{escape(entry['sentence'])}</div>{answer}"


def _section(title: str, about: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2><p>{escape(about)}</p>{content}"


def _grid(cards: Iterable[str], wide: bool = False) -> str:
    inside = "".join(f"<div class='card'>{card}</div>" for card in cards)
    return f"<div class='grid{' wide' if wide else ''}'>{inside}</div>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], code: bool = False) -> str:
    """Text in the first column, numbers in the next ones; commands in the last where `code`."""
    kinds = ["", *[" class='n'"] * (len(head) - 1)]
    if code:
        kinds[-1] = ""
    titles = "".join(f"<th{kind}>{escape(title)}</th>" for kind, title in zip(kinds, head, strict=True))
    lines = []
    for row in rows:
        cells = [escape(cell) for cell in row]
        if code:
            cells[-1] = f"<code>{cells[-1]}</code>"
        lines.append("".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, cells, strict=True)))
    return f"<table><tr>{titles}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _scene(results: Results, image: str, mark: str = "") -> str:
    return f"<img class='scene {mark}' alt='' src='{_embedded(results.picture(image), 'jpeg')}'>"


def _figure(title: str, path: Path) -> str:
    return f"<h2>{escape(title)}</h2><img class='figure' alt='{escape(title)}' src='{_embedded(path, 'png')}'>"


def _embedded(path: Path, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _mark(right: bool) -> str:
    return "yes-text" if right else "no-text"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
