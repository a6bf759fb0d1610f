"""Captioning: images a second, against two other ways on the same weights.

    python -m benchmarks.caption [--images 4] [--device cpu] [--precision fp32] [--out benchmarks/results/caption.json]

A ViT-B captioner at 384 pixels with random weights writes 20 tokens (16 after the prompt) an image with 3 beams, in
three ways on the same weights:

- ours: each image is projected once, its beams are queries to that memory;
- textbook: the same beam search, but the image is repeated for every beam, and projected to keys and values anew in
  every layer and step, as the 2022 code did;
- Hugging Face: `BlipForConditionalGeneration.generate` of the installed `transformers`.

Ours and textbook give the same tokens, which is checked; Hugging Face's beam search scores differently. On a CPU one
thread is used and processor time is measured.
"""

import tempfile
from typing import Any

if __name__ == "__main__":
    from settings.interrupts import exit_on_interrupt

    exit_on_interrupt()

import torch
import transformers
from torch import Tensor

from benchmarks.measurement import clock, command_line, machine, prepare, save, seconds
from models.blip import BLIPDecoder
from models.generation import SearchOptions, generate
from models.med import TextDecoder
from models.weights.huggingface import save_huggingface
from settings.flags import at_least

BEAMS, LENGTH = 3, 20
OPTIONS = SearchOptions(num_beams=BEAMS, max_length=LENGTH, min_length=LENGTH)


class Textbook:
    """A text decoder whose memory is the image states themselves: it projects those of every beam in each step."""

    def __init__(self, decoder: TextDecoder) -> None:
        self.decoder, self.logits = decoder, decoder.logits
        self.bert = self
        self.layers, self.config = decoder.bert.layers, decoder.bert.config

    def __call__(self, ids: Tensor, memory: Tensor, **options: Any) -> Tensor:
        beams = memory.repeat_interleave(len(ids) // len(memory), dim=0)
        return self.decoder.bert(ids, memory=self.decoder.project(beams), **options)


def ours(model: BLIPDecoder, image: Tensor) -> Tensor:
    """image [B, 3, H, W] -> ids [B, 1, T]."""
    _, generated = model.generate_n_best(image, OPTIONS)
    return generated.ids


def textbook(model: BLIPDecoder, image: Tensor) -> Tensor:
    """image [B, 3, H, W] -> ids [B, 1, T]."""
    # `generate` hands the memory on to the decoder as it is: to this decoder, image states.
    decoder: Any = Textbook(model.text_decoder)
    with torch.no_grad():
        memory: Any = model.visual_encoder(image)
    prompt = torch.tensor([model.prompt_ids] * len(image), device=image.device)
    return generate(decoder, memory, prompt, OPTIONS, end_token=model.special.sep, pad_token=model.special.pad).ids


def encoder_share(model: BLIPDecoder, image: Tensor, rounds: int) -> float:
    """The image encoder's share of the time that captioning takes."""
    spent = []
    start = model.visual_encoder.register_forward_pre_hook(lambda *_: spent.append(-clock(image.device)))
    end = model.visual_encoder.register_forward_hook(lambda *_: spent.append(spent.pop() + clock(image.device)))
    shares = []
    for _ in range(rounds):
        begin = clock(image.device)
        ours(model, image)
        shares.append(spent[-1] / (clock(image.device) - begin))
    start.remove()
    end.remove()
    return sorted(shares)[len(shares) // 2]


def main() -> None:
    parser = command_line(__doc__, "caption.json", rounds=3)
    parser.add_argument("--images", type=at_least(1), default=4)
    flags = parser.parse_args()
    device, dtype = prepare(flags)
    model = BLIPDecoder(image_size=384, vit="base").to(device).eval()
    image = torch.randn(flags.images, 3, 384, 384, device=device)
    with tempfile.TemporaryDirectory() as folder:
        save_huggingface(model, folder)
        theirs: Any = transformers.BlipForConditionalGeneration.from_pretrained(folder)
    theirs.to(device).eval()
    prompt = torch.tensor([model.prompt_ids + [model.tokenizer.sep_token_id]] * flags.images, device=device)

    def hugging_face() -> Tensor:
        return theirs.generate(image, input_ids=prompt, num_beams=BEAMS, max_length=LENGTH, min_length=LENGTH)

    ways = {
        "ours": lambda: ours(model, image),
        "textbook": lambda: textbook(model, image),
        "hugging_face": hugging_face,
    }
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
        if dtype is torch.float32 and not torch.equal(ours(model, image), textbook(model, image)):
            raise RuntimeError("ours and the textbook way wrote different tokens, so that their times mean nothing")
        least = seconds(ways, flags.rounds, device)
        share = encoder_share(model, image, flags.rounds)
    result: dict[str, Any] = {
        "what": f"{flags.images} images at 384 pixels, ViT-B, {BEAMS} beams, {LENGTH} tokens, {flags.precision}",
        "seconds": least,
        "images_per_second": {name: flags.images / elapsed for name, elapsed in least.items()},
        "textbook_over_ours": least["textbook"] / least["ours"],
        "hugging_face_over_ours": least["hugging_face"] / least["ours"],
        "encoder_share_of_ours": share,
        "machine": machine(device) | {"transformers": transformers.__version__},
    }
    for name, elapsed in least.items():
        print(f"{name:13} {elapsed:7.2f} s  {flags.images / elapsed:7.2f} images/s")
    print(f"ours is {result['textbook_over_ours']:.1f} times as fast as the textbook way, ", end="")
    print(f"{result['hugging_face_over_ours']:.1f} times as fast as Hugging Face")
    print(f"{share:.0%} of ours is spent in the image encoder")
    save(flags.out, result)


if __name__ == "__main__":
    main()
