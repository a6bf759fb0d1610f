"""Fixtures for every test: the golden files, unpacked on demand, and one thread so that 2 cores are shared fairly."""

import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is expected are a CPU's numbers; and two processes need two GPUs

import torch
from safetensors.torch import load_file

from data.shapes import build_world
from engine import Progress
from files import REPOSITORY

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`golden('caption/checkpoint.pth')` -> a readable path; files kept under xz are unpacked once a session."""
    unpacked = tmp_path_factory.mktemp("golden")

    def path_of(name: str) -> Path:
        plain = GOLDEN / name
        if plain.exists():
            return plain
        target = unpacked / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(lzma.decompress((GOLDEN / f"{name}.xz").read_bytes()))
        return target

    return path_of


@pytest.fixture(scope="session")
def tiny(golden: Callable[[str], Path]) -> dict:
    """Constructor arguments of the models that the golden checkpoints hold."""
    sizes = json.loads(golden("tiny_config.json").read_text())
    vit = sizes["vit"]
    return {
        "vit": {
            "embed_dim": vit["width"],
            "depth": vit["depth"],
            "num_heads": vit["heads"],
            "patch_size": vit["patch_size"],
        },
        "image_size": sizes["image_size"],
        "med_config": golden(sizes["text"]),
    }


@pytest.fixture(scope="session")
def arrays(golden: Callable[[str], Path]) -> Callable[[str], torch.Tensor | dict[str, torch.Tensor]]:
    """`arrays('itm/images.npy')` -> a tensor; `arrays('itm/expected.npz')` -> tensors by name."""

    def load(name: str) -> torch.Tensor | dict[str, torch.Tensor]:
        loaded = np.load(golden(name), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return torch.from_numpy(loaded)
        return {key: torch.from_numpy(loaded[key]) for key in loaded.files}

    return load


@pytest.fixture(scope="session")
def facts(golden: Callable[[str], Path]) -> Callable[[str], dict]:
    """`facts('itm/texts.json')` -> what the file holds."""
    return lambda name: json.loads(golden(name).read_text())


@pytest.fixture(scope="session")
def close() -> Callable[..., None]:
    """Assert equality within an absolute tolerance (a relative one would hide a wrong LayerNorm epsilon)."""
    return partial(torch.testing.assert_close, rtol=0, atol=1e-5, check_dtype=False)


@pytest.fixture(scope="session")
def check_gradients() -> Callable[[torch.nn.Module, dict[str, float | None], Path], None]:
    """Compare a model's gradients with the recorded ones: all norms, and the full tensors that were recorded."""

    def check(model: torch.nn.Module, norms: dict[str, float | None], full: Path | None = None) -> None:
        parameters = dict(model.named_parameters())
        assert {name for name in norms if name in parameters} == set(parameters)
        for name, expected in norms.items():
            if name not in parameters:
                assert expected is None or name.endswith(("position_ids",)), name
                continue
            grad = parameters[name].grad
            if expected is None:
                assert grad is None, name
            else:
                # The gradient of a key's bias is zero but for rounding: softmax ignores a constant.
                assert grad.double().norm().item() == pytest.approx(expected, rel=1e-4, abs=2e-6), name
        recorded = load_file(full) if full else {}
        for name, expected in recorded.items():
            # The largest gradients are of size 100; 1e-4 of that is rounding.
            tolerance = 1e-5 + 1e-5 * expected.abs().max().item()
            torch.testing.assert_close(
                parameters[name].grad, expected, rtol=1e-4, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )

    return check


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with two small embedded worlds in `output/demo`, where `configs/demo/*.yaml` want them."""
    folder = tmp_path_factory.mktemp("demo")
    for seed, name in enumerate(("world", "web")):
        build_world(folder / "output" / "demo" / name, images=60, seed=seed)
    return folder


@pytest.fixture
def in_demo_folder(demo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work there, without Java, whose start costs seconds an evaluation."""
    monkeypatch.chdir(demo_folder)
    monkeypatch.setenv("PATH", "")
    return demo_folder


@pytest.fixture(scope="session")
def quick() -> list[str]:
    """Overrides that make a demo config train an even smaller model for one epoch, reported twice."""
    return [
        "vit={embed_dim: 32, depth: 2, num_heads: 2, patch_size: 16}",
        "med_config={hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64, "
        "max_position_embeddings: 64, hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}",
        "image_size=64",
    ]


@pytest.fixture(scope="session")
def torchrun_script(demo_folder: Path) -> Callable[..., subprocess.CompletedProcess]:
    """`torchrun_script(2, 'train_nlvr.py', '--config', ...)` in the demo folder; fails the test if the script does."""

    def run(processes: int, script: str, *arguments: object) -> subprocess.CompletedProcess:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        result = subprocess.run(
            [sys.executable, *launcher, str(REPOSITORY / script), *map(str, arguments)],
            cwd=demo_folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": ""},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def pretrained(demo_folder: Path, quick: list[str]) -> Path:
    """A checkpoint of `pretrain.py`, of the size that `quick` makes."""
    import pretrain

    output = demo_folder / "output" / "pretrained"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(demo_folder)
        pretrain.main(
            [
                "--config",
                "configs/demo/pretrain.yaml",
                "--output_dir",
                str(output),
                *quick,
                "max_epoch=1",
                "batch_size=8",
            ]
        )
    return output / "checkpoint_00.pth"


@pytest.fixture(scope="session")
def overfit() -> Callable[..., tuple[dict[str, float], dict[str, float]]]:
    """Train a model on one batch; returns what its train_step gave in the first step and in the last."""

    def train(model: torch.nn.Module, batch: dict, train_step: Callable, steps: int) -> tuple[dict, dict]:
        optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-3)
        outputs = []
        for step in range(steps):
            torch.manual_seed(step)
            output = train_step(model, batch, Progress(0, 0, 1, step))
            optimizer.zero_grad()
            output["loss"].backward()
            optimizer.step()
            outputs.append({name: float(value.detach()) for name, value in output.items()})
        return outputs[0], outputs[-1]

    return train
