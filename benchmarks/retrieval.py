"""Re-ranking: image-text pairs a second, against the textbook way on the same weights.

    python -m benchmarks.retrieval [--images 1] [--texts 256] [--device cpu] [--precision fp32]

A ViT-B matching model at 384 pixels with random weights scores every text with every image, from the states of the
images and the contrastive features of the texts on (both ways need those once, for hundreds of pairs each):

- ours: `models.rerank`, which projects an image once, packs its texts and computes one position of the last layer;
- textbook: each image's states are repeated for its texts and projected for each, texts are padded to 35 tokens, all
  positions of all layers are computed, as the 2022 code did, always in fp32. It is timed on `--textbook_pairs` pairs.

Texts have the lengths of COCO captions: 10.5 words on average, 6 to 20. The scores of both ways are compared. On a CPU
one thread is used and processor time is measured. On a GPU take `--images 256 --texts 1536 --textbook_pairs 256
--rounds 3 --precision bf16`: COCO's test split at k_test 256 unites to at most 1,537 texts an image.

The figures are extrapolated to that split: re-ranking either way, and encoding its images and texts once.
"""

import argparse
from typing import Any

if __name__ == "__main__":
    from settings.interrupts import exit_on_interrupt

    exit_on_interrupt()

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measurement import command_line, machine, prepare, save, seconds
from engine.log import peak_flops
from models.blip_itm import BLIPMatcher
from models.image_text import MATCH, MAX_TEXT_LENGTH
from models.rerank import ImageStates, rerank
from models.tokenizer import ENC, tokenize
from settings.flags import at_least

COCO_IMAGES, COCO_TEXTS = 5_000, 25_010
COCO_PAIRS = (COCO_IMAGES + COCO_TEXTS) * 256  # at k_test 256, were no pair wanted from both sides
WORDS = ["a", "man", "dog", "on", "the", "street", "with", "red", "umbrella", "standing", "near", "train"]


def captions(number: int) -> list[str]:
    """Texts of 6 to 20 words, 10.5 on average, as COCO's are."""
    generator = torch.Generator().manual_seed(0)
    lengths = (10.5 + 2.4 * torch.randn(number, generator=generator)).round().clamp(6, 20).long()
    words = torch.randint(len(WORDS), (number, 20), generator=generator)
    return [" ".join(WORDS[w] for w in row[:n]) for row, n in zip(words.tolist(), lengths.tolist(), strict=True)]


def textbook(model: BLIPMatcher, states: Tensor, texts: list[str]) -> Tensor:
    """One image's states [T, D] and its texts -> matching logits [texts]."""
    ids, mask = tokenize(
        model.tokenizer,
        texts,
        model.device,
        first_token=model.tokenizer.get_vocab()[ENC],
        max_length=MAX_TEXT_LENGTH,
        pad_to_max_length=True,
    )
    memory = model.text_encoder.project(states.expand(len(texts), -1, -1))
    return model.itm_head(model.text_encoder(ids, mask, memory)[:, 0])[:, MATCH]


def encoding_seconds(model: BLIPMatcher, texts: list[str], images: int, rounds: int) -> float:
    """The seconds to encode all images and texts of COCO's test split once, extrapolated."""
    pixels, some = torch.randn(min(images, 64), 3, 384, 384, device=model.device), texts[:256]
    ways = {"images": lambda: model.visual_encoder(pixels), "texts": lambda: model.encode_text(some)}
    least = seconds(ways, rounds, model.device)
    return COCO_IMAGES / len(pixels) * least["images"] + COCO_TEXTS / len(some) * least["texts"]


def measure(flags: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """All figures, ours in precision `dtype`."""
    model = BLIPMatcher(image_size=384, vit="base").to(device).eval()
    autocast = torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)
    states = torch.randn(flags.images, 577, 768, device=device)
    features, texts = model.project_image(states), captions(flags.texts)
    some = texts[: flags.textbook_pairs]
    with autocast:
        encoding = encoding_seconds(model, texts, flags.images, flags.rounds)
    known = dict(zip(texts, model.encode_text(texts), strict=True))
    model.encode_text = lambda text: torch.stack([known[one] for one in text])
    images = ImageStates(len(states), len(states), lambda _: [states], lambda batch: (batch, features))

    def ours() -> Tensor:
        with autocast:
            to_text, _ = rerank(model, images, texts, k=len(texts))
        scores = torch.from_numpy(to_text.scores)
        return torch.zeros_like(scores).scatter(1, torch.from_numpy(to_text.ids), scores)

    cosines = features[0] @ model.encode_text(some).T
    difference = (ours()[0, : len(some)] - (textbook(model, states[0], some) + cosines).cpu()).abs().max().item()
    if dtype is torch.float32 and difference > 1e-4:
        raise RuntimeError(f"the two ways differ by {difference:.1e}, so that their times mean nothing")
    least = seconds({"ours": ours, "textbook": lambda: textbook(model, states[0], some)}, flags.rounds, device)
    with FlopCounterMode(display=False) as counter:
        ours()
    rate = {"ours": flags.images * flags.texts / least["ours"], "textbook": len(some) / least["textbook"]}
    flops, peak = counter.get_total_flops() / least["ours"], peak_flops(device)
    coco = {name: COCO_PAIRS / value for name, value in rate.items()}
    return {
        "what": f"{flags.images} images x {flags.texts} texts, ViT-B at 384 pixels, {flags.precision} (textbook: fp32)",
        "largest_difference": difference,
        "pairs_per_second": rate,
        "ours_over_textbook": rate["ours"] / rate["textbook"],
        "tflops_of_ours": flops / 1e12,
        "share_of_peak": flops / peak if peak else None,
        "coco_test_seconds": coco | {"encoding": encoding},
        "machine": machine(device),
    }


@torch.inference_mode()
def main() -> None:
    parser = command_line(__doc__, "retrieval.json", rounds=1)
    parser.add_argument("--images", type=at_least(1), default=1)
    parser.add_argument("--texts", type=at_least(1), default=256)
    parser.add_argument("--textbook_pairs", type=at_least(1), default=8)
    flags = parser.parse_args()
    result = measure(flags, *prepare(flags))

    coco = result["coco_test_seconds"]
    for name, rate in result["pairs_per_second"].items():
        print(f"{name:9} {rate:10,.1f} pairs/s; COCO 5k test, at most {COCO_PAIRS:,} pairs: {coco[name]:,.0f} s")
    print(f"either way its images and texts are encoded before, in {coco['encoding']:,.0f} s")
    print(f"ours is {result['ours_over_textbook']:.1f} times as fast; {result['tflops_of_ours']:.2f} TFLOP/s", end="")
    print(f", {result['share_of_peak']:.0%} of the chip's bf16 peak" if result["share_of_peak"] else "")
    save(flags.out, result)


if __name__ == "__main__":
    main()
