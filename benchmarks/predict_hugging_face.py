"""Caption pictures with Hugging Face's BLIP, the way its documentation does: what `benchmarks.predict` compares with.

    python -m benchmarks.predict_hugging_face MODEL_FOLDER PICTURE_FOLDER [--precision bf16] [--num_beams 3]

A caption a line, in the order of the pictures' names.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipImageProcessor

from models.tokenizer import build_tokenizer, decode
from models.vocabulary import DEC

PROMPT = "a picture of"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--precision", default="fp32", choices=DTYPES)
    parser.add_argument("--num_beams", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=32)
    flags = parser.parse_args()
    dtype, tokenizer, processor = DTYPES[flags.precision], build_tokenizer(), BlipImageProcessor()
    model: Any = BlipForConditionalGeneration.from_pretrained(flags.model)
    model.to(dtype).eval()
    ids = tokenizer(PROMPT).input_ids  # `generate` leaves the last one out, which ends a text
    ids[0] = tokenizer.get_vocab()[DEC]
    paths = sorted(flags.pictures.iterdir())
    for start in range(0, len(paths), flags.batch_size):
        pictures = [Image.open(path).convert("RGB") for path in paths[start : start + flags.batch_size]]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"].to(dtype)
        prompt = torch.tensor([ids] * len(pictures))
        found = model.generate(pixels, input_ids=prompt, num_beams=flags.num_beams, max_length=20, min_length=5)
        for row in found.tolist():
            print(decode(tokenizer, row).removeprefix(PROMPT).strip())


if __name__ == "__main__":
    main()
