"""Make the small models that come with this repository: `python -m demo.models output/demo`

It reads what `make demo` left in that folder, and writes

    demo/trained/NAME.safetensors   captioner, matcher and answerer with their vocabulary, in bfloat16
    demo/trained/README.md          what they can do
    demo/pictures/                  the first test pictures, what they show, and what these models say of them

The same folder gives the same models and pictures, byte by byte.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from data.media.image_file import open_image
from data.shapes import Scene
from data.shapes.description import Description
from demo.scores import Results, Score
from engine.failure import exit_on_user_error
from files import REPOSITORY, atomic_write, open_regular
from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_vqa import BLIPVQA
from models.weights.build import build_from_checkpoint
from models.weights.files import read_state
from models.weights.integrity import save_safetensors
from settings import UserError
from settings.flags import Parser, file_path
from settings.messages import message
from transform.image import EvalTransform, normalize

PICTURES = REPOSITORY / "demo" / "pictures"
_SHOWN = 8  # pictures that come along: the first of the split that show different things
_PICTURES_FILE = "pictures.json"
_LAST = "checkpoint_last.pth"
_FOR_TRAINING = ("temp",)  # what a matcher does not read, and retrieval goes on with; its queues and copies start anew


Model = TypeVar("Model", bound=VisionLanguageModel)


@dataclass(frozen=True)
class IncludedModels:
    """The models that come along, each under its name."""

    demo_caption: BLIPDecoder
    demo_match: BLIPMatcher
    demo_vqa: BLIPVQA

    @classmethod
    def load(cls) -> "IncludedModels":
        """The models of this repository, to ask something of."""
        return cls(
            build_from_checkpoint(BLIPDecoder, "demo_caption").eval(),
            build_from_checkpoint(BLIPMatcher, "demo_match").eval(),
            build_from_checkpoint(BLIPVQA, "demo_vqa").eval(),
        )

    def named(self) -> Iterator[tuple[str, VisionLanguageModel]]:
        """Each model with its name."""
        yield from (("demo_caption", self.demo_caption), ("demo_match", self.demo_match), ("demo_vqa", self.demo_vqa))


_TASKS = {
    "demo_caption": "captions",
    "demo_match": "matching, retrieval, features",
    "demo_vqa": "answers to questions",
}
_SCORES = {  # the model of each score of the demo
    "Captions that name every shape and color": "demo_caption",
    "Captions, CIDEr": "demo_caption",
    "Picture finds its text, R@1": "demo_match",
    "Text finds its picture, R@1": "demo_match",
    "Questions answered": "demo_vqa",
}

_CARD = """# The models that come along

Trained by `make demo` (seed {seed}, {minutes:.0f} minutes, {machine}) on pictures that it draws: one or
two things of 8 shapes and 8 colors. They show in seconds, without a network, that everything works. **They know nothing
of photographs.**

| name | for | weights | file |
| --- | --- | ---: | ---: |
{files}

A ViT of 4 layers, 128 wide, on 25 patches of 8x8 pixels (pictures are scaled to 40x40), with text models of 2 layers
and a vocabulary of {words} entries, which stands in each file. Stored in bfloat16; loaded as float32.

| score on the test pictures: percent, and CIDEr | model | score | a guess |
| --- | --- | ---: | ---: |
{scores}

The scores are those of `make demo`'s report, before the weights were rounded to bfloat16. No training saw the test
pictures. `demo/pictures/` holds the first {shown} of them; `pictures.json` there tells what they show, and what these
models say of them, right or wrong.

`python -m demo.models output/demo` writes both folders from a run of `make demo`. License: as the code, BSD-3-Clause.
"""


def store(source: Path, kind: type[Model], path: Path) -> Model:
    """Write the weights of a checkpoint in bfloat16, with all that a model is built from; what was written, loaded."""
    model = build_from_checkpoint(kind, source)
    trained, _ = read_state(source)
    more = {key: trained[key] for key in _FOR_TRAINING if key in trained}
    tensors = {key: _rounded(tensor) for key, tensor in (model.state_dict() | more).items()}
    config = {"prompt": model.prompt} if isinstance(model, BLIPDecoder) else {}
    with atomic_write(path) as temporary:
        save_safetensors(tensors, temporary, {}, {"architecture": model.describe(), "config": config})
    return build_from_checkpoint(kind, path).eval()


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor.clone()


def picture_name(scene: Scene) -> str:
    """What a picture of a scene is called: `two_red_stars.jpg`, `blue_heart_and_red_star.jpg`."""
    kinds = list(dict.fromkeys(thing.kind for thing in scene.things))
    counted = [
        description.counted(count) if (count := description.count(scene)) > 1 else description.words
        for description in (Description(shape=shape, color=color) for shape, color in kinds)
    ]
    return f"{'_and_'.join(counted)}.jpg".replace(" ", "_")


def write_pictures(results: Results, folder: Path, models: IncludedModels) -> None:
    """Write the first test pictures, and `pictures.json` about them, whose records `read_pictures` describes."""
    references = {record["image"]: record["caption"] for record in results.retrieval}
    records: dict[str, dict[str, Any]] = {}
    for image in results.images:
        scene = results.scenes[image]
        if (name := picture_name(scene)) in records:
            continue
        asked = [one for one in results.questions if results.images[one["image_id"]] == image]
        questions = [{"question": one["question"], "answer": results.right_answer[one["question_id"]]} for one in asked]
        records[name] = {"of": image, "scene": scene.to_json(), "captions": references[image], "questions": questions}
        if len(records) == _SHOWN:
            break
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in records.items():
        shutil.copyfile(results.picture(record["of"]), folder / name)
    shutil.copyfile(results.world / "answer_list.json", folder / "answers.json")
    pictures = [{"image": name, **record} for name, record in records.items()]
    said = say(models, folder, pictures)
    text = json.dumps([picture | {"said": words} for picture, words in zip(pictures, said, strict=True)], indent=1)
    with atomic_write(folder / _PICTURES_FILE) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


@torch.inference_mode()
def say(models: IncludedModels, folder: Path, pictures: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the models say of each picture: `{caption, match, answers}`; see `read_pictures`.

    The captions are those of `predict.py caption` without flags, the answers those of `predict.py vqa`.
    """
    texts = [picture["captions"][0] for picture in pictures]
    transform = EvalTransform(models.demo_caption.visual_encoder.image_size)
    for picture in pictures:
        image = normalize(transform(open_image(folder / picture["image"]))[None])
        questions = [one["question"] for one in picture["questions"]]
        yield {
            "caption": models.demo_caption.generate(image, num_beams=3, max_length=20, min_length=5)[0],
            "match": [round(one, 3) for one in models.demo_match.score(image, texts).match[0].tolist()],
            "answers": models.demo_vqa.generate_answers(image.expand(len(questions), -1, -1, -1), questions),
        }


def read_pictures(folder: Path = PICTURES) -> list[dict[str, Any]]:
    """What is known of each picture that comes along.

    Keys: `image`, its file in the folder; `of`, its name in the test split; `scene`, as `Scene.from_json` reads it;
    `captions`, right ones; `questions`, each with its right `answer`; `said`, by the models that come along: their
    `caption`, their `answers`, and the probabilities of a `match` with the first caption of each picture, in order.
    """
    with open_regular(folder / _PICTURES_FILE) as file:
        return json.load(file)


def card(models: IncludedModels, folder: Path, scores: Sequence[Score], record: Any) -> str:
    """The card of the models in `folder`, in Markdown.

    Args:
        scores: of the demo.
        record: its `run.json`.
    """
    files, rows = [], []
    for name, model in models.named():
        count = sum(tensor.numel() for tensor in model.state_dict().values())
        size = (folder / f"{name}.safetensors").stat().st_size / 1e6
        files.append(f"| `{name}` | {_TASKS[name]} | {count / 1e6:.1f} M | {size:.1f} MB |")
    for score in scores:
        if score.name in _SCORES:
            guess = "" if score.chance is None else f"{score.chance:.1f}"
            rows.append(f"| {score.name} | `{_SCORES[score.name]}` | {score.value:.1f} | {guess} |")
    return _CARD.format(
        seed=record["seed"],
        minutes=sum(step["seconds"] for step in record["steps"]) / 60,
        machine=record["machine"],
        files="\n".join(files),
        words=len(models.demo_caption.vocabulary.tokens),
        scores="\n".join(rows),
        shown=_SHOWN,
    )


def make(source: Path, trained: Path, pictures: Path) -> None:
    """Write models and card to `trained` and pictures to `pictures`, from the demo's folder `source`."""
    try:
        results = Results(source)
        scores = results.scores()
        record = json.loads((source / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{source} holds no whole run of `make demo` ({type(error).__name__}: {reason})") from error
    trained.mkdir(parents=True, exist_ok=True)
    models = IncludedModels(  # of the last epoch, which the demo's scores and pictures are of
        store(source / "caption" / _LAST, BLIPDecoder, trained / "demo_caption.safetensors"),
        store(source / "retrieval" / _LAST, BLIPMatcher, trained / "demo_match.safetensors"),
        store(source / "vqa" / _LAST, BLIPVQA, trained / "demo_vqa.safetensors"),
    )
    write_pictures(results, pictures, models)
    with atomic_write(trained / "README.md") as temporary:
        temporary.write_text(card(models, trained, scores, record), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(prog="python -m demo.models", description=__doc__)
    parser.add_argument("source", type=file_path, help="folder that `make demo` has written: output/demo")
    parser.add_argument("--out", type=file_path, default=REPOSITORY / "demo", help="where trained/ and pictures/ go")
    flags = parser.parse_args(arguments)
    with exit_on_user_error(None, 0):
        make(flags.source, flags.out / "trained", flags.out / "pictures")
    print(message(f"{flags.out / 'trained'} and {flags.out / 'pictures'} are written"))


if __name__ == "__main__":
    main()
