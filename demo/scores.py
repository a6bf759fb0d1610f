"""The models' scores on held-out scenes, beside those of a guess and the targets."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.shapes import Scene, caption_is_right, read_scenes
from metrics.vqa import answer_accuracy, read_annotations, score_vqa

RETRIEVAL_TARGET, CAPTION_TARGET, VQA_MARGIN, NLVR_TARGET = 30.0, 60.0, 25.0, 63.0


@dataclass(frozen=True)
class Score:
    """One line of the report's table; all in percent, but for CIDEr, which may exceed 100.

    Attributes:
        name: what is measured.
        value: of the fine-tuned model on test.
        chance: of a guess that does not look at the picture.
        guess: what that guess is.
        target: what the demo promises to reach.
        scratch: of the same fine-tuning without pre-training, where it was run.
    """

    name: str
    value: float
    chance: float | None = None
    guess: str = ""
    target: float | None = None
    scratch: float | None = None


class Results:
    """The test split's records and predictions, read from the demo's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.world = folder, folder / "world"
        self.scenes: Mapping[str, Scene] = read_scenes(self.world / "scenes.json")
        self.images = [record["image"] for record in self._world_file("caption_test.json")]
        self.retrieval = self._world_file("retrieval_test.json")
        self.questions = self._world_file("vqa_test_questions.json")["questions"]
        annotated = self._world_file("vqa_test_annotations.json")["annotations"]
        self.answers = read_annotations({"annotations": annotated})
        self.right_answer = {entry["question_id"]: entry["multiple_choice_answer"] for entry in annotated}
        self.pairs = self._world_file("nlvr_test.json")

    def _world_file(self, name: str) -> Any:
        return json.loads((self.world / name).read_text(encoding="utf-8"))

    def picture(self, image: str) -> Path:
        return self.world / "images" / image

    def predictions(self, phase: str) -> list[dict[str, Any]]:
        return json.loads((self.folder / phase / "result" / "test.json").read_text(encoding="utf-8"))

    def epochs(self, phase: str) -> list[dict[str, float]]:
        """The lines of a phase's `log.txt`."""
        return [json.loads(line) for line in (self.folder / phase / "log.txt").read_text("utf-8").splitlines()]

    def captions(self, phase: str = "caption") -> dict[str, str]:
        """The model's caption of each picture."""
        return {self.images[entry["image_id"]]: entry["caption"] for entry in self.predictions(phase)}

    def scores(self) -> list[Score]:
        caption, retrieval = self.epochs("caption")[-1], self.epochs("retrieval")[-1]
        right, by_chance = share_right(self.captions(), self.scenes)
        scratch, _ = share_right(self.captions("caption_scratch"), self.scenes)
        known = score_vqa(self.predictions("vqa"), self.answers).overall
        guessed = common_answers(self.answers)[1]
        labels = Counter(pair["label"] for pair in self.pairs)
        return [
            Score(
                "Captions that name every shape and color",
                right,
                by_chance,
                "captions of other pictures",
                CAPTION_TARGET,
                scratch,
            ),
            Score("Captions, CIDEr", caption["test_CIDEr"], scratch=self.epochs("caption_scratch")[-1]["test_CIDEr"]),
            Score("Picture finds its text, R@1", retrieval["test_txt_r1"], *_one_of(self.images), RETRIEVAL_TARGET),
            Score("Text finds its picture, R@1", retrieval["test_img_r1"], *_one_of(self.images), RETRIEVAL_TARGET),
            Score("Questions answered", known, guessed, "most common answer of a type", guessed + VQA_MARGIN),
            Score(
                "Statements judged (NLVR2)",
                self.epochs("nlvr")[-1]["test_acc"],
                100 * max(labels.values()) / len(self.pairs),
                "always the same",
                NLVR_TARGET,
            ),
        ]

    def by_question_type(self) -> list[tuple[str, float, float]]:
        """(type, accuracy, accuracy of the type's most common answer), in percent."""
        scored = score_vqa(self.predictions("vqa"), self.answers).by_question_type
        common = common_answers(self.answers)[0]
        return [(kind, value, common[kind]) for kind, value in scored.items()]


def _one_of(images: Sequence[str]) -> tuple[float, str]:
    return 100 / len(images), f"1 of {len(images)}"


def share_right(captions: Mapping[str, str], scenes: Mapping[str, Scene]) -> tuple[float, float]:
    """The percentage of captions that name everything in their picture; and that of captions shuffled at random."""
    images = [image for image in captions if len(scenes[image].things) <= 2]
    shuffled = random.Random(0).sample(images, len(images))
    right = sum(caption_is_right(captions[image], scenes[image]) for image in images)
    by_chance = sum(
        caption_is_right(captions[other], scenes[image]) for image, other in zip(images, shuffled, strict=True)
    )
    return 100 * right / len(images), 100 * by_chance / len(images)


def common_answers(annotations: Mapping[Any, Mapping[str, Any]]) -> tuple[dict[str, float], float]:
    """Accuracy in percent of answering each question with the best single answer for its type: by type, and over all.

    That answer is chosen by the very questions it is scored on, an advantage that no model has.
    """
    given = defaultdict(list)
    for entry in annotations.values():
        given[entry["question_type"]].append(entry["answers"])
    best = {}
    for kind, several in given.items():
        candidates = {answer for answers in several for answer in answers}
        best[kind] = max(sum(answer_accuracy(one, answers) for answers in several) for one in candidates)
    by_type = {kind: 100 * total / len(given[kind]) for kind, total in best.items()}
    return by_type, 100 * sum(best.values()) / len(annotations)
