"""A page in the browser to ask models about pictures: captions, questions, matches, a search, and maps of each word.

    python app.py                                # the small models that come along: seconds, no network
    python app.py --checkpoint model_base_caption_capfilt_large --checkpoint model_base_vqa_capfilt_large \\
                  --checkpoint model_base_retrieval_coco --folder holiday/
    python app.py --checkpoint caption=output/caption/checkpoint_best.pth

It needs the extra `app`: pip install -e '.[app]', or `make app`. The page is at http://127.0.0.1:7860, for this machine
alone; docs/app.md says how to open it to others, and what they can see then: of this machine's files, none.

Exit status: 0 if it was ended by Ctrl-C, 2 if it could not start.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    from settings.interrupts import exit_at_once_in_imports

    exit_at_once_in_imports()

from files import REPOSITORY
from prediction import Answerer, Captioner, Matcher
from settings import ConfigError, UserError, needs_extra
from settings.flags import Parser, add_flags, at_least, file_path, flag, values_of
from settings.messages import message
from webapp.checkpoints import OF_TASK, comes_along, sources
from webapp.limits import Limits

_LAST_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the page shows, to whom, and how much of it."""

    checkpoint: list[str] = flag(
        [],
        f"a released name, or TASK=SOURCE with {', '.join(OF_TASK)} as TASK and a released name, path, URL or hub name "
        f"as SOURCE; once for each task (default: {', '.join(OF_TASK.values())})",
        action="append",
    )
    folder: Path = flag(
        REPOSITORY / "demo" / "pictures",
        "whose pictures are searched (default: those that come along)",
        type=file_path,
    )
    host: str = flag("127.0.0.1", "address to listen at; 0.0.0.0 lets other machines in (default: %(default)s)")
    port: int = flag(7860, "to listen at (default: %(default)s)", type=at_least(1))
    root_path: str = flag("", "where a reverse proxy shows the page, such as /blip")
    device: str = flag("auto", "auto, cpu, cuda or mps (default: %(default)s)")
    upload_mb: int = flag(10, "most megabytes of an upload (default: %(default)s)", type=at_least(1))
    megapixels: int = flag(50, "most million pixels of a picture (default: %(default)s)", type=at_least(1))
    queue: int = flag(
        32, "most requests that wait; others are told to come back (default: %(default)s)", type=at_least(1)
    )

    def __post_init__(self) -> None:
        sources(self.checkpoint)
        if self.port > _LAST_PORT:
            raise ConfigError(f"--port {self.port} must be at most {_LAST_PORT}")
        if self.root_path and not self.root_path.startswith(("/", "http://", "https://")):
            raise ConfigError(f"--root_path {self.root_path} must begin with a /, or be a URL")


def serve(flags: Flags) -> None:
    """Load the models, look at the folder, and show the page until Ctrl-C."""
    chosen = sources(flags.checkpoint)
    with needs_extra("app", "the page"):
        from webapp.folder import SearchedFolder
        from webapp.page import build, show
        from webapp.tabs import Tabs

    captioner = Captioner(chosen["caption"], device=flags.device)
    answerer = Answerer(chosen["vqa"], device=flags.device)
    matcher = Matcher(chosen["match"], device=flags.device)
    limits = Limits(pixels=flags.megapixels, upload=flags.upload_mb)
    tabs = Tabs(captioner, answerer, matcher, SearchedFolder(matcher, flags.folder), limits)
    page = build(tabs, shapes_only=any(map(comes_along, chosen.values())))
    address = show(page, limits, flags.host, flags.port, flags.root_path, flags.queue)
    print(f"the page is at {address}; Ctrl-C ends it", flush=True)
    page.block_thread()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, Flags)
    try:
        flags = Flags(**values_of(Flags, parser.parse_args(arguments)))
    except ConfigError as error:
        parser.error(str(error))
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        serve(flags)
    except UserError as error:
        print(f"app.py: {message(error, sys.stderr.encoding)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
