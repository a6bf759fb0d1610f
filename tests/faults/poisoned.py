"""A training script ($SCRIPT), to which a picture ($POISONED, the end of its name) comes with one pixel that is NaN."""

import importlib
import os

from transform.image import TrainTransform

transform = TrainTransform.__call__


def poisoned(self, picture, rng):
    image = transform(self, picture, rng).double()
    if picture.name.endswith(os.environ["POISONED"]):
        image[1, 2, 3] = float("nan")
    return image


if __name__ == "__main__":
    TrainTransform.__call__ = poisoned
    importlib.import_module(os.environ["SCRIPT"]).main()
