"""Graphs compute what the models compute; an export is whole, checked, and used without torch."""

import copy
import importlib.util
import json
import logging
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from export.__main__ import build_models, main
from export.check import TOLERANCE, ExportError, compare, run, session
from export.graphs import traced_parts, whole_graphs
from files import REPOSITORY
from models import blip_decoder, blip_itm, blip_nlvr, blip_pretrain, blip_vqa
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.generation import SearchOptions
from models.tokenizer import build_tokenizer, decode, tokenize
from settings import UserError
from tests.hidden_packages import finders_without
from tests.small_model import TEXT, VIT

EXAMPLE = REPOSITORY / "examples/caption_with_onnxruntime.py"
SIZES = {"med_config": {**TEXT, "num_hidden_layers": 1}, "vit": {**VIT, "depth": 1}, "image_size": 32}


def sharpened(model):
    """A model whose random weights tell texts apart, and which ends some of them."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "visual_encoder" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def save(model, path, **config):
    torch.save({"model": model.state_dict(), "config": {**SIZES, **config}}, path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def parts_once():
    """Makes `main` use the parts that were traced of the same kind of model before: tracing takes ten seconds."""
    traced = {}

    def once(model):
        kind = type(model)
        if kind not in traced:
            logging.disable(logging.CRITICAL)  # pytest would keep the exporter's thousands of lines
            traced[kind] = traced_parts(model)
            logging.disable(logging.NOTSET)
        return copy.deepcopy(traced[kind])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.graphs.traced_parts", once)
        yield once


@pytest.fixture(scope="module")
def captioner(folder, golden, tiny, parts_once):
    """The golden captioner, its checkpoint, and the folder of its export."""
    model = blip_decoder(str(golden("caption/checkpoint.pth")), **tiny).eval()
    sizes = {**tiny, "med_config": json.loads(tiny["med_config"].read_text())}
    checkpoint = save(model, folder / "captioner.pth", **sizes)
    assert main([checkpoint, "--out", str(folder / "captioner")]) == 0
    return model, checkpoint, folder / "captioner"


def search(graph, states, beams, longest, least=5):
    numbers = {"num_beams": np.array(beams), "min_length": np.array(least), "max_length": np.array(longest)}
    return run(graph, {"image_states": states, **numbers})


def rows(ids, pad=0):
    return [[[token for token in text if token != pad] for text in image] for image in np.asarray(ids).tolist()]


@pytest.fixture(scope="module")
def graphs(captioner):
    """The graphs of the golden captioner: of its image encoder, and of its search."""
    return [session(onnx.load(captioner[2] / f"{name}.onnx")) for name in ("image_encoder", "caption_decoder")]


@pytest.mark.parametrize(("pictures", "recorded"), [("images", "expected"), ("images_beam", "expected_beam")])
def test_the_graphs_say_what_the_2022_model_said_of_all_golden_pictures(graphs, arrays, facts, pictures, recorded):
    encoder, decoder = graphs
    states = run(encoder, {"image": arrays(f"caption/{pictures}.npy").numpy()})[0]
    compared = []
    for name, expected in facts(f"caption/{recorded}.json")["generate"].items():
        options = expected.get("args", {"sample": True})
        if options["sample"] or "repetition_penalty" in options or name.startswith("empty_prompt"):
            continue
        number = int(name[-1]) if name.startswith("beam3_single_image_") else slice(None)
        found = states[number][None] if isinstance(number, int) else states
        ids = search(decoder, found, options["num_beams"], options["max_length"], options["min_length"])[0]
        assert rows(ids[:, :1]) == rows([[text] for text in expected["token_ids"]]), name
        compared.append(options["num_beams"])
    assert len(compared) >= 1
    assert pictures == "images_beam" or {1, 2, 3} <= set(compared)


@torch.no_grad()
@pytest.mark.parametrize(("beams", "longest", "least"), [(1, 20, 5), (2, 12, 8), (3, 20, 5), (5, 9, 0), (3, 5, 0)])
def test_every_beam_is_the_models_and_a_batch_is_its_images(captioner, graphs, arrays, beams, longest, least):
    model, decoder, image = captioner[0], graphs[1], arrays("caption/images_beam.npy")
    states = model.visual_encoder(image)
    options = SearchOptions(num_beams=beams, num_return_sequences=beams, max_length=longest, min_length=least)
    expected = model.generate_n_best(image, options)[1]
    ids, scores = search(decoder, states.numpy(), beams, longest, least)
    assert rows(ids) == rows(expected.ids)
    if beams > 1:
        np.testing.assert_allclose(scores, expected.scores.numpy(), rtol=0, atol=1e-4)
    for number in range(len(image)):
        alone, its_scores = search(decoder, states[number : number + 1].numpy(), beams, longest, least)
        assert rows(alone)[0] == rows(ids)[number]
        np.testing.assert_allclose(its_scores[0], scores[number], rtol=0, atol=1e-4)


def test_an_export_says_all_that_a_program_needs(captioner):
    model, checkpoint, exported = captioner
    about = json.loads((exported / "model.json").read_text())
    assert about["source"] == checkpoint
    assert (about["image_size"], about["prompt_ids"]) == (64, model.prompt_ids)
    tokens = (exported / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert {token: number for number, token in enumerate(tokens)} == model.tokenizer.get_vocab()
    assert about["agreement"]["fp32"]["captions"] == 8
    assert about["agreement"]["fp32"]["captions_that_differ"] == []
    assert max(about["agreement"]["fp32"]["largest_differences"].values()) <= TOLERANCE
    assert sorted(path.name for path in exported.iterdir()) == [
        "caption_decoder.onnx",
        "image_encoder.onnx",
        "model.json",
        "vocab.txt",
    ]


def test_weights_of_8_bits_are_smaller_and_their_effect_is_reported(captioner):
    exported = captioner[2]
    smaller = exported.with_name("smaller")
    assert main([captioner[1], "--out", str(smaller), "--int8"]) == 0
    for name in ("image_encoder.onnx", "caption_decoder.onnx"):
        assert (smaller / name).stat().st_size < (exported / name).stat().st_size
    agreement = json.loads((smaller / "model.json").read_text())["agreement"]
    assert agreement["fp32"]["largest_differences"]["image_states"] <= TOLERANCE
    assert TOLERANCE < agreement["int8"]["largest_differences"]["image_states"] < 0.5


@torch.no_grad()
def test_a_retrieval_model_comes_as_three_graphs_and_what_it_lacks_is_named(folder, parts_once, capsys):
    model, exported = sharpened(blip_itm(**SIZES, embed_dim=16)), folder / "matcher"
    assert main([save(model, folder / "matcher.pth"), "--out", str(exported)]) == 0
    assert "left out: caption_decoder.onnx: the checkpoint has no decoder of captions" in capsys.readouterr().out
    graphs = {path.stem: session(onnx.load(path)) for path in exported.glob("*.onnx")}
    assert sorted(graphs) == ["image_encoder", "matcher", "text_encoder"]
    image, texts = torch.randn(3, 3, 32, 32), ["rain", "a cat on a sofa", "two dogs that run across the wet grass"]
    states, vectors = run(graphs["image_encoder"], {"image": image.numpy()})
    ids, mask = (x.numpy() for x in tokenize(model.tokenizer, texts, model.device))
    text_vectors = run(graphs["text_encoder"], {"ids": ids, "mask": mask})[0]
    alone = run(graphs["text_encoder"], {"ids": ids[:1, :3], "mask": mask[:1, :3]})[0]
    np.testing.assert_allclose(alone[0], text_vectors[0], rtol=0, atol=1e-5)  # without padding
    ids[:, 0] = model.special.enc
    logits = run(graphs["matcher"], {"image_states": states, "ids": ids, "mask": mask})[0]
    expected = model.score(image, texts, pairwise=True)
    np.testing.assert_allclose((vectors * text_vectors).sum(1), expected.cosine.numpy(), rtol=0, atol=1e-5)
    match = torch.from_numpy(logits).softmax(1)[:, 1]
    torch.testing.assert_close(match, expected.match, rtol=0, atol=1e-5)


def test_a_pretrained_model_is_both_and_other_models_are_neither(folder):
    models, left_out = build_models(save(blip_pretrain(**SIZES, queue_size=8), folder / "pretrained.pth"), None)
    assert [type(model) for model in models] == [BLIPDecoder, BLIPMatcher]
    assert left_out == {}
    for model in (blip_vqa(**SIZES), blip_nlvr(**SIZES)):
        with pytest.raises(UserError, match="holds neither a captioner nor a retrieval model"):
            build_models(save(model, folder / "other.pth"), None)


def test_the_example_says_what_predict_says_and_needs_no_torch(captioner, tmp_path, capsys):
    import predict

    _, checkpoint, exported = captioner
    generator = np.random.default_rng(0)
    pictures = []
    for number, size in enumerate([(40, 50, 3), (33, 31, 4), (64, 20, 3)]):
        picture = Image.fromarray(generator.integers(256, size=size, dtype=np.uint8))
        pictures.append(str(tmp_path / f"{number}.png"))
        picture.save(pictures[-1])
    hidden = "torch,transformers,tokenizers,timm,models,export,transform"
    runner = [sys.executable, str(REPOSITORY / "tests/hidden_packages.py"), hidden]
    done = subprocess.run(
        [*runner, str(EXAMPLE), str(exported), *pictures], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert predict.main(["caption", *pictures, "--checkpoint", checkpoint]) == 0
    assert done.stdout == capsys.readouterr().out
    assert len(done.stdout.splitlines()) == 3


def test_the_example_writes_words_as_the_tokenizer_does():
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    tokenizer = build_tokenizer()
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    for text in ["a man's hat, isn't it?", 'a close-up of "it".', "they're unbelievably huggable! i've 'em", "x (y)"]:
        ids = tokenizer(text).input_ids
        assert example.text(ids, vocabulary) == decode(tokenizer, ids)


def test_a_graph_that_computes_something_else_is_found_and_nothing_is_written(
    captioner, parts_once, tmp_path, monkeypatch, capsys
):
    model, checkpoint, _ = captioner
    parts = parts_once(model)
    largest = max(parts["image_encoder"].graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = np.frombuffer(largest.raw_data, np.float32).copy()
    values[:] *= 1.01
    largest.raw_data = values.tobytes()
    monkeypatch.setattr("export.graphs.traced_parts", lambda _: parts)
    assert main([checkpoint, "--out", str(tmp_path / "out")]) == 2
    assert "image_states: the graph differs from the model by" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    differing = compare(model, whole_graphs(model, parts), torch.ones(1, 3, 64, 64))
    with pytest.raises(ExportError, match="nothing was written"):
        differing.check()


def test_bad_input_gets_one_line(captioner, tmp_path, monkeypatch, capsys):
    _, checkpoint, exported = captioner
    (tmp_path / "broken.png").write_bytes(b"no picture")
    new = str(tmp_path / "new")
    for arguments, said in [
        ([checkpoint, "--out", str(exported)], "holds caption_decoder.onnx and 3 other files"),
        ([checkpoint, "--out", checkpoint], "a file; name a folder"),
        ([str(tmp_path / "none.pth"), "--out", new], "none.pth"),
        ([checkpoint, "--out", new, "--images", str(tmp_path / "broken.png")], "broken.png"),
        ([checkpoint, "--out", new, "--images", str(tmp_path / "no")], "there is no such file"),
    ]:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()
    for name in ("onnx", "export.graphs", "export.check", "export.folder", "export.loop"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", finders_without({"onnx"}))
    assert main([checkpoint, "--out", new]) == 2
    assert "needs onnx: in this repository's folder, pip install -e '.[export]'" in capsys.readouterr().err
