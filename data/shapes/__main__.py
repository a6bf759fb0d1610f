"""`python -m data.shapes --out DIR --images N --seed S [--noise 0.3]`: see the package's docstring."""

import argparse
import sys

if __name__ == "__main__":
    from settings.interrupts import exit_on_interrupt

    exit_on_interrupt()

import data.shapes
from data.shapes import build_world
from data.shapes.scene import LEVELS
from settings import MissingPackage
from settings.flags import Parser, seed
from settings.messages import message


def main() -> None:
    parser = Parser(
        prog="python -m data.shapes",
        description=data.shapes.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, help="folder to write, new or of the same settings")
    parser.add_argument("--images", type=int, required=True, help="number of pictures in all splits together")
    parser.add_argument("--seed", type=seed, default=0, help="of every random choice (default 0)")
    parser.add_argument("--noise", type=float, default=0.0, help="share of wrong captions in pretrain.json (default 0)")
    parser.add_argument("--size", type=int, default=64, help="side of a picture in pixels (default 64)")
    parser.add_argument("--max_objects", type=int, default=4, help="most things in a scene, 1 to 4 (default 4)")
    parser.add_argument(
        "--level",
        type=int,
        default=3,
        choices=LEVELS,
        help="1: shape, color, place; 2: size too; 3: fill too (default)",
    )
    try:
        build_world(**vars(parser.parse_args()))
    except OSError as error:
        place = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error
        sys.exit(message(f"data.shapes: {place}", sys.stderr.encoding))
    except (ValueError, MissingPackage) as error:
        sys.exit(message(f"data.shapes: {error}", sys.stderr.encoding))


if __name__ == "__main__":
    main()
