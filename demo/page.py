"""`report.html`: one page with every figure and picture inside it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.shapes import caption_is_right
from demo.curves import draw
from demo.recipe import Step, next_commands
from demo.retrieved import Retrieved, retrieve
from demo.scores import Results, Score
from evaluation.web_page import embedded, render_page
from files import atomic_write
from metrics.vqa import answer_accuracy

SHOWN = 12  # pictures a section; always the first ones of the split, never chosen


def write_report(folder: Path, steps: Sequence[Step], about: str) -> list[Score]:
    """Write `report.html` and its figures into `folder`, where the recipe has run. Returns the scores shown."""
    results = Results(folder)
    scores = results.scores()
    by_text, by_picture = retrieve(results, queries=min(6, len(results.images)), answers=5)
    page = render_page(
        Path(__file__).with_name("report.html"),
        title="BLIP on the embedded world",
        minutes=f"{sum(step.seconds for step in steps) / 60:.1f}",
        about=about,
        scores=[_score(score) for score in scores],
        figures=[(title, embedded(path.read_bytes(), "png")) for title, path in draw(results, scores)],
        pretraining=[(s.name, _number(s.value), _number(s.scratch)) for s in scores if s.scratch is not None],
        captions=list(_captions(results)),
        pictures=len(results.images),
        by_text=[_found_pictures(results, found) for found in by_text],
        by_picture=[_found_texts(results, found) for found in by_picture],
        questions=list(_questions(results)),
        question_types=[(kind, _number(value), _number(guess)) for kind, value, guess in results.by_question_type()],
        statements=list(_statements(results)),
        steps=[(step.title, f"{step.seconds:.0f}", step.command) for step in steps],
        next_commands=next_commands(folder),
    )
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_bytes(page)
    return scores


def _score(score: Score) -> dict[str, Any]:
    """A score with what it is compared to; `right`: whether it reaches the target (None: there is none)."""
    beside: list[str] = []
    if score.chance is not None:
        beside.append(f"a guess: {_number(score.chance)} ({score.guess})")
    if score.target is not None:
        beside.append(f"target: {_number(score.target)}")
    if score.scratch is not None:
        beside.append(f"without pre-training: {_number(score.scratch)}")
    right = None if score.target is None else score.value >= score.target
    return {"name": score.name, "value": _number(score.value), "beside": beside, "right": right}


def _captions(results: Results) -> Iterator[dict[str, Any]]:
    for image, caption in list(results.captions().items())[:SHOWN]:
        right = caption_is_right(caption, results.scenes[image])
        yield {"picture": _picture(results, image), "caption": caption, "right": right}


def _found_pictures(results: Results, found: Retrieved) -> dict[str, Any]:
    shown = zip(found.answers, found.right, strict=True)
    return {"query": found.query, "pictures": [(_picture(results, image), right) for image, right in shown]}


def _found_texts(results: Results, found: Retrieved) -> dict[str, Any]:
    shown = zip(found.answers[:3], found.right, strict=False)
    return {"picture": _picture(results, found.query), "texts": list(shown)}


def _questions(results: Results) -> Iterator[dict[str, Any]]:
    said = {entry["question_id"]: entry["answer"] for entry in results.predictions("vqa")}
    for number, image in enumerate(results.images[:SHOWN]):
        asked: list[dict[str, Any]] = []
        for entry in results.questions:
            question = entry["question_id"]
            if entry["image_id"] != number:
                continue
            right = answer_accuracy(said[question], results.answers[question]["answers"]) > 0.5
            truth = "" if right else results.right_answer[question]
            asked.append({"question": entry["question"], "answer": said[question], "right": right, "truth": truth})
        yield {"picture": _picture(results, image), "asked": asked}


def _statements(results: Results) -> Iterator[dict[str, Any]]:
    # every fifth, as four neighbors share a sentence
    for entry in results.predictions("nlvr")[: 5 * SHOWN : 5]:
        yield {
            "pictures": [_picture(results, image) for image in results.pairs[entry["index"]]["images"]],
            "sentence": entry["sentence"],
            "judged": "true" if entry["prediction"] else "false",
            "right": entry["prediction"] == entry["label"],
        }


def _picture(results: Results, image: str) -> str:
    return embedded(results.picture(image).read_bytes(), "jpeg")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
