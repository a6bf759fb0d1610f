"""Caption pictures with Hugging Face's BLIP, the way its documentation does: what `benchmarks.predict` compares with.

    python -m benchmarks.predict_hugging_face MODEL_FOLDER PICTURE_FOLDER [--precision bf16] [--num_beams 3]

A caption a line, in the order of the pictures' names.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipImageProcessor

from models.tokenizer import build_tokenizer, decode
from models.vocabulary import DEC

PROMPT = "a picture of"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def read_flags(description: str | None, model: str) -> argparse.Namespace:
    """The command line of a way to caption; `model` says what the folder of that name is."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help=model)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--precision", default="fp32", choices=DTYPES)
    parser.add_argument("--num_beams", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=32)
    return parser.parse_args()


@torch.no_grad()
def caption(flags: argparse.Namespace, generate: Callable[[Tensor, Tensor, dict[str, int]], Tensor]) -> None:
    """Print the captions of the pictures.

    Args:
        generate: pixels [B, 3, S, S], prompts [B, P] and options of the search -> tokens [B, L]. The last token of a
            prompt ends a text; `generate` of `transformers` leaves it out.
    """
    tokenizer, processor = build_tokenizer(), BlipImageProcessor()
    ids = tokenizer(PROMPT).input_ids
    ids[0] = tokenizer.get_vocab()[DEC]
    paths = sorted(flags.pictures.iterdir())
    for start in range(0, len(paths), flags.batch_size):
        pictures = [Image.open(path).convert("RGB") for path in paths[start : start + flags.batch_size]]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        search = {"num_beams": flags.num_beams, "max_length": 20, "min_length": 5}
        found = generate(pixels, torch.tensor([ids] * len(pictures)), search)
        for row in found.tolist():
            print(decode(tokenizer, row).removeprefix(PROMPT).strip())


def main() -> None:
    flags = read_flags(__doc__, "what `save_huggingface` wrote")
    dtype = DTYPES[flags.precision]
    model: Any = BlipForConditionalGeneration.from_pretrained(flags.model)
    model.to(dtype).eval()
    caption(flags, lambda pixels, prompt, search: model.generate(pixels.to(dtype), input_ids=prompt, **search))


if __name__ == "__main__":
    main()
