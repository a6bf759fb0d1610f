"""Two-stage retrieval equals the 2022 evaluation, for images and for clips, whoever does which part of it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from metrics.retrieval import UNSCORED, ranks, retrieval_scores
from models.blip_itm import blip_itm
from models.image_text import MATCH, similarities
from models.rerank import search as rerank_module
from models.rerank.image_states import ImageStates
from models.rerank.search import rerank
from models.rerank.work_shares import Processes
from models.tokenizer import tokenize


@pytest.fixture(scope="module")
def model(golden, tiny):
    return blip_itm(str(golden("retrieval/checkpoint.pth")), embed_dim=16, **tiny).eval()


@pytest.fixture(scope="module")
def recorded(facts):
    return facts("retrieval/expected_eval.json")


@pytest.fixture(scope="module")
def pictures(arrays):
    return arrays("retrieval/eval_images.npy")


def unread(model, pictures, batch_size=4, budget=16.0):
    """Pictures that are encoded when they are asked for."""

    def encode(batch):
        states = model.visual_encoder(batch)
        return states, model.project_image(states)

    return ImageStates(
        len(pictures), batch_size, lambda batches: [pictures[list(batch)] for batch in batches], encode, budget
    )


def in_processes(count, work):
    """`work(processes)` as each of `count` processes does it."""
    barrier, lists = threading.Barrier(count), [None] * count

    def gather(rank, items):
        lists[rank] = items
        barrier.wait()
        together = [item for part in lists for item in part]
        barrier.wait()
        return together

    with ThreadPoolExecutor(count) as pool:
        return list(
            pool.map(lambda rank: work(Processes(rank, count, lambda items: gather(rank, items))), range(count))
        )


def dense(candidates, size):
    matrix = np.full((len(candidates.ids), size), UNSCORED, dtype=np.float32)
    np.put_along_axis(matrix, candidates.ids, candidates.scores, axis=1)
    return matrix


def assert_same(found, expected):
    for direction, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(direction.ids, wanted.ids)
        np.testing.assert_array_equal(direction.scores, wanted.scores)


@pytest.mark.parametrize("k", [4, 6])
@pytest.mark.parametrize("tokens_at_once", [20, 2**14])
def test_images_score_as_in_2022(model, pictures, recorded, arrays, monkeypatch, k, tokens_at_once):
    monkeypatch.setattr(rerank_module, "TOKENS_AT_ONCE", tokens_at_once)
    expected = arrays("retrieval/expected_eval.npz")
    to_text, to_image = rerank(model, unread(model, pictures), recorded["texts"], k)
    np.testing.assert_allclose(dense(to_text, 14), expected[f"score_i2t_k{k}"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(dense(to_image, 6), expected[f"score_t2i_k{k}"], atol=1e-5, rtol=0)
    text_ranks = ranks(to_text.ids, to_text.scores, list(recorded["img2txt"].values()), 14)
    image_ranks = ranks(to_image.ids, to_image.scores, list(recorded["txt2img"].values()), 6)
    scores = retrieval_scores(text_ranks, image_ranks)
    assert {name: scores[name] for name in recorded[f"metrics_k{k}"]} == pytest.approx(recorded[f"metrics_k{k}"])


def test_clips_score_as_in_2022(model, arrays, facts):
    frames = arrays("retrieval/video_frames.npy")  # [4, 3, 3, 64, 64]
    recorded, expected = facts("retrieval/expected_video_eval.json"), arrays("retrieval/expected_video_eval.npz")
    with torch.no_grad():
        states = model.visual_encoder(frames.flatten(0, 1))
        features = F.normalize(model.vision_proj(states[:, 0]).view(4, 3, -1).mean(dim=1), dim=-1)
    clips = ImageStates(4, 4, lambda batches: [states.view(4, -1, states.shape[-1])], lambda batch: (batch, features))
    to_text, to_video = rerank(model, clips, recorded["texts"], recorded["k_test"])
    np.testing.assert_allclose(dense(to_text, 4), expected["score_v2t"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(dense(to_video, 4), expected["score_t2v"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("k", [1, 3, 1000])
def test_the_plain_way_scores_the_same_pairs(model, pictures, recorded, k):
    texts = recorded["texts"][::-1] + ["a"]
    with torch.no_grad():
        states = model.visual_encoder(pictures)
        cosines = similarities(model.project_image(states), torch.cat([model.encode_text(text) for text in texts]))
        every = torch.empty_like(cosines)
        for text, row in zip(texts, range(len(texts)), strict=True):
            ids, mask = tokenize(
                model.tokenizer, text, model.device, first_token=model.tokenizer.enc_token_id, max_length=35
            )
            for image in range(len(pictures)):
                memory = model.text_encoder.project(states[image][None])
                every[image, row] = model.match_logits(memory, ids, mask)[0, MATCH] + cosines[image, row]
    for found, scores, similarity in zip(
        rerank(model, unread(model, pictures), texts, k), (every, every.T), (cosines, cosines.T), strict=True
    ):
        nearest = similarity.topk(min(k, similarity.shape[1])).indices
        wanted = torch.full_like(scores, UNSCORED).scatter(1, nearest, scores.gather(1, nearest))
        np.testing.assert_allclose(dense(found, scores.shape[1]), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [2, 3, 7])  # of 6 images, in batches of 4: some processes encode none
@pytest.mark.parametrize(("k", "budget"), [(2, 16.0), (4, 0.0)])
def test_processes_find_what_one_finds_to_the_last_digit(model, pictures, recorded, monkeypatch, count, k, budget):
    monkeypatch.setattr(rerank_module, "TEXTS_AT_ONCE", 3)
    alone = rerank(model, unread(model, pictures), recorded["texts"], k)

    def found(processes):
        return rerank(model, unread(model, pictures, budget=budget), recorded["texts"], k, processes=processes)

    for one in in_processes(count, found):
        assert_same(one, alone)


def test_every_text_is_encoded_by_one_process(model, pictures, recorded, monkeypatch):
    monkeypatch.setattr(rerank_module, "TEXTS_AT_ONCE", 3)
    encoded, encode_text = [], model.encode_text
    monkeypatch.setattr(model, "encode_text", lambda texts: encoded.extend(texts) or encode_text(texts))
    in_processes(3, lambda processes: rerank(model, unread(model, pictures), recorded["texts"], 2, processes=processes))
    assert sorted(encoded) == sorted(recorded["texts"])


def test_bfloat16_moves_scores_little_and_keeps_them_in_float32(model, pictures, recorded):
    exact = rerank(model, unread(model, pictures), recorded["texts"], 1000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = rerank(model, unread(model, pictures), recorded["texts"], 1000)
        again = rerank(model, unread(model, pictures, budget=0.0), recorded["texts"], 1000)
    assert_same(rounded, again)
    for one, other, size in zip(rounded, exact, (14, 6), strict=True):
        assert one.scores.dtype == np.float32
        np.testing.assert_allclose(dense(one, size), dense(other, size), atol=0.1, rtol=0)  # scores lie 0.9 apart


def test_progress_covers_all_work(model, pictures, recorded):
    seen = {}

    def progress(items, title, work):
        seen[title] = list(items), list(work)
        return iter(seen[title][0])

    rerank(model, unread(model, pictures), recorded["texts"], 4, progress=progress)
    assert {title: len(items) for title, (items, _) in seen.items()} == {
        "encode images": 2,
        "encode texts": 1,
        "re-rank images": 6,
    }
    assert all(len(items) == len(work) and min(work) > 0 for items, work in seen.values())


def test_nothing_to_rank_is_an_error(model, pictures):
    with pytest.raises(ValueError, match="6 images and 0 texts"):
        rerank(model, unread(model, pictures), [], 4)
