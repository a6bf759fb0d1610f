"""OpenVINO's way to caption finds what Hugging Face's model finds: the same weights, pixels and search."""

from pathlib import Path

import pytest
import torch
from transformers import BlipForConditionalGeneration

from models.blip import BLIPDecoder
from models.weights.huggingface import save_huggingface
from tests.small_model import TEXT, VIT

pytest.importorskip("openvino", reason="openvino is not installed")

from benchmarks.predict_openvino import Captioner, convert

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # the conversion calls torch.jit.trace
SIDE, PROMPT = 32, [30522, 1037, 3861, 1997]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A small captioner as Hugging Face's, with weights that 16-bit floats hold exactly, and converted."""
    torch.manual_seed(0)
    model = BLIPDecoder(image_size=SIDE, vit=VIT, med_config=TEXT).half().float()
    theirs, converted = (tmp_path_factory.mktemp(name) for name in ("theirs", "converted"))
    save_huggingface(model, theirs)
    convert(theirs, converted)
    return theirs, converted


@pytest.mark.parametrize("beams", [1, 3])
def test_tokens_are_hugging_faces(folders, beams):
    theirs, converted = folders
    model = BlipForConditionalGeneration.from_pretrained(theirs).eval()
    captioner = Captioner(converted, "fp32")
    search = {"num_beams": beams, "max_length": 20, "min_length": 5}
    random = torch.Generator().manual_seed(1)
    for pictures in (5, 2):  # a last batch is smaller
        pixels = torch.randn(pictures, 3, SIDE, SIDE, generator=random)
        prompt = torch.tensor([PROMPT] * pictures)
        expected = model.generate(pixels, input_ids=torch.nn.functional.pad(prompt, (0, 1), value=102), **search)
        assert expected.unique(dim=0).shape[0] > 1  # captions tell of their pictures
        assert torch.equal(captioner.caption(pixels, prompt, **search), expected)


def test_scores_follow_their_beams(folders):
    """After rows changed places, each token's scores are those of the row's own text."""
    theirs, converted = folders
    decoder = BlipForConditionalGeneration.from_pretrained(theirs).eval().text_decoder
    captioner = Captioner(converted, "fp32")
    random = torch.Generator().manual_seed(2)
    states = torch.randn(2, 5, VIT["embed_dim"], generator=random)
    captioner.image_states = states.numpy()
    texts = torch.randint(1000, 2000, (4, 4), generator=random)  # two beams of each picture
    captioner(texts)
    parents, token = torch.tensor([1, 0, 3, 3]), torch.tensor([[11], [12], [13], [14]]) + 1000
    found = captioner(token, cache=parents).logits
    with torch.no_grad():
        whole = torch.cat([texts[parents], token], dim=1)
        expected = decoder(whole, encoder_hidden_states=states.repeat_interleave(2, dim=0)).logits[:, -1:]
    assert (found - expected).abs().max() < 1e-4 < (found[0] - found[1]).abs().max()
