"""The small models that come with this repository, by name: trained by `make demo` on drawn scenes.

They stand in demo/trained/, where README.md tells what they can do; `python -m demo.models` makes them.
"""

from collections.abc import Mapping
from pathlib import Path

from models.paths import REPOSITORY

FOLDER = REPOSITORY / "demo" / "trained"

INCLUDED: Mapping[str, Path] = {
    name: FOLDER / f"{name}.safetensors" for name in ("demo_caption", "demo_match", "demo_vqa")
}
