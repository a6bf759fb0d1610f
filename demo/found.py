"""What a retrieval model finds among the test pictures, for the report: texts by picture and pictures by text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import train_retrieval
from data.media.image_file import open_image
from demo.scores import Results
from models.rerank.image_states import ImageStates
from models.rerank.search import rerank
from settings import load_config
from transform.image import EvalTransform, normalize


@dataclass(frozen=True)
class Found:
    """One query and its best answers, best first; `right` says which belong to it."""

    query: str
    answers: list[str]
    right: list[bool]


@torch.no_grad()
def search(results: Results, queries: int, answers: int) -> tuple[list[Found], list[Found]]:
    """(pictures found by text, texts found by picture) for the first `queries` test pictures, among all of them.

    Of each picture the first reference text stands for it. Uses the weights that the last epoch left.
    """
    checkpoint = results.folder / "retrieval" / "checkpoint_last.pth"
    config = load_config(train_retrieval.Config, checkpoint.with_name("config.yaml"), [f"pretrained={checkpoint}"])
    model = train_retrieval.build_model(config).eval()
    images = [record["image"] for record in results.retrieval]
    texts = [record["caption"][0] for record in results.retrieval]
    transform = EvalTransform(config.image_size)

    def encode(numbers: range) -> tuple[Tensor, Tensor]:
        batch = torch.stack([transform(open_image(results.picture(images[i]))) for i in numbers])
        states = model.visual_encoder(normalize(batch))
        return states, model.project_image(states)

    pictures = ImageStates(len(images), config.batch_size_test, lambda batches: batches, encode)
    to_text, to_image = rerank(model, pictures, texts, config.k_test)

    def found(query: Sequence[str], answer: Sequence[str], candidates, same: Sequence[str]) -> list[Found]:
        listed = []
        for row in range(queries):
            best = candidates.ids[row][candidates.scores[row].argsort()[::-1][:answers]]
            right = [bool(same[i] == same[row]) for i in best]
            listed.append(Found(query[row], [answer[i] for i in best], right))
        return listed

    return found(texts, images, to_image, texts), found(images, texts, to_text, texts)
