"""The functions and classes that programs written for the code of 2022 import, on top of the present code.

    from models.blip import create_vit, init_tokenizer, interpolate_pos_embed, is_url, load_checkpoint
    from models.med import BertConfig, BertLMHeadModel, BertModel

Import them from where they were in 2022, as above, not from this module. The networks' old names (`BLIP_Decoder`) are
defined beside their classes. docs/from-blip-2022.md lists what is kept and what is not.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import nn
from transformers import PreTrainedTokenizerFast

from models import vit as vision
from models.config import TextConfig
from models.errors import check
from models.med import TextDecoder, TextModel
from models.tokenizer import build_tokenizer
from models.vit import VisionTransformer
from models.weights.address import is_web_address
from models.weights.files import read_state
from models.weights.load import load_state

if TYPE_CHECKING:
    from transformers import BertConfig


def create_vit(
    vit: str | Mapping[str, int],
    image_size: int,
    use_grad_checkpointing: bool = False,
    ckpt_layer: int = 0,
    drop_path_rate: float = 0,
) -> tuple[VisionTransformer, int]:
    """Build an image encoder -> the encoder, and the width of its states.

    Args:
        vit: a name ('tiny', 'small', 'base', 'large'), or a mapping `{embed_dim, depth, num_heads, patch_size}`.
        image_size: side of the square input, in pixels.
        use_grad_checkpointing, ckpt_layer: with the first, the last `ckpt_layer` blocks recompute their activations in
            the backward pass, to save memory.
        drop_path_rate: stochastic depth; 0 means 0.1 with 'large', as in 2022.
    """
    encoder = vision.create_vit(vit, image_size, use_grad_checkpointing, ckpt_layer, drop_path_rate or None)
    return encoder, encoder.embed_dim


def init_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of every network: bert-base-uncased's words, `[DEC]` (its `bos_token`) and `[ENC]`."""
    return build_tokenizer()


def is_url(url_or_filename: str) -> bool:
    """Whether this is an http or https address."""
    return is_web_address(url_or_filename)


class LoadedKeys(NamedTuple):
    """The keys that were not loaded: those the checkpoint lacks or has in another shape, and those the model lacks."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_checkpoint(model: nn.Module, url_or_filename: str | Path) -> tuple[nn.Module, LoadedKeys]:
    """Load the tensors of a checkpoint that fit into the model, and ignore the others -> the model, and their keys.

    Deprecated: a partly loaded model gives plausible nonsense. `models.load_checkpoint` refuses what does not fit.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
        DownloadError: it is not on this machine and cannot be downloaded.
    """
    warnings.warn(
        "models.blip.load_checkpoint passes over weights that do not fit; use models.load_checkpoint(model, path), "
        "which refuses them and returns a report",
        DeprecationWarning,
        stacklevel=2,
    )
    state, _ = read_state(url_or_filename)
    any_key = {"*": "the loader of 2022 ignores what does not fit"}
    report = load_state(model, state, source=str(url_or_filename), reinitialized=any_key, ignored=any_key)
    return model, LoadedKeys(list(report.missing), list(report.unexpected))


def _check_no_pooling(add_pooling_layer: bool) -> None:
    check(not add_pooling_layer, "add_pooling_layer", add_pooling_layer, "False: BLIP's text models have none")


class BertModel(TextModel):
    """A `TextModel` made from a `transformers.BertConfig`.

    Args:
        config: BERT's sizes; also `encoder_width`, the width of the image states, where `add_cross_attention` is set.
        add_pooling_layer: must be False.
    """

    def __init__(self, config: "BertConfig", add_pooling_layer: bool = False) -> None:
        _check_no_pooling(add_pooling_layer)
        crosses = config.add_cross_attention
        super().__init__(
            TextConfig.read(config.to_dict()),
            config.vocab_size,
            config.encoder_width if crosses else 0,
            cross_attentions=1 if crosses else 0,
        )


class BertLMHeadModel(TextDecoder):
    """A `TextDecoder` made from a `transformers.BertConfig` with `encoder_width`."""

    def __init__(self, config: "BertConfig") -> None:
        super().__init__(TextConfig.read(config.to_dict()), config.vocab_size, config.encoder_width)
