"""Two-stage retrieval equals the 2022 evaluation, for images and for clips, on any number of processes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from metrics.retrieval import UNSCORED, ranks, retrieval_scores
from models.blip_itm import blip_itm
from models.rerank import rerank


@pytest.fixture(scope="module")
def model(golden, tiny):
    return blip_itm(str(golden("retrieval/checkpoint.pth")), embed_dim=16, **tiny).eval()


def dense(candidates, size):
    matrix = np.full((len(candidates.ids), size), UNSCORED, dtype=np.float32)
    np.put_along_axis(matrix, candidates.ids, candidates.scores, axis=1)
    return matrix


@pytest.mark.parametrize("k", [4, 6])
@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_images_score_as_in_2022(model, golden, k, batch_size, facts):
    images = torch.from_numpy(np.load(golden("retrieval/eval_images.npy")))
    recorded, arrays = facts("retrieval/expected_eval.json"), np.load(golden("retrieval/expected_eval.npz"))
    with torch.no_grad():
        states = model.visual_encoder(images)
        features = model.project_image(states)
    to_text, to_image = rerank(model, states, features, 0, recorded["texts"], k, batch_size=batch_size)
    np.testing.assert_allclose(dense(to_text, 14), arrays[f"score_i2t_k{k}"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(dense(to_image, 6), arrays[f"score_t2i_k{k}"], atol=1e-5, rtol=0)
    text_ranks = ranks(to_text.ids, to_text.scores, list(recorded["img2txt"].values()), 14)
    image_ranks = ranks(to_image.ids, to_image.scores, list(recorded["txt2img"].values()), 6)
    scores = retrieval_scores(text_ranks, image_ranks)
    assert {name: scores[name] for name in recorded[f"metrics_k{k}"]} == pytest.approx(recorded[f"metrics_k{k}"])


def test_clips_score_as_in_2022(model, golden, facts):
    frames = torch.from_numpy(np.load(golden("retrieval/video_frames.npy")))  # [4, 3, 3, 64, 64]
    recorded, arrays = facts("retrieval/expected_video_eval.json"), np.load(golden("retrieval/expected_video_eval.npz"))
    with torch.no_grad():
        states = model.visual_encoder(frames.flatten(0, 1))
        features = F.normalize(model.vision_proj(states[:, 0]).view(4, 3, -1).mean(dim=1), dim=-1)
    to_text, to_video = rerank(
        model, states.view(4, -1, states.shape[-1]), features, 0, recorded["texts"], recorded["k_test"]
    )
    np.testing.assert_allclose(dense(to_text, 4), arrays["score_v2t"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(dense(to_video, 4), arrays["score_t2v"], atol=1e-5, rtol=0)


def test_more_candidates_than_there_are_scores_every_pair(model, golden, facts):
    images = torch.from_numpy(np.load(golden("retrieval/eval_images.npy")))
    texts = facts("retrieval/expected_eval.json")["texts"]
    with torch.no_grad():
        states = model.visual_encoder(images)
        to_text, to_image = rerank(model, states, model.project_image(states), 0, texts, 1000)
    every = dense(to_text, len(texts))
    np.testing.assert_allclose(every, dense(to_image, len(images)).T, atol=1e-6, rtol=0)
    assert (every > UNSCORED).all()


def test_processes_that_share_the_images_find_what_one_finds(model, golden, facts):
    images = torch.from_numpy(np.load(golden("retrieval/eval_images.npy")))
    texts = facts("retrieval/expected_eval.json")["texts"]
    with torch.no_grad():
        states = model.visual_encoder(images)
        features = model.project_image(states)
    whole = rerank(model, states, features, 0, texts, 4)
    shares = [range(0, 2), range(2, 2), range(2, 6)]  # one process has no image at all
    barrier, lists = threading.Barrier(len(shares)), [None] * len(shares)

    def found_by(rank):
        def gather(items):
            lists[rank] = items
            barrier.wait()
            together = [item for part in lists for item in part]
            barrier.wait()
            return together

        share = list(shares[rank])
        return rerank(model, states[share], features[share], shares[rank].start, texts, 4, gather=gather)

    with ThreadPoolExecutor(len(shares)) as pool:
        for found in pool.map(found_by, range(len(shares))):
            for direction, expected in zip(found, whole, strict=True):
                assert (direction.ids == expected.ids).all()
                assert (direction.scores == expected.scores).all()
