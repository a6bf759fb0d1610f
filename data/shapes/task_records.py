"""The scenes of a split as annotation records, in the formats of docs/data.md.

What a function writes about scene `k` depends on (seed, split, k) only; where pictures are combined, on the block of
`BLOCK` consecutive scenes that holds `k`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from data.shapes.captions import write_captions
from data.shapes.description import NUMBERS
from data.shapes.questions import ANSWERS, Question, ask_questions
from data.shapes.scene import Level, Scene, seeded_rng
from data.shapes.statements import write_statement

JSON = dict[str, Any]

BLOCK = 8
ANNOTATORS = 10
REFERENCES = 5  # captions of a validation or test picture, as COCO has
CAPTIONS = 2  # captions of a training picture
QUESTIONS = 3  # questions about a picture
STATEMENTS = 4  # sentences about a block, each with 4 pairs: 2 records a picture


class SplitScenes:
    """The scenes of one split and the random streams of its texts."""

    def __init__(self, seed: int, name: str, level: Level, scenes: Sequence[Scene]) -> None:
        self.seed, self.name, self.attributes, self.scenes = seed, name, level.attributes, scenes
        self.images = [image_name(name, k) for k in range(len(scenes))]

    def rng(self, k: int, what: str) -> random.Random:
        return seeded_rng(self.seed, self.name, k, what)

    def captions(self, k: int, what: str, count: int, detailed: bool = False) -> list[str]:
        return write_captions(self.rng(k, what), self.scenes[k], self.attributes, count, detailed)

    def questions(self, k: int, what: str, count: int) -> list[Question]:
        return ask_questions(self.rng(k, what), self.scenes[k], self.attributes, count)

    def __len__(self) -> int:
        return len(self.scenes)


def image_name(split: str, k: int) -> str:
    """The path of picture `k`; the number at its end is the picture's id, as in COCO's file names."""
    return f"{split}/shapes_{split}_{k:012d}.jpg"


def pretraining(split: SplitScenes, noise: float) -> tuple[list[JSON], list[JSON]]:
    """(pairs, list of the wrong ones): as on the web, a fraction `noise` has the caption of another picture.

    The caption of a picture with the same things would be right by chance, so it is never taken.
    """
    own = [split.captions(k, "web", 1)[0] for k in range(len(split))]
    pairs: list[JSON] = []
    swapped: list[JSON] = []
    for k, (image, caption) in enumerate(zip(split.images, own, strict=True)):
        rng, start = split.rng(k, "noise"), k - k % BLOCK
        block = range(start, min(start + BLOCK, len(split)))
        donors = [j for j in block if split.scenes[j].kinds != split.scenes[k].kinds]
        if rng.random() < noise and donors:
            donor = rng.choice(donors)
            caption = own[donor]
            swapped.append({"row": k, "image": image, "caption_of": split.images[donor]})
        pairs.append({"image": image, "caption": caption})
    return pairs, swapped


def training_captions(split: SplitScenes, detailed: bool) -> list[JSON]:
    """Records of the training split, one for each caption; `detailed` ones are for retrieval."""
    what = "retrieval" if detailed else "caption"
    return [
        {"image": image, "caption": caption, "image_id": f"shapes_{k}"}
        for k, image in enumerate(split.images)
        for caption in split.captions(k, what, CAPTIONS, detailed)
    ]


def reference_captions(split: SplitScenes, detailed: bool) -> list[JSON]:
    """Records of a validation or test split; `detailed` captions (for retrieval) tell a picture from all others."""
    what = "retrieval" if detailed else "caption"
    return [
        {"image": image, "caption": split.captions(k, what, REFERENCES, detailed)}
        for k, image in enumerate(split.images)
    ]


def coco_ground_truth(records: Sequence[JSON], domains: Sequence[str] | None = None) -> JSON:
    """The captions as a ground truth file of COCO; with `domains` ('in-domain', ...), of NoCaps."""
    images = [{"id": k, "file_name": record["image"]} for k, record in enumerate(records)]
    for image, domain in zip(images, domains or (), strict=False):
        image["domain"] = domain
    captions = [(k, caption) for k, record in enumerate(records) for caption in record["caption"]]
    annotations = [{"id": i, "image_id": k, "caption": caption} for i, (k, caption) in enumerate(captions)]
    return {"images": images, "annotations": annotations}


def vqa(split: SplitScenes, with_answers: bool) -> list[JSON]:
    """Records of `dataset: vqa`; `question_id` // 10 is the picture's id."""
    records: list[JSON] = []
    for k, i, question in _questions(split):
        record = {
            "dataset": "vqa",
            "image": split.images[k],
            "question": question.text,
            "question_id": 10 * k + i,
        }
        records.append(
            record | {"answer": _annotate(split.rng(k, f"answers{i}"), question)} if with_answers else record
        )
    return records


def visual_genome(split: SplitScenes) -> list[JSON]:
    """One question a picture, with one answer."""
    return [
        {"dataset": "vg", "image": image, "question": question.text, "answer": question.answer}
        for k, image in enumerate(split.images)
        for question in split.questions(k, "vg", 1)
    ]


def official_vqa(split: SplitScenes) -> tuple[JSON, JSON]:
    """(questions, annotations) as the VQA evaluation reads them."""
    header = {"task_type": "Open-Ended", "data_type": "mscoco", "data_subtype": split.name}
    questions: list[JSON] = []
    annotations: list[JSON] = []
    for k, i, question in _questions(split):
        identity = {"image_id": k, "question_id": 10 * k + i}
        given = _annotate(split.rng(k, f"answers{i}"), question)
        questions.append(identity | {"question": question.text})
        annotations.append(
            identity
            | {
                "question_type": question.type,
                "answer_type": question.answer_type,
                "multiple_choice_answer": question.answer,
                "answers": [
                    {"answer_id": n, "answer": answer, "answer_confidence": "yes"} for n, answer in enumerate(given, 1)
                ],
            }
        )
    return header | {"questions": questions}, header | {"annotations": annotations}


def _questions(split: SplitScenes) -> Iterator[tuple[int, int, Question]]:
    for k in range(len(split)):
        for i, question in enumerate(split.questions(k, "vqa", QUESTIONS)):
            yield k, i, question


def _annotate(rng: random.Random, question: Question) -> list[str]:
    """The answers of ten annotators: at least eight are right; up to two write a number as a word or are mistaken."""
    answers = [question.answer] * ANNOTATORS
    for place in rng.sample(range(ANNOTATORS), rng.choice((0, 0, 1, 2))):
        if question.answer_type == "number" and rng.random() < 0.5:
            answers[place] = NUMBERS[int(question.answer)]
        else:
            same_type = [other for other in ANSWERS if Question("", other, "").answer_type == question.answer_type]
            answers[place] = rng.choice(same_type)
    return answers


def nlvr(split: SplitScenes) -> list[JSON]:
    """Records of pairs of pictures within each block. `identifier` is NLVR2's: split-set-pair-sentence."""
    records: list[JSON] = []
    for start in range(0, len(split), BLOCK):
        block = split.scenes[start : start + BLOCK]
        rng = split.rng(start, "nlvr")
        statements = filter(None, (write_statement(rng, block, split.attributes) for _ in range(STATEMENTS)))
        for sentence, (text, pairs) in enumerate(statements):
            for number, pair in enumerate(pairs):
                records.append(
                    {
                        "images": [split.images[start + pair.left], split.images[start + pair.right]],
                        "sentence": text,
                        "label": str(pair.label),
                        "identifier": f"{split.name}-{start // BLOCK}-{number}-{sentence}",
                    }
                )
    return records
