"""Retrieval: a training step at 384 pixels, and the matching scores that re-rank."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor

import train_retrieval
from benchmarks.comparison import Comparison
from benchmarks.context import Context
from benchmarks.hugging_face import converted
from benchmarks.jobs.pretrain import lag_behind, queue_sizes
from benchmarks.made_up import captions, pixels
from benchmarks.textbook.losses import retrieval_losses
from benchmarks.textbook.search import matching_scores
from benchmarks.training import TrainingSide, compare_steps, set_up
from models.blip_itm import BLIPMatcher
from models.blip_retrieval import BLIPRetrieval
from models.image_text import MATCH, MAX_TEXT_LENGTH
from models.rerank import ImageStates, rerank
from models.tokenizer import tokenize


def step(context: Context) -> Iterator[Comparison]:
    """A batch of pairs, as configs/retrieval_coco.yaml trains: four blocks of the image encoder are checkpointed."""
    both = side(context, vit_grad_ckpt=True, vit_ckpt_layer=4)
    model, alpha = both.model, both.config.alpha
    assert isinstance(model, BLIPRetrieval)
    lag_behind(model)
    textbook = both.textbook(lambda batch: retrieval_losses(model, batch, alpha))
    what = f"retrieval training step of {both.samples} pairs, {context.describe('base', 384)}"
    yield compare_steps("retrieval_step", what, "images", both, {"ours": both.ours(), "textbook": textbook})


def side(context: Context, **values: Any) -> TrainingSide:
    """train_retrieval.py's model, step and a batch; `values` are further keys of its config."""
    number = context.pick(gpu=32, cpu=4, tiny=3)
    sizes = context.sizes("base", 384) | queue_sizes(context)
    config = train_retrieval.Config(precision=context.precision, **(sizes | values))
    batch = {
        "image": pixels(number, config.image_size),
        "caption": captions(number),
        "image_id": torch.arange(number),
    }
    train_step = partial(train_retrieval.train_step, config.alpha)
    return set_up(context, config, train_retrieval.build_model, train_step, batch, number)


def reranking(context: Context) -> Iterator[Comparison]:
    """Matching scores of every image with every text, from image states and unit vectors on.

    COCO's test split at k_test 256 unites to at most 1,537 texts an image.
    """
    images = context.pick(gpu=32, cpu=1, tiny=2)
    texts = captions(context.pick(gpu=1536, cpu=256, tiny=12))
    few = texts[: context.pick(gpu=256, cpu=8, tiny=4)]  # for the slow ways, with one image
    torch.manual_seed(0)
    with context.device, torch.no_grad():
        model = BLIPMatcher(**context.sizes("base", 384)).eval()
        patches = (model.visual_encoder.image_size // 16) ** 2
        states = torch.randn(images, 1 + patches, model.vision_width)
        features, vectors = model.project_image(states), model.encode_text(texts)
    known = dict(zip(texts, vectors, strict=True))
    model.encode_text = lambda text: torch.stack([known[one] for one in text])
    theirs: Any = converted(transformers.BlipForImageTextRetrieval, model, context)

    @torch.no_grad()
    def ours() -> Tensor:
        source = ImageStates(images, images, lambda _: [states], lambda batch: (batch, features))
        with context.autocast():
            to_text, _ = rerank(model, source, texts, k=len(texts))
        scores = torch.from_numpy(to_text.scores)
        return torch.zeros_like(scores).scatter(1, torch.from_numpy(to_text.ids), scores)

    @torch.no_grad()
    def textbook() -> Tensor:
        with context.autocast():
            return matching_scores(model, states[0], few)

    @torch.no_grad()
    def hugging_face() -> Tensor:
        ids, mask = tokenize(
            model.tokenizer, few, context.device, first_token=model.special.enc, max_length=MAX_TEXT_LENGTH
        )
        with context.autocast():
            found = theirs.text_encoder(ids, mask, encoder_hidden_states=states[:1].expand(len(few), -1, -1))
            return theirs.itm_head(found.last_hidden_state[:, 0])[:, MATCH].float()

    def differences() -> dict[str, dict[str, float]]:
        expected = ours()[0, : len(few)] - (features[0] @ vectors[: len(few)].T).cpu()
        ways = {"textbook": textbook, "hugging_face": hugging_face}
        return {name: {"scores": (expected - way().cpu()).abs().max().item()} for name, way in ways.items()}

    yield Comparison(
        name="rerank",
        what=f"re-ranking {images} image{'s' * (images > 1)} x {len(texts)} texts, "
        f"{context.describe('base', 384)}, encoding left out",
        unit="pairs",
        samples={"ours": images * len(texts), "textbook": len(few), "hugging_face": len(few)},
        ways={"ours": ours, "textbook": textbook, "hugging_face": hugging_face},
        differences=differences,
    )
