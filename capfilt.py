"""CapFilt: caption the pictures of a noisy corpus, and score the web's texts and the new ones (paper, section 3.3).

    python capfilt.py --config configs/capfilt.yaml --output_dir output/capfilt
    python -m torch.distributed.run --nproc_per_node=8 capfilt.py --config configs/capfilt.yaml
    python capfilt.py select output/capfilt threshold=0.5       # what is kept: no GPU, seconds; --help shows its keys

Every score is kept, in output/capfilt/scores: what is kept of the corpus is chosen afterwards. An interrupted run goes
on when it is started again, with any number of processes.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import engine
from bootstrapping.caption_filter import CaptionFilter
from bootstrapping.choice import select
from bootstrapping.identity import checkpoint_identity, claim_folder, versions
from bootstrapping.scoring import list_unusable, score_corpus
from data.corpus.sources import CorpusData
from data.corpus.units import Corpus
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.generation import SearchOptions
from models.weights.build import build_from_checkpoint
from models.weights.files import CheckpointError
from settings import ConfigError, check, setting

_LARGEST_BATCH = 100_000  # images; more would fill any memory
_LONGEST = 1_000  # tokens of a caption


@dataclass
class Config(engine.RunConfig, CorpusData):
    """CapFilt's keys beside those of the corpus."""

    captioner: str = setting(
        "model_base_caption_capfilt_large", "checkpoint that writes captions: a released name, a path, an address"
    )
    filter: str = setting(
        "model_base_retrieval_coco", "checkpoint with a matching head that scores all texts: a name, a path, an address"
    )
    captions_per_image: int = setting(1, "captions written for each image; 0 scores the corpus' texts only")
    decoding: Literal["nucleus", "beam"] = setting("nucleus", "how captions are found: sampled, or by beam search")
    top_p: float = setting(0.9, "probability of the nucleus that tokens are sampled from")
    top_k: int = setting(50, "tokens that are sampled from at most; 0: all")
    num_beams: int = setting(3, "beams of the search")
    max_length: int = setting(20, "most tokens of a caption, the prompt's counted")
    min_length: int = setting(5, "fewest tokens of a caption, the prompt's counted")
    prompt: str | None = setting(None, "words that captions start with; null: those of the captioner's training")
    batch_size: int = setting(64, "images that a process captions and scores at once")
    threshold: float = setting(0.5, "probability from which on the progress line counts a text as kept")

    def __post_init__(self) -> None:
        check(bool(self.filter), "filter", "''", "a checkpoint with a matching head, which scores the texts")
        check(0 <= self.captions_per_image <= 1000, "captions_per_image", self.captions_per_image, "from 0 to 1,000")
        if self.captions_per_image and not self.captioner:
            raise ConfigError("captioner: name a checkpoint that writes captions, or set captions_per_image: 0")
        check(1 <= self.batch_size <= _LARGEST_BATCH, "batch_size", self.batch_size, f"from 1 to {_LARGEST_BATCH:,}")
        check(2 <= self.max_length <= _LONGEST, "max_length", self.max_length, f"from 2 to {_LONGEST:,}")
        rule = f"from 0 to max_length = {self.max_length}"
        check(0 <= self.min_length <= self.max_length, "min_length", self.min_length, rule)
        check(0 <= self.threshold <= 1, "threshold", self.threshold, "a probability, from 0 to 1")
        self.search()
        super().__post_init__()

    def search(self) -> SearchOptions:
        """These keys as the options of a search."""
        return SearchOptions(
            sample=self.decoding == "nucleus",
            num_beams=self.num_beams,
            max_length=self.max_length,
            min_length=self.min_length,
            top_p=self.top_p,
            top_k=self.top_k,
            num_return_sequences=max(1, self.captions_per_image),
        )

    def deciding(self) -> dict[str, Any]:
        """The keys that decide what is written, apart from the corpus' and the checkpoints'."""
        elsewhere = {field.name for field in fields(CorpusData)} | {"captioner", "filter"}
        free = {"print_freq", "timeout_minutes", "threshold", "precision"}
        return {key: value for key, value in asdict(self).items() if key not in elsewhere | free}


def build_models(run: engine.Run[Config]) -> CaptionFilter:
    config = run.config
    with _named("captioner"):
        captioner = build_from_checkpoint(BLIPDecoder, config.captioner) if config.captions_per_image else None
    with _named("filter"):
        matcher = build_from_checkpoint(BLIPMatcher, config.filter)
    for model in filter(None, (captioner, matcher)):
        model.to(run.device).eval()
    return CaptionFilter(captioner, matcher, config.search(), config.prompt, run.seed)


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Say of a checkpoint that cannot be used which key names it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from error


def identity(run: engine.Run[Config], corpus: Corpus) -> dict[str, Any]:
    """What the output folder holds the scores of."""
    config = run.config
    captioner = checkpoint_identity(config.captioner) if config.captions_per_image else None
    checkpoints = {"captioner": captioner, "filter": checkpoint_identity(config.filter)}
    deciding = {**config.deciding(), "seed": run.seed}
    return {"corpus": corpus.identity, "units": len(corpus.units), **checkpoints, "config": deciding}


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["select"]:
        sys.exit(select(arguments[1:]))
    with engine.start(Config, __doc__, "configs/capfilt.yaml", "output/capfilt", arguments) as run:
        corpus = run.config.open_corpus()
        models = build_models(run)
        known = engine.first_decides(lambda: identity(run, corpus))
        engine.first_decides(lambda: claim_folder(run.output_dir, known, run.config.places()))
        about = {key: known[key] for key in ("captioner", "filter", "config")}
        score_corpus(run, corpus, models, {**about, "versions": versions()})
        list_unusable(run)


if __name__ == "__main__":
    main()
