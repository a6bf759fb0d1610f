"""Describe, question, match or embed pictures with a BLIP checkpoint.

    python predict.py caption  photo.jpg holiday/ 'more/*.png' [--out captions.jsonl | --sidecar .txt]
    python predict.py vqa      photo.jpg --question "what is on the table?"
    python predict.py match    photo.jpg --text "a cat on a sofa" --text "a dog"
    python predict.py features holiday/ --out features.safetensors

`--checkpoint` is a released name (docs/checkpoints.md), a path, a URL or a Hugging Face hub name; without it the
released model for the task is fetched once. Sizes are read from the checkpoint.

Exit status: 0 if every picture was read, 1 if some were not (they are named, the others are done), 2 if nothing could
be done.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from data.media.folder import find_pictures, picture_suffixes, read_batches
from data.vqa import answer_list
from engine.device import choose_device, precision_of
from evaluation.predictions import Record, check_sidecars, lines_to, save_features, show
from files import DownloadError, atomic_write
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_vqa import BLIPVQA
from models.weights.build import build_from_checkpoint
from models.weights.released import find_released
from settings import UserError
from transform.image import normalize


def caption(model: BLIPDecoder, image: Tensor, flags: argparse.Namespace) -> list[Record]:
    """Captions of image [B, 3, H, W] with their log-probabilities."""
    captions, generated = model.generate_n_best(
        image,
        flags.n_best,
        sample=flags.sample,
        num_beams=max(flags.num_beams, 1 if flags.sample else flags.n_best),
        max_length=flags.max_length,
        min_length=flags.min_length,
        top_p=flags.top_p,
        top_k=flags.top_k,
        repetition_penalty=flags.repetition_penalty,
        generator=flags.generator,
    )
    records = []
    for texts, log_probs in zip(captions, generated.log_probs.tolist(), strict=True):
        record = {"caption": texts[0], "log_prob": log_probs[0]}
        if flags.n_best > 1:
            record["captions"] = [{"caption": t, "log_prob": p} for t, p in zip(texts, log_probs, strict=True)]
        records.append(record)
    return records


def vqa(model: BLIPVQA, image: Tensor, flags: argparse.Namespace) -> list[Record]:
    """Answers to every question about image [B, 3, H, W]: written, or the best of those given."""
    records: list[Record] = [{"answers": []} for _ in image]
    for question in flags.question:
        questions = [question] * len(image)
        if flags.answers is None:
            answers = [{"answer": answer} for answer in model.generate_answers(image, questions)]
        else:
            best, scores = model.rank_answers(image, questions, flags.answers, flags.k_test)
            probability = scores.softmax(dim=1)[:, 0].tolist()
            chosen = [flags.answers[i] for i in best[:, 0].tolist()]
            answers = [{"answer": a, "probability": p} for a, p in zip(chosen, probability, strict=True)]
        for record, answer in zip(records, answers, strict=True):
            record["answers"].append({"question": question, **answer})
    return records


def match(model: BLIPMatcher, image: Tensor, flags: argparse.Namespace) -> list[Record]:
    """Matching probability and cosine of image [B, 3, H, W] with every text."""
    scores = model.score(image, flags.text)
    return [
        {"texts": [{"text": t, "match": m, "cosine": c} for t, m, c in zip(flags.text, *row, strict=True)]}
        for row in zip(scores.match.tolist(), scores.cosine.tolist(), strict=True)
    ]


def features(model: BLIPMatcher, image: Tensor, flags: argparse.Namespace) -> list[Record]:
    """Unit vectors of image [B, 3, H, W], and all its token states if asked for."""
    tokens = model.visual_encoder(image)
    records: list[Record] = [{"vector": row} for row in model.project_image(tokens).cpu()]
    if flags.tokens:
        for record, row in zip(records, tokens.float().cpu(), strict=True):
            record["tokens"] = row
    return records


TASKS: dict[str, tuple[type, Callable, str]] = {
    "caption": (BLIPDecoder, caption, "model_base_caption_capfilt_large"),
    "vqa": (BLIPVQA, vqa, "model_base_vqa_capfilt_large"),
    "match": (BLIPMatcher, match, "model_base_retrieval_coco"),
    "features": (BLIPMatcher, features, "model_base_retrieval_coco"),
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = argparse.ArgumentParser(add_help=False)
    positive, not_negative = at_least(1), at_least(0)
    shared.add_argument("images", nargs="+", help="files, folders and globs")
    shared.add_argument(
        "--checkpoint", help="released name, path, URL or hub name (default: the task's released model)"
    )
    shared.add_argument("--batch_size", type=positive, default=32, help="pictures at once (default: %(default)s)")
    shared.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    shared.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"], help="default: %(default)s")
    tasks = parser.add_subparsers(dest="task", required=True, metavar="{" + ",".join(TASKS) + "}")

    task = tasks.add_parser("caption", parents=[shared], help="describe pictures")
    task.add_argument(
        "--num_beams", type=positive, default=3, help="beams of the search; 1 is greedy (default: %(default)s)"
    )
    task.add_argument("--sample", action="store_true", help="nucleus sampling instead of a search")
    task.add_argument("--top_p", type=float, default=0.9, help="probability of the nucleus (default: %(default)s)")
    task.add_argument(
        "--top_k", type=not_negative, default=50, help="tokens to choose from, 0: all (default: %(default)s)"
    )
    task.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    task.add_argument("--max_length", type=positive, default=20, help="tokens, prompt included (default: %(default)s)")
    task.add_argument(
        "--min_length", type=not_negative, default=5, help="tokens, prompt included (default: %(default)s)"
    )
    task.add_argument("--repetition_penalty", type=float, help="default: none in a search, 1.1 in sampling")
    task.add_argument("--n_best", type=positive, default=1, help="captions of each picture (default: %(default)s)")
    task.add_argument("--sidecar", metavar=".txt", help="write each caption beside its picture, with this suffix")

    task = tasks.add_parser("vqa", parents=[shared], help="answer questions")
    task.add_argument("--question", action="append", required=True, help="may be given several times")
    task.add_argument("--answers", type=Path, help="JSON list of answers to choose from (default: write an answer)")
    task.add_argument("--k_test", type=positive, default=128, help="answers compared to the end (default: %(default)s)")

    task = tasks.add_parser("match", parents=[shared], help="compare pictures with texts")
    task.add_argument("--text", action="append", required=True, help="may be given several times")

    task_features = tasks.add_parser("features", parents=[shared], help="write unit vectors")
    task_features.add_argument("--text", action="append", default=[], help="also embed this; several times if need be")
    task_features.add_argument("--tokens", action="store_true", help="also write the states of all image tokens")
    for name in TASKS:
        needed = name == "features"
        kind = ".safetensors or .npz file" if needed else "JSON lines file"
        tasks.choices[name].add_argument("--out", type=Path, required=needed, help=f"{kind} to write")
    flags = parser.parse_args(arguments)
    if flags.task == "features" and flags.out.suffix not in (".safetensors", ".npz"):
        parser.error(f"--out {flags.out} must end in .safetensors or .npz")
    if flags.task == "caption" and flags.out and flags.sidecar:
        parser.error("--out and --sidecar exclude each other")
    if flags.task == "caption" and flags.sidecar is not None:
        if not flags.sidecar.startswith(".") or Path(f"a{flags.sidecar}").suffix != flags.sidecar:
            parser.error(f"--sidecar {flags.sidecar} must be a suffix such as .txt")
        if flags.sidecar.lower() in picture_suffixes():
            parser.error(f"--sidecar {flags.sidecar} would write captions over pictures")
    if flags.task == "caption":
        _check_generation(flags, parser)
    return flags


def _check_generation(flags: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse impossible values before a model is fetched for them."""
    if flags.min_length > flags.max_length:
        parser.error(f"--min_length {flags.min_length} must not be above --max_length {flags.max_length}")
    if not 0 < flags.top_p <= 1:
        parser.error(f"--top_p {flags.top_p} must be above 0, at most 1")
    if flags.repetition_penalty is not None and flags.repetition_penalty <= 0:
        parser.error(f"--repetition_penalty {flags.repetition_penalty} must be above 0")


def at_least(least: int) -> Callable[[str], int]:
    """A type of flags: whole numbers from `least` on."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} must be at least {least}")
        return int(text)

    return whole_number


@torch.inference_mode()
def run(flags: argparse.Namespace) -> int:
    """Do the task; the exit status."""
    kind, predict, released = TASKS[flags.task]
    paths = find_pictures(flags.images)
    if flags.task == "caption" and flags.sidecar:
        check_sidecars(paths, flags.sidecar)
    device = choose_device(flags.device)
    if flags.task == "vqa" and flags.answers is not None:
        flags.answers = answer_list(flags.answers)
    if flags.task == "caption":
        flags.generator = torch.Generator(device).manual_seed(flags.seed) if flags.sample else None
    source = flags.checkpoint or released
    entry = find_released(source)
    if entry and entry.task == "pretrain":
        print(f"predict.py: {entry.name} was not fine-tuned; expect poor results", file=sys.stderr)
    model = build_from_checkpoint(kind, source).to(device).eval()

    dtype = precision_of(flags.precision, device)
    autocast = torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)
    kept, unreadable = [], 0
    out = None if flags.task == "features" else flags.out
    with lines_to(out) as file, autocast, tqdm(total=len(paths), unit="picture", disable=None) as bar:
        for names, pixels, broken in read_batches(paths, model.visual_encoder.image_size, flags.batch_size):
            for error in broken:
                tqdm.write(f"predict.py: skipped {error}", file=sys.stderr)
            unreadable += len(broken)
            predicted = predict(model, normalize(pixels.to(device)), flags) if names else []
            for name, record in zip(names, predicted, strict=True):
                record = {"image": str(name), **record}
                if flags.task == "features":
                    kept.append(record)
                elif file is not None:
                    print(json.dumps(record, ensure_ascii=False), file=file)
                elif flags.task == "caption" and flags.sidecar:
                    with atomic_write(name.with_suffix(flags.sidecar)) as temporary:
                        temporary.write_text(record["caption"] + "\n", encoding="utf-8")
                else:
                    for line in show(record):
                        tqdm.write(line)
            bar.update(len(names) + len(broken))
        if kept:
            vectors = model.encode_text(flags.text) if flags.text else None
            save_features(kept, flags.text, vectors, flags.out)
    if unreadable:
        print(f"predict.py: {unreadable} of {len(paths)} pictures could not be read", file=sys.stderr)
    return 1 if unreadable else 0


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parse(arguments)
    try:
        return run(flags)
    except DownloadError as error:
        print(f"predict.py: {error}\nTo see everything work without a download, run `make demo`.", file=sys.stderr)
    except (UserError, OSError) as error:
        print(f"predict.py: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
