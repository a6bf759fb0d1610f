"""Caption, question and match real pictures end to end, with small models whose weights are random.

    python demo.py        (or `make demo`, which sets everything up first)

Nothing is downloaded and nothing was learned: what this shows is that building a model, writing a checkpoint, loading
it back and predicting all work on this machine. The texts are nonsense.
"""

import shlex
import sys
from pathlib import Path

import matplotlib.cbook
import torch

import predict
from models.blip import blip_decoder
from models.blip_itm import blip_itm
from models.blip_vqa import blip_vqa

FOLDER = Path("output/demo")
SIZES = {
    "image_size": 96,
    "vit": {"embed_dim": 128, "depth": 4, "num_heads": 2, "patch_size": 16},
    "med_config": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 512,
        "max_position_embeddings": 64,
    },
}


def main() -> int:
    torch.manual_seed(0)
    pictures = [
        str(matplotlib.cbook.get_sample_data(name, asfileobj=False))
        for name in ("grace_hopper.jpg", "Minduka_Present_Blue_Pack.png")
    ]
    questions = ["--question", "what is in the picture?", "--question", "what color is it?"]
    texts = ["--text", "a woman in uniform", "--text", "a wrapped present"]
    print("These models have random weights: every text below is nonsense, and only shows that all parts work.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    failures = 0
    for task, build, options in (
        ("caption", blip_decoder, []),
        ("vqa", blip_vqa, questions),
        ("match", blip_itm, texts),
    ):
        checkpoint = FOLDER / f"random_{task}.pth"
        torch.save({"model": build(**SIZES).state_dict(), "config": SIZES}, checkpoint)
        arguments = [task, *pictures, "--checkpoint", str(checkpoint), *options]
        print(f"\npython predict.py {shlex.join(arguments)}")
        failures += predict.main(arguments) != 0
    return failures


if __name__ == "__main__":
    sys.exit(main())
