"""Examples of retrieval for the report: what the model finds among the test pictures, by text and by picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import train_retrieval
from data.media.image_file import open_image
from demo.scores import Results
from models.rerank import ImageStates, ScoredCandidates, rerank
from settings import load_config
from transform.image import EvalTransform, normalize


@dataclass(frozen=True)
class Retrieved:
    """A query and the answers that the model ranks highest, best first; `right` says which belong to it."""

    query: str
    answers: list[str]
    right: list[bool]


@torch.no_grad()
def retrieve(results: Results, queries: int, answers: int) -> tuple[list[Retrieved], list[Retrieved]]:
    """Pictures retrieved by text, and texts by picture: for the first `queries` test pictures, among all of them.

    The text of a picture is its first reference text. The weights are those of the last epoch.
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

    states = ImageStates(len(images), config.batch_size_test, lambda batches: batches, encode)
    to_text, to_image = rerank(model, states, texts, config.k_test)

    def best(query: Sequence[str], answer: Sequence[str], candidates: ScoredCandidates) -> list[Retrieved]:
        examples = []
        for row in range(queries):
            order = candidates.scores[row].argsort()[::-1][:answers]
            ids = [int(i) for i in candidates.ids[row][order]]
            right = [texts[i] == texts[row] for i in ids]  # pictures with equal texts show the same
            examples.append(Retrieved(query[row], [answer[i] for i in ids], right))
        return examples

    return best(texts, images, to_image), best(images, texts, to_text)
