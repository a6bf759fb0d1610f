"""Write a checkpoint as ONNX graphs, for programs without torch.

    python -m export CHECKPOINT --out FOLDER [--int8] [--images photo.jpg holiday/ ...]

A checkpoint is a released name (docs/checkpoints.md), a path, a URL or a Hugging Face hub name. Of a captioner come
image_encoder.onnx and caption_decoder.onnx, the whole search; of a retrieval model image_encoder.onnx,
text_encoder.onnx and matcher.onnx; of a pre-trained one all four. Beside them stand vocab.txt and model.json. Before
anything is written, the graphs are run and compared with the model: numbers within 1e-4, captions token by token.
examples/caption_with_onnxruntime.py uses an export; docs/deploy.md says when to.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.media.folder import find_pictures, read_batches
from files import resolve, without_secrets
from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.weights.build import build_from_checkpoint
from models.weights.files import read_state, without_wrappers
from models.weights.huggingface_names import from_huggingface, is_huggingface
from settings import UserError, needs_extra
from settings.flags import Parser, add_flags, file_path, flag, values_of
from settings.interrupts import INTERRUPTED
from settings.messages import message
from transform.image import normalize

MADE_UP = 4  # pictures of noise to compare on, where none are given


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the command line says."""

    checkpoint: str
    out: Path = flag(..., "new or empty folder to write", type=file_path)
    images: list[str] = flag(
        [], "pictures to compare graphs and model on: files, folders, globs (default: noise)", nargs="+"
    )
    int8: bool = flag(False, "8-bit weights: a quarter of the size; what they change is reported", action="store_true")
    vocab_file: str | None = flag(None, "vocabulary of an older checkpoint that carries none: its file")


def build_models(source: str, vocab_file: Path | None) -> tuple[Sequence[VisionLanguageModel], dict[str, str]]:
    """The models that a checkpoint holds, and for each part that it lacks, why that is left out.

    Raises:
        UserError: it holds neither a captioner nor a matcher.
    """
    state, _ = without_wrappers(read_state(source)[0])
    if is_huggingface(state):
        state = from_huggingface(dict(state))
    held = {key.split(".")[0] for key in state}
    matcher = {"text_encoder", "itm_head", "vision_proj", "text_proj"} <= held
    # VQA's decoder, beside a text encoder without matching head, attends to questions instead of images
    captioner = "text_decoder" in held and (matcher or "text_encoder" not in held)
    kinds = {BLIPDecoder: captioner, BLIPMatcher: matcher}
    if not any(kinds.values()):
        raise UserError(f"{source}: holds neither a captioner nor a retrieval model, which are what can be exported")
    models = [
        build_from_checkpoint(kind, source, vocab_file=vocab_file).eval() for kind, there in kinds.items() if there
    ]
    left_out: dict[str, str] = {}
    if not captioner:
        left_out["caption_decoder"] = "the checkpoint has no decoder of captions"
    if not matcher:
        left_out |= dict.fromkeys(("text_encoder", "matcher"), "the checkpoint has no matching head")
    return models, left_out


def read_images(names: Sequence[str], model: VisionLanguageModel) -> Tensor:
    """Pictures to compare on [B, 3, S, S], normalized for the model; those of noise without names.

    Raises:
        UserError: one that cannot be read.
    """
    image_size = model.visual_encoder.image_size
    if not names:
        noise = torch.randint(256, (MADE_UP, 3, 8, 8), generator=torch.Generator().manual_seed(0))
        return normalize(torch.nn.functional.interpolate(noise.float(), image_size).to(torch.uint8), model.pixels)
    paths = find_pictures(names)
    (_, pixels, broken), *_ = read_batches(paths, image_size, len(paths))
    if broken:
        raise broken[0]
    return normalize(pixels, model.pixels)


def run(flags: Flags) -> None:
    """Export a checkpoint."""
    with needs_extra("export", "python -m export"):
        importlib.import_module("onnxscript")  # by which torch writes graphs
        from export import graphs as exported
        from export.check import Agreement, compare
        from export.folder import check_folder, describe, write_folder
    check_folder(flags.out)
    models, left_out = build_models(flags.checkpoint, resolve(flags.vocab_file) if flags.vocab_file else None)
    image = read_images(flags.images, models[0])
    written: exported.Graphs = {}
    about: dict[str, Any] = {
        "source": without_secrets(flags.checkpoint),
        "weights": "int8" if flags.int8 else "fp32",
        "left_out": left_out,
    }
    found, effect = Agreement(), Agreement()
    for model in models:
        parts = exported.traced_parts(model)
        graphs = exported.whole_graphs(model, parts)
        agreement = compare(model, graphs, image)
        agreement.check()
        found = found.joined(agreement)
        if flags.int8:
            smaller = {name: exported.with_int8_weights(part) for name, part in parts.items()}
            graphs = exported.whole_graphs(model, smaller)
            effect = effect.joined(compare(model, graphs, image))
        written |= graphs
        about |= describe(model)
    about["agreement"] = {"fp32": found.stored()} | ({"int8": effect.stored()} if flags.int8 else {})
    write_folder(flags.out, written, models[0], about)
    _tell(flags, [*written], left_out, {"fp32": found} | ({"int8": effect} if flags.int8 else {}), len(image))


def _tell(
    flags: Flags, written: Sequence[str], left_out: dict[str, str], agreements: dict[str, Any], images: int
) -> None:
    for name in written:
        size = os.path.getsize(flags.out / f"{name}.onnx")
        print(f"{flags.out / name}.onnx  {size / 1e6:,.1f} MB")
    for name, reason in left_out.items():
        print(f"left out: {name}.onnx: {reason}")
    for weights, found in agreements.items():
        differences = ", ".join(f"{name} {value:.1e}" for name, value in found.largest_differences.items())
        print(f"{weights} against the model on {images} pictures: largest differences: {differences}")
        if found.captions:
            print(f"{weights}: {len(found.captions_that_differ)} of {found.captions} captions (1 and 3 beams) differ")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="released name, path, URL or hub name")
    add_flags(parser, Flags)
    flags = Flags(**values_of(Flags, parser.parse_args(arguments)))
    try:
        run(flags)
    except KeyboardInterrupt:
        _say("interrupted; nothing was written")
        return INTERRUPTED
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
        return 2
    except UserError as error:
        _say(str(error))
        return 2
    return 0


def _say(text: str) -> None:
    print(f"export: {message(text, sys.stderr.encoding)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
