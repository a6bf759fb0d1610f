"""Save a model as a folder that works alone, and push it to the Hugging Face hub.

A captioner, a question answerer or a matcher is saved in the layout of `transformers` (`models.weights.huggingface`):
one folder, which both read. For other models `transformers` has no class, so that their folder has our own names of
tensors, with the sizes in `config.json`.
"""

import json
import tempfile
from pathlib import Path

import huggingface_hub

from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.blip_vqa import BLIPVQA
from models.errors import UserError, one_line
from models.image_text import ImageTextModel
from models.paths import atomic_write
from models.weights.card import model_card
from models.weights.download import offline
from models.weights.huggingface import save_huggingface, transformers_class
from models.weights.integrity import save_safetensors

CARD = "README.md"


class UploadError(UserError, OSError):
    """A model could not be pushed to the hub."""


def save_pretrained(
    model: VisionLanguageModel,
    folder: str | Path,
    *,
    name: str = "",
    checkpoint: str | Path | None = None,
    scores: str | Path | None = None,
) -> Path:
    """Write a folder that works alone: weights, sizes, vocabulary, mean and deviation of pixels, and a card.

    Args:
        folder: created if necessary; files of the same names are replaced, but for a card, which its owner may have
            filled in.
        name: the model's, in the card; that of the folder when empty.
        checkpoint: the file that the weights come from, for the card: what they were trained on, and their scores.
        scores: an `evaluate.txt`, for the card; see `model_card`.

    Returns:
        `folder`.

    Raises:
        CheckpointError, UserError: `checkpoint` or `scores` cannot be read.
    """
    folder = Path(folder).expanduser()
    theirs = transformers_class(model)
    card = model_card(
        model,
        name or folder.resolve().name,
        transformers_class=theirs,
        checkpoint=Path(checkpoint).expanduser() if checkpoint else None,
        scores=Path(scores).expanduser() if scores else None,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if theirs and isinstance(model, BLIPDecoder | BLIPVQA | ImageTextModel):
            save_huggingface(model, folder)
        else:
            _save_own(model, folder)
        if not (folder / CARD).exists():
            with atomic_write(folder / CARD) as temporary:
                temporary.write_text(card, encoding="utf-8")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{folder}: the model cannot be written there ({error.strerror or error})") from error
    return folder


def _save_own(model: VisionLanguageModel, folder: Path) -> None:
    """Write weights under our own names, sizes and vocabulary."""
    described = model.describe()
    with atomic_write(folder / "config.json") as temporary:
        sizes = {
            "architectures": [type(model).__name__],
            "vit": described["vit"],
            "med_config": described["med_config"],
        }
        temporary.write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
    with atomic_write(folder / "processor_config.json") as temporary:
        side = model.visual_encoder.image_size
        pixels = {"image_mean": list(model.pixels.mean), "image_std": list(model.pixels.std)}
        processor = {"image_processor": {"size": {"height": side, "width": side}, **pixels}}
        temporary.write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
    with atomic_write(folder / "vocab.txt") as temporary:
        temporary.write_text("".join(f"{token}\n" for token in model.vocabulary.tokens), encoding="utf-8")
    weights = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in model.state_dict().items()}
    with atomic_write(folder / "model.safetensors") as temporary:
        save_safetensors(weights, temporary, {"format": "pt"})


def push_to_hub(
    model: VisionLanguageModel,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    checkpoint: str | Path | None = None,
    scores: str | Path | None = None,
) -> str:
    """Save the model and upload the folder to a repository of the Hugging Face hub -> the address of the commit.

    The repository is created if it is not there. A card that it has already is kept.

    Args:
        repository: `owner/name`.
        private: whether a new repository is; as the owner's settings say when None.
        token: of the hub; when None, that of `hf auth login` or of the environment's HF_TOKEN.
        checkpoint, scores: as for `save_pretrained`.

    Raises:
        UploadError: no network, no right to write there, or another refusal of the hub.
        CheckpointError, UserError: as `save_pretrained`.
    """
    if offline():
        raise UploadError(
            f"cannot push to {repository}: the environment forbids the network (BLIP_OFFLINE or HF_HUB_OFFLINE is set)"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = save_pretrained(
            model, Path(name, "model"), name=repository.rpartition("/")[2], checkpoint=checkpoint, scores=scores
        )
        api = huggingface_hub.HfApi(token=token)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            kept = [CARD] if api.file_exists(repository, CARD) else None
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message="Upload a BLIP model",
                ignore_patterns=kept,
            )
        except Exception as error:  # the hub's own, and those of the libraries beneath it
            reason = one_line(str(error).strip().partition("\n")[0] or type(error).__name__)
            raise UploadError(
                f"cannot push to {one_line(repository)}: {reason}; log in with `hf auth login`, or give a token that "
                "may write there"
            ) from error
    return commit.commit_url
