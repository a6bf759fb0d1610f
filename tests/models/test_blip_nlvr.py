"""NLVR2 agrees with the 2022 code, from a fine-tuned checkpoint and from a pre-trained one."""

import pytest
import torch
from safetensors.torch import load_file

from models.blip_nlvr import blip_nlvr


@pytest.fixture(scope="module")
def images(arrays):
    return arrays("nlvr/images.npy")


@pytest.fixture(scope="module")
def inputs(facts):
    return facts("nlvr/inputs.json")


@pytest.fixture(scope="module")
def model(golden, tiny):
    return blip_nlvr(str(golden("nlvr/checkpoint.pth")), **tiny).eval()


@pytest.fixture(scope="module")
def from_pretraining(golden, tiny):
    model = blip_nlvr(str(golden("pretrain/checkpoint.pth")), **tiny).eval()
    anew = load_file(golden("nlvr/pretrain_form_uninitialised.safetensors"))
    _, unexpected = model.load_state_dict(anew, strict=False)
    assert not unexpected
    return model


@pytest.mark.parametrize("form", ["finetuned", "pretrain_form"])
def test_logits_and_loss(form, request, images, inputs, arrays, facts, close):
    model = request.getfixturevalue({"finetuned": "model", "pretrain_form": "from_pretraining"}[form])
    expected = arrays("nlvr/expected.npz")
    targets = torch.tensor(inputs["targets"])
    swapped = torch.cat([images[3:], images[:3]])
    with torch.no_grad():
        close(model(images, inputs["sentences"], train=False), expected[f"{form}_logits"])
        close(model(swapped, inputs["sentences"], train=False), expected[f"{form}_logits_images_swapped"])
        close(model(images, inputs["sentences"], targets), torch.tensor(facts("nlvr/expected.json")[f"{form}_loss"]))


def test_gradients(model, images, inputs, facts, golden, check_gradients):
    model.zero_grad()
    model(images, inputs["sentences"], torch.tensor(inputs["targets"])).backward()
    check_gradients(model, facts("nlvr/expected.json")["grad_l2"], golden("nlvr/expected_grads.safetensors"))
    model.zero_grad()


def test_both_cross_attentions_start_from_the_pre_trained_one(from_pretraining, facts):
    state = from_pretraining.state_dict()
    checksums = facts("nlvr/expected.json")["pretrain_form_state_checksums"]
    compared = {name: values for name, values in checksums.items() if "position_ids" not in name}
    assert set(compared) == set(state)
    for name, values in compared.items():
        assert state[name].double().sum().item() == pytest.approx(values["sum"], rel=1e-6, abs=1e-4), name
        assert state[name].double().norm().item() == pytest.approx(values["l2"], rel=1e-6), name
    layer = "text_encoder.encoder.layer.3.crossattention"
    assert torch.equal(state[f"{layer}.self0.query.weight"], state[f"{layer}.self1.query.weight"])


def test_images_must_be_two_for_each_sentence(model, images):
    with pytest.raises(ValueError, match="2 sentences need 4 images, and there are 6"):
        model(images, ["a dog", "a cat"], train=False)


@torch.no_grad()
def test_a_sentence_need_not_be_in_a_list(model, images, inputs, close):
    sentence = inputs["sentences"][0]
    close(model(images[[0, 3]], sentence, train=False), model(images[[0, 3]], [sentence], train=False))
