"""Question answering agrees with the 2022 code, except that an answer no longer depends on its neighbours' padding."""

import pytest
import torch

from models.blip_vqa import blip_vqa
from models.errors import ConfigError


@pytest.fixture(scope="module")
def model(golden, tiny):
    return blip_vqa(str(golden("vqa/checkpoint.pth")), **tiny).eval()


@pytest.fixture(scope="module")
def images(arrays):
    return arrays("vqa/images.npy")


@pytest.fixture(scope="module")
def inputs(facts):
    return facts("vqa/inputs.json")


def test_training_loss_and_gradients(model, images, inputs, facts, golden, close, check_gradients):
    expected = facts("vqa/expected.json")
    model.zero_grad()
    weights = torch.tensor(inputs["weights"])
    loss = model(images, inputs["questions"], inputs["answers"], n=inputs["n"], weights=weights)
    close(loss, torch.tensor(expected["train_loss"]), atol=5e-5)
    loss.backward()
    check_gradients(model, expected["grad_l2"], golden("vqa/expected_grads.safetensors"))
    model.zero_grad()


def test_the_loss_of_each_answer(model, images, inputs, facts, close):
    losses = facts("vqa/expected.json")["per_answer_loss"]
    owner = torch.arange(3).repeat_interleave(torch.tensor(inputs["n"]))
    for i, (answer, loss) in enumerate(zip(inputs["answers"], losses, strict=True)):
        image, question = images[owner[i] : owner[i] + 1], inputs["questions"][owner[i]]
        alone = model(image, [question], [answer], n=[1], weights=torch.ones(1))
        close(alone, torch.tensor(loss), atol=5e-5)


def test_question_states(model, images, arrays, close):
    expected = arrays("vqa/expected.npz")
    embeds = model.visual_encoder(images)
    close(embeds, expected["image_embeds"])
    ids, mask = expected["question_ids"], expected["question_mask"]
    states = model.text_encoder(ids, mask, model.text_encoder.project(embeds))
    close(states[mask.bool()], expected["question_states"][mask.bool()])


@pytest.mark.parametrize("k", [8, 40])
def test_ranking(model, images, inputs, facts, arrays, close, k):
    expected, recorded = arrays("vqa/expected.npz"), facts("vqa/expected.json")[f"rank_k{k}"]
    best = model(images, inputs["questions"], inputs["answer_list"], train=False, inference="rank", k_test=k)
    assert best.tolist() == recorded["max_ids"]
    assert [inputs["answer_list"][i] for i in best] == recorded["answers"]
    candidates, scores = model.rank_answers(images, inputs["questions"], inputs["answer_list"], k)
    assert (scores.diff(dim=1) <= 0).all()
    for row in range(3):
        by_candidate = dict(zip(candidates[row].tolist(), scores[row], strict=True))
        wanted = dict(zip(expected[f"topk_ids_k{k}"][row].tolist(), expected[f"log_probs_sum_k{k}"][row], strict=True))
        assert set(by_candidate) == set(wanted)
        for candidate, score in wanted.items():
            close(by_candidate[candidate], score, atol=5e-5)


def test_candidates_as_the_tokenizer_returns_them(model, images, inputs, facts):
    candidates = model.tokenizer(inputs["answer_list"], padding="longest", return_tensors="pt")
    best = model(images, inputs["questions"], candidates, train=False, inference="rank", k_test=8)
    assert best.tolist() == facts("vqa/expected.json")["rank_k8"]["max_ids"]


def test_more_candidates_asked_than_given(model, images, inputs):
    candidates, scores = model.rank_answers(images, inputs["questions"], ["yes", "no"], 128)
    assert candidates.shape == scores.shape == (3, 2)


def test_generated_answers_do_not_depend_on_the_batch(model, images, inputs, facts):
    alone = [row["answer"] for row in facts("vqa/expected.json")["generate_single"]]
    assert model(images, inputs["questions"], train=False, inference="generate") == alone
    for i in range(3):
        assert (
            model(images[i : i + 1], inputs["questions"][i : i + 1], train=False, inference="generate")
            == alone[i : i + 1]
        )


def test_answers_that_do_not_fit_are_an_error(model, images, inputs):
    with pytest.raises(ValueError, match=r"6 answers came with 6 weights and n=\[2, 1, 2\]"):
        model(images, inputs["questions"], inputs["answers"], n=[2, 1, 2], weights=torch.ones(6))
    with pytest.raises(ValueError, match="inference='best'"):
        model(images, inputs["questions"], inputs["answers"], train=False, inference="best")


def test_one_question_is_asked_of_all_images_and_one_image_all_questions(model, images, inputs):
    question = inputs["questions"][0]
    answers = model(images, question, train=False, inference="generate")
    assert answers == model(images, [question] * 3, train=False, inference="generate")
    same = images[:1].expand(3, -1, -1, -1)
    for options in ({"inference": "generate"}, {"inference": "rank", "answer": ["yes", "no", "red"]}):
        one = model(images[:1], inputs["questions"], train=False, **options)
        several = model(same, inputs["questions"], train=False, **options)
        assert list(one) == list(several)


def test_questions_that_do_not_fit_and_ranking_nothing_are_errors(model, images, inputs):
    with pytest.raises(ValueError, match="2 texts do not fit 3 images"):
        model(images, inputs["questions"][:2], train=False, inference="generate")
    with pytest.raises(ValueError, match="of 0 candidate answers"):
        model(images, inputs["questions"], [], train=False)
    with pytest.raises(ValueError, match="k=0"):
        model(images, inputs["questions"], ["yes"], train=False, k_test=0)


def test_a_candidate_without_room_in_the_positions_is_refused(model, images, inputs):
    positions = model.text_config.max_position_embeddings
    longest = "a " * (positions - 1)  # and a start and an end, which is not read
    candidates, _ = model.rank_answers(images[:1], inputs["questions"][:1], ["yes", longest])
    assert sorted(candidates[0].tolist()) == [0, 1]
    with pytest.raises(ConfigError, match=f"tokens of the longest candidate answer = {positions + 2}: must be at most"):
        model.rank_answers(images, inputs["questions"], ["yes", longest + "a"])


def test_no_images_give_no_answers(model, images):
    assert model.generate_answers(images[:0], []) == []
    assert model(images[:0], [], ["yes", "no"], train=False).tolist() == []


ALIKE = ["black", "white", "black and white", "black cat", "yes", "black and red", "yes", "white and black cat", ""]


@pytest.mark.parametrize("at_once", [128, 4])
def test_answers_that_begin_alike_are_ranked_as_each_alone(model, images, inputs, close, monkeypatch, at_once):
    monkeypatch.setattr("models.blip_vqa.CANDIDATES_AT_ONCE", at_once)
    candidates, scores = model.rank_answers(images, inputs["questions"], ALIKE)
    assert scores.shape == (3, len(ALIKE))
    for row, question in enumerate(inputs["questions"]):
        image = images[row : row + 1]
        for candidate, score in zip(candidates[row].tolist(), scores[row], strict=True):
            loss = model(image, [question], [ALIKE[candidate]], n=[1], weights=torch.ones(1))
            close(score, -loss, atol=5e-5)


def test_ranking_projects_each_question_once_and_computes_each_beginning_once(model, images, inputs, monkeypatch):
    projected, vocabulary = [], []
    project, logits = model.text_decoder.project, model.text_decoder.logits
    monkeypatch.setattr(model.text_decoder, "project", lambda *a: projected.append(len(a[0])) or project(*a))
    monkeypatch.setattr(model.text_decoder, "logits", lambda states: vocabulary.append(len(states)) or logits(states))
    model.rank_answers(images, inputs["questions"], ALIKE)
    assert projected == [3]
    # [DEC]; black, white, yes; black and, black cat, white and; black and white, ...: 11 beginnings of 9 answers.
    assert vocabulary == [3, 3 * 11]
