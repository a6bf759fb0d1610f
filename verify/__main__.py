"""Do the released checkpoints give here what public tests say they give?

    python -m verify demo_caption demo_match demo_vqa         # those that come along: seconds, without a network
    python -m verify                                          # these and all that are released: many gigabytes
    python -m verify model_base_retrieval_coco                # one, downloaded once
    python -m verify model_large_caption --file model.pth --pictures folder/     # without a network

Of each checkpoint: its file is fetched and its hash compared, it is loaded, and it is asked what public tests and pages
tell the answer of. A line of each says what was got, what is expected, and from where that is known (docs/fidelity.md).

Exit status: 0 if everything is as expected, 1 if something differs, 2 if nothing does but a file or picture is missing,
130 if it was interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    from settings.interrupts import exit_at_once_in_imports

    exit_at_once_in_imports()

from engine.device import choose_device
from files import is_web_address
from models.weights.included import INCLUDED
from models.weights.released import RELEASED
from settings import ConfigError
from settings.flags import Parser, add_flags, file_path, flag, values_of
from settings.messages import message
from verify.checks import Checker, Outcome, worst
from verify.public import PICTURES, VECTORS

NAMES = (*INCLUDED, *RELEASED)
_ELSEWHERE = " and ".join(name for name, address in PICTURES.items() if is_web_address(address))


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What is checked, and with what."""

    names: list[str]
    file: Path | None = flag(None, "the checkpoint's file (default: the cache's, which is downloaded)", type=file_path)
    pictures: Path | None = flag(
        None, f"folder with {_ELSEWHERE} (default: the cache's, which are downloaded)", type=file_path
    )
    device: str = flag("auto", "auto, cpu, cuda or mps (default: %(default)s)")

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in NAMES]
        if unknown:
            raise ConfigError(f"{unknown[0]}: no such checkpoint; there are {', '.join(NAMES)}")
        if self.file and len(self.names) != 1:
            raise ConfigError("--file is of one checkpoint: name it")


def parse(arguments: Sequence[str] | None) -> Flags:
    """The command line."""
    parser = Parser(prog="python -m verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of checkpoints (default: all)")
    add_flags(parser, Flags)
    try:
        return Flags(**values_of(Flags, parser.parse_args(arguments)))
    except ConfigError as error:
        parser.error(str(error))


def say(line: str) -> None:
    print(message(line, sys.stdout.encoding), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parse(arguments)
    try:
        device = choose_device(flags.device)
    except ConfigError as error:
        say(str(error))
        return Outcome.MISSING
    checker = Checker(VECTORS, PICTURES, flags.pictures, device, say)
    outcomes = {name: checker.check(name, flags.file) for name in flags.names or NAMES}
    for outcome, meaning in (
        (Outcome.HOLDS, "as expected"),
        (Outcome.MISSING, "not checked whole, since something is missing"),
        (Outcome.DIFFERS, "not as expected"),
    ):
        if names := [name for name, found in outcomes.items() if found is outcome]:
            say(f"{meaning}: {', '.join(names)}")
    return worst(outcomes.values())


if __name__ == "__main__":
    sys.exit(main())
