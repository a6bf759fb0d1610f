"""Captioning at 384 pixels: a training step, beam search, nucleus sampling."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor

import train_caption
from benchmarks.comparison import Comparison
from benchmarks.context import Context
from benchmarks.hugging_face import converted
from benchmarks.made_up import captions, pixels
from benchmarks.textbook.losses import caption_losses
from benchmarks.textbook.search import beam_search, nucleus_sample, text_log_probs
from benchmarks.training import TrainingSide, compare_steps, set_up
from models.blip import BLIPDecoder
from models.generation import SAMPLING_REPETITION_PENALTY, Generated, SearchOptions
from models.tokenizer import tokenize
from transform.image import normalize

BEAMS, LENGTH = 3, 20  # every text gets as many tokens, so that all ways do the same work
TOP_K, TOP_P = 50, 0.9


def step(context: Context) -> Iterator[Comparison]:
    """A batch of captions with the prompt before them."""
    both = side(context)
    model = both.model
    assert isinstance(model, BLIPDecoder)
    theirs: Any = converted(transformers.BlipForConditionalGeneration, model, context).train()

    def hugging_face(batch: dict[str, Any]) -> dict[str, Tensor]:
        ids, mask = tokenize(model.tokenizer, batch["caption"], context.device, first_token=model.special.dec)
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, : model.prompt_length] = -100
        return {"loss": theirs(batch["image"], ids, attention_mask=mask, labels=labels).loss}

    steps = {
        "ours": both.ours(),
        "textbook": both.textbook(lambda batch: caption_losses(model, batch)),
        "hugging_face": both.textbook(hugging_face, theirs),
    }
    what = f"captioning training step of {both.samples} pairs, {context.describe('base', 384)}"
    yield compare_steps("caption_step", what, "images", both, steps)


def side(context: Context, **values: Any) -> TrainingSide:
    """train_caption.py's model, step and a batch; `values` are further keys of its config."""
    number = context.pick(gpu=32, cpu=4, tiny=3)
    config = train_caption.Config(precision=context.precision, **(context.sizes("base", 384) | values))
    texts = [config.prompt + caption for caption in captions(number)]
    batch = {"image": pixels(number, config.image_size), "caption": texts}
    return set_up(context, config, train_caption.build_model, train_caption.train_step, batch, number)


def generation(context: Context) -> Iterator[Comparison]:
    """Captions of 20 tokens, 16 of them after the prompt: by 3 beams, and sampled."""
    number = context.pick(gpu=64, cpu=4, tiny=2)
    torch.manual_seed(0)
    with context.device:
        model = BLIPDecoder(**context.sizes("base", 384)).eval()
    image = normalize(pixels(number, model.visual_encoder.image_size).to(context.device))
    theirs: Any = converted(transformers.BlipForConditionalGeneration, model, context)
    prompt = torch.tensor([[*model.prompt_ids, model.special.sep]] * number, device=context.device)
    beams = SearchOptions(num_beams=BEAMS, max_length=LENGTH, min_length=LENGTH)
    nucleus = SearchOptions(sample=True, top_k=TOP_K, top_p=TOP_P, max_length=LENGTH, min_length=LENGTH)
    sampling = {"do_sample": True, "top_k": TOP_K, "top_p": TOP_P, "repetition_penalty": SAMPLING_REPETITION_PENALTY}

    def hugging_face(options: dict[str, Any]) -> Tensor:
        return theirs.generate(image, input_ids=prompt, max_length=LENGTH, min_length=LENGTH, **options)

    def differences(ours: Callable[[], Generated]) -> dict[str, dict[str, float]]:
        """Of our texts' log-probabilities. The texts of other ways may differ where two are as good, or drawn."""
        found = ours()
        expected = _in_precision(context, lambda: text_log_probs(model, image, found.ids[:, 0]))()
        difference = (found.log_probs[:, 0] - expected).abs().max().item()
        return {"textbook": {"log-probability of a token": difference / (LENGTH - model.prompt_length)}}

    ways: dict[str, dict[str, Callable[[], Any]]] = {
        "beams": {
            "ours": lambda: model.generate_n_best(image, beams)[1],
            "textbook": lambda: beam_search(model, image, BEAMS, LENGTH),
            "hugging_face": lambda: hugging_face({"num_beams": BEAMS}),
        },
        "nucleus": {
            "ours": lambda: model.generate_n_best(image, nucleus)[1],
            "textbook": lambda: nucleus_sample(model, image, LENGTH, TOP_K, TOP_P),
            "hugging_face": lambda: hugging_face(sampling),
        },
    }
    for how, title in (("beams", f"{BEAMS} beams"), ("nucleus", "nucleus sampling")):
        in_precision = {name: _in_precision(context, way) for name, way in ways[how].items()}
        yield Comparison(
            name=f"caption_{how}",
            what=f"captioning {number} images, {context.describe('base', 384)}, {title}, {LENGTH} tokens",
            unit="images",
            samples=dict.fromkeys(in_precision, number),
            ways=in_precision,
            differences=partial(differences, in_precision["ours"]),
            parts={"image encoder": _in_precision(context, lambda: model.visual_encoder(image))},
        )


def _in_precision(context: Context, way: Callable[[], Any]) -> Callable[[], Any]:
    """`way` without gradients, in the run's precision, drawing the same random numbers each time."""

    @torch.no_grad()
    def call() -> Any:
        torch.manual_seed(0)
        with context.autocast():
            return way()

    return call
