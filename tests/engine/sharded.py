"""What each of two processes runs in test_sharding.py: the scripts' own steps, with a sharded optimizer and without."""

import os
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

import pretrain
import train_retrieval
from engine import Progress, Run, TrainConfig
from engine.step import Optimization
from models.blip_pretrain import BLIPPretrain
from models.blip_retrieval import BLIPRetrieval
from settings import load_config
from tests.engine import toy
from tests.small_model import TEXT, VIT

SIZES = {"image_size": 32, "vit": VIT, "med_config": TEXT, "embed_dim": 16, "queue_size": 16, "momentum": 0.9}
CAPTIONS = ["a red dog", "a blue cat", "two big cars", "one tall tree", "three old men", "the wet street"]
TASKS = {
    "pretrain": (BLIPPretrain, partial(pretrain.train_step, load_config(pretrain.Config, "configs/pretrain.yaml", []))),
    "retrieval": (BLIPRetrieval, partial(train_retrieval.train_step, 0.4)),
}
CASES = {  # (task, keys of the config, the step in which the loss of the second process is infinite)
    "pretrain": ("pretrain", {}, -1),
    "retrieval": ("retrieval", {"clip_grad_norm": 0.5}, -1),
    "broken": ("retrieval", {"clip_grad_norm": 0.5}, 2),
    "fp16": ("retrieval", {"precision": "fp16"}, -1),
}
STEPS = 4
TOY = ["print_freq=5", "tensorboard=false", "dropout=0.0", "shard_optimizer=true", "clip_grad_norm=5.0"]


def batch_of(rank):
    """Three samples, others on each process."""
    image = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    samples = {"image": image, "caption": CAPTIONS, "image_id": torch.arange(6)}
    return {name: value[3 * rank : 3 * rank + 3] for name, value in samples.items()}


def optimization(case, rank, processes, sharded):
    """A small model, the same on all processes, with its script's step."""
    task, keys, broken_at = CASES[case]
    build, train_step = TASKS[task]

    def step(model, batch, progress):
        output = train_step(model, batch, progress)
        is_broken = progress.step == broken_at and rank == 1
        return {"loss": output["loss"] + (torch.inf if is_broken else 0.0)}

    torch.manual_seed(0)
    model = build(**SIZES).train()
    config = TrainConfig(init_lr=1e-3, shard_optimizer=sharded, **keys)
    return Optimization(Run(config, Path(), torch.device("cpu"), 0, rank, processes, False, None), model, step)


def train(training, rank, steps):
    """Losses, norms of gradients, and whether the guard has seen a broken loss, of each step."""
    values = []
    for step in steps:
        torch.manual_seed(100 * step + rank)  # negatives are drawn
        output = training.step([batch_of(rank)], Progress(0, step, STEPS, step), 1e-3)
        values.append({name: float(value) for name, value in output.items()})
    return values


def clone(value):
    """The copy that `Optimization.state_dict` is given."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    return value.clone()


def weights(training):
    model = getattr(training.model, "module", training.model)
    return {name: value.clone() for name, value in model.state_dict().items()}


def run(rank, folder, port):
    """What `compare` does, and a whole run of the toy."""
    compare(rank, folder / "store", folder / "out")
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **place}
    toy.main(["--output_dir", str(folder / "toy"), *TOY, "batch_size=4", "max_epoch=1"])


def compare(rank, store, out):
    """Each case with a sharded optimizer and without; what one leaves is taken up by the other after half the steps."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found = {}
    for case in CASES:
        for sharded in (False, True):
            training = optimization(case, rank, 2, sharded)
            values = train(training, rank, range(2))
            middle = weights(training), training.state_dict(clone)
            values += train(training, rank, range(2, STEPS))
            held = sum(x.nbytes for moments in training.optimizer.state.values() for x in moments.values())
            result = {"values": values, "held": held, "weights": weights(training), "state": training.state_dict(clone)}
            files = [middle]
            dist.broadcast_object_list(files)  # as from the file that the first process wrote
            other = optimization(case, rank, 2, not sharded)
            other.model.module.load_state_dict(files[0][0])
            other.load_state_dict(files[0][1])
            train(other, rank, range(2, STEPS))
            found[case, sharded] = {**result, "resumed": weights(other)}
    torch.save(found, f"{out}.{rank}")
    dist.destroy_process_group()
