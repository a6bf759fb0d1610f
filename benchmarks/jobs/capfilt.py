"""CapFilt at 384 pixels: a sampled caption of each image, and the scores of it and of the web's text."""

from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import Tensor

from benchmarks.comparison import Comparison
from benchmarks.context import Context
from benchmarks.hugging_face import converted
from benchmarks.made_up import captions, pixels
from bootstrapping.caption_filter import CaptionFilter
from data.corpus.units import CorpusImage
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.generation import SearchOptions
from models.tokenizer import tokenize
from transform.image import normalize

LENGTH = 20
SEARCH = SearchOptions(sample=True, max_length=LENGTH, min_length=LENGTH)
Score = tuple[Tensor, Tensor]  # matching probability, cosine; [B] each


class HuggingFace:
    """Captioner and matcher of `transformers`, one after the other.

    The matcher is called once for the cosines of all texts, and once for the matching of each image's texts number 1,
    2, ..., with all images in one batch.
    """

    def __init__(self, captioner: BLIPDecoder, matcher: BLIPMatcher, context: Context) -> None:
        self.captioner: Any = converted(transformers.BlipForConditionalGeneration, captioner, context)
        self.matcher: Any = converted(transformers.BlipForImageTextRetrieval, matcher, context)
        self.tokenizer, self.prompt = matcher.tokenizer, captioner.prompt_ids
        self.start, self.end = captioner.special.enc, captioner.special.sep

    def caption(self, image: Tensor) -> list[str]:
        """A sampled caption of each image [B, 3, H, W], normalized."""
        prompt = torch.tensor([[*self.prompt, self.end]] * len(image), device=image.device)
        options = {"do_sample": True, "top_p": 0.9, "top_k": 50, "max_length": LENGTH, "min_length": LENGTH}
        ids = self.captioner.generate(image, input_ids=prompt, **options)
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)

    def score(self, image: Tensor, texts: list[list[str]]) -> list[Score]:
        """Each image with its text of each list -> the scores of each list."""
        flat = [text for each in texts for text in each]
        ids, mask = tokenize(self.tokenizer, flat, image.device, max_length=35)
        cosines = self.matcher(ids, image, attention_mask=mask, use_itm_head=False)[0]
        scores: list[Score] = []
        for number in range(len(texts)):
            rows = slice(number * len(image), (number + 1) * len(image))
            ids, mask = tokenize(self.tokenizer, flat[rows], image.device, first_token=self.start, max_length=35)
            logits = self.matcher(ids, image, attention_mask=mask, use_itm_head=True)[0]
            scores.append((logits.softmax(dim=1)[:, 1], cosines[:, rows].diagonal()))
        return scores


def capfilt(context: Context) -> Iterator[Comparison]:
    """`bootstrapping.caption_filter`, in which each model encodes an image once, against `transformers`."""
    number, sizes = context.pick(gpu=128, cpu=4, tiny=2), context.sizes("base", 384)
    torch.manual_seed(0)
    with context.device:
        captioner, matcher = BLIPDecoder(**sizes).eval(), BLIPMatcher(**sizes).eval()
    model, theirs = CaptionFilter(captioner, matcher, SEARCH), HuggingFace(captioner, matcher, context)
    web, side = captions(number), captioner.visual_encoder.image_size
    images = [CorpusImage(f"{n:032x}", f"{n}.jpg", b"", (text,)) for n, text in enumerate(web)]
    picture = {side: pixels(number, side).to(context.device)}

    def ours() -> list[Any]:
        with context.autocast():
            return list(model.scores(images, picture))

    @torch.no_grad()
    def hugging_face() -> None:
        with context.autocast():
            image = normalize(picture[side])
            theirs.score(image, [web, theirs.caption(image)])

    @torch.no_grad()
    def encoders() -> None:
        with context.autocast():
            for encoder in (captioner.visual_encoder, matcher.visual_encoder):
                encoder(normalize(picture[side]))

    @torch.no_grad()
    def differences() -> dict[str, dict[str, float]]:
        """Of the web's texts: both captioners sample, so that their texts differ."""
        with context.autocast():
            match, cosine = theirs.score(normalize(picture[side]), [web])[0]
        rows = [row for row in ours() if row.source == "web"]
        found = torch.tensor([[row.match, row.cosine] for row in rows], device=context.device)
        return {"hugging_face": {"scores": (found - torch.stack([match, cosine], dim=1)).abs().max().item()}}

    yield Comparison(
        name="capfilt",
        what=f"CapFilt of {number} images, both models {context.describe('base', 384)}, "
        f"1 caption of {LENGTH} tokens and 2 scored texts an image",
        unit="images",
        samples={"ours": number, "hugging_face": number},
        ways={"ours": ours, "hugging_face": hugging_face},
        differences=differences,
        parts={"image encoders": encoders},
    )
