"""CapFilt: images a second, against Hugging Face's captioner and matcher, called one after the other.

    python -m benchmarks.capfilt [--images 4] [--device cpu] [--precision fp32] [--out benchmarks/results/capfilt.json]

A ViT-B captioner and a ViT-B matcher at 384 pixels, with random weights, write one nucleus caption of 20 tokens for
each image, and score it and the web's text: probability and cosine. Two ways on the same weights and pictures:

- ours: `bootstrapping.caption_filter`. Each model encodes an image once; both texts of an image share its memory;
- Hugging Face: `BlipForConditionalGeneration.generate`, and `BlipForImageTextRetrieval`, called once for the cosines of
  all texts and once for the matching of each of the two texts, with all images in one batch.

Both captioners sample, so their texts differ; the scores of the same texts are compared. On a CPU one thread is used
and processor time is measured. On a GPU take `--images 256 --precision bf16`.
"""

import tempfile
from typing import Any

import torch
import transformers
from torch import Tensor

from benchmarks.measurement import clock, command_line, machine, prepare, save, seconds
from benchmarks.retrieval import captions
from bootstrapping.caption_filter import CaptionFilter
from data.corpus.units import CorpusImage
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.generation import SearchOptions
from models.tokenizer import tokenize
from models.weights.huggingface import save_huggingface
from settings.flags import at_least
from transform.image import normalize

LENGTH = 20
SEARCH = SearchOptions(sample=True, max_length=LENGTH, min_length=LENGTH)
Score = tuple[Tensor, Tensor]  # matching probability, cosine; [B] each


class HuggingFace:
    """The two models of the installed `transformers`, with the weights of ours."""

    def __init__(self, captioner: BLIPDecoder, matcher: BLIPMatcher, device: torch.device) -> None:
        self.captioner: Any = _converted(transformers.BlipForConditionalGeneration, captioner, device)
        self.matcher: Any = _converted(transformers.BlipForImageTextRetrieval, matcher, device)
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


def _converted(kind: Any, model: BLIPDecoder | BLIPMatcher, device: torch.device) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        save_huggingface(model, folder)
        return kind.from_pretrained(folder).to(device).eval()


def shares(model: CaptionFilter, images: list[CorpusImage], pixels: dict[int, Tensor], device: torch.device) -> float:
    """The share of our time that both image encoders take."""
    assert model.captioner is not None
    spent = [0.0]
    for encoder in (model.captioner.visual_encoder, model.matcher.visual_encoder):
        encoder.register_forward_pre_hook(lambda *_: spent.append(-clock(device)))
        encoder.register_forward_hook(lambda *_: spent.append(spent.pop() + clock(device)))
    begin = clock(device)
    model.scores(images, pixels)
    return sum(spent) / (clock(device) - begin)


@torch.no_grad()
def main() -> None:
    parser = command_line(__doc__, "capfilt.json", rounds=2)
    parser.add_argument("--images", type=at_least(1), default=4)
    flags = parser.parse_args()
    device, dtype = prepare(flags)
    captioner = BLIPDecoder(image_size=384, vit="base").to(device).eval()
    matcher = BLIPMatcher(image_size=384, vit="base").to(device).eval()
    model = CaptionFilter(captioner, matcher, SEARCH)
    web = captions(flags.images)
    images = [CorpusImage(f"{n:032x}", f"{n}.jpg", b"", (text,)) for n, text in enumerate(web)]
    pixels = {384: torch.randint(256, (flags.images, 3, 384, 384), dtype=torch.uint8, device=device)}
    theirs = HuggingFace(captioner, matcher, device)

    def hugging_face() -> None:
        image = normalize(pixels[384])
        theirs.score(image, [web, theirs.caption(image)])

    ways = {"ours": lambda: model.scores(images, pixels), "hugging_face": hugging_face}
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
        rows = [row for row in model.scores(images, pixels) if row.source == "web"]
        match, cosine = theirs.score(normalize(pixels[384]), [web])[0]
        found = torch.tensor([[row.match, row.cosine] for row in rows], device=device)
        difference = (found - torch.stack([match, cosine], dim=1)).abs().max().item()
        if dtype is torch.float32 and difference > 1e-4:
            raise RuntimeError(f"the scores differ by {difference:.1e}, so that their times mean nothing")
        least = seconds(ways, flags.rounds, device)
        share = shares(model, images, pixels, device)
    result: dict[str, Any] = {
        "what": f"{flags.images} images at 384 pixels, both ViT-B, 1 caption of {LENGTH} tokens, {flags.precision}",
        "largest_difference": difference,
        "seconds": least,
        "images_per_second": {name: flags.images / elapsed for name, elapsed in least.items()},
        "hugging_face_over_ours": least["hugging_face"] / least["ours"],
        "encoder_share_of_ours": share,
        "machine": machine(device) | {"transformers": transformers.__version__},
    }
    for name, elapsed in least.items():
        print(f"{name:13} {elapsed:7.2f} s  {flags.images / elapsed:7.2f} images/s")
    print(f"ours is {result['hugging_face_over_ours']:.1f} times as fast as Hugging Face; ", end="")
    print(f"{share:.0%} of ours is spent in the image encoders")
    save(flags.out, result)


if __name__ == "__main__":
    main()
