"""Caption pictures with onnxruntime, NumPy and Pillow alone: a program to copy, which needs nothing of this repository.

python -m export model_base_caption_capfilt_large --out exported     # once, where torch is
python examples/caption_with_onnxruntime.py exported photo.jpg ...   # anywhere
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

MARKS = (" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're")  # written without the space before them


def pixels(path: str, about: dict[str, Any]) -> np.ndarray:
    """A picture file -> float32 [3, S, S], normalized."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    picture = picture.resize((about["image_size"],) * 2, Image.Resampling.BICUBIC)
    scaled = (np.asarray(picture, np.float32) / 255 - np.float32(about["mean"])) / np.float32(about["std"])
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def text(ids: Iterable[int], vocabulary: list[str]) -> str:
    """Word pieces -> text."""
    words = " ".join(vocabulary[i] for i in ids if vocabulary[i] not in ("[PAD]", "[CLS]", "[SEP]", "[DEC]", "[ENC]"))
    words = words.replace(" ##", "").replace(" ' ", "'").replace(" do not", " don't")
    for mark in MARKS:
        words = words.replace(mark, mark[1:])
    return words


def main(folder: str, *paths: str, num_beams: int = 3, min_length: int = 5, max_length: int = 20) -> None:
    about = json.loads(Path(folder, "model.json").read_text(encoding="utf-8"))
    vocabulary = Path(folder, about["vocabulary"]).read_text(encoding="utf-8").splitlines()
    encoder, decoder = (
        onnxruntime.InferenceSession(Path(folder, f"{name}.onnx"), providers=onnxruntime.get_available_providers())
        for name in ("image_encoder", "caption_decoder")
    )
    prompt = text(about["prompt_ids"], vocabulary)
    search = {"num_beams": num_beams, "min_length": min_length, "max_length": max_length}
    for path in paths:  # several pictures at once are a batch: [B, 3, S, S]
        states = encoder.run(["image_states"], {"image": pixels(path, about)[None]})[0]
        found = decoder.run(["ids"], {"image_states": states} | {name: np.array(n) for name, n in search.items()})
        ids = np.asarray(found[0])[0, 0]  # of the first image, the best of its beams
        print(path, text(ids, vocabulary)[len(prompt) :].strip(), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
