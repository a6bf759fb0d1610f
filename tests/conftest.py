"""Fixtures for every test: the golden files, unpacked on demand, and one thread so that 2 cores are shared fairly."""

import json
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

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
    return {
        "vit": {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 16},
        "image_size": 64,
        "med_config": golden("med_config.json"),
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
