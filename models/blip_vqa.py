"""Visual question answering: an image-grounded encoder of the question, and an answer decoder (paper, section 5.3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BatchEncoding

from models.answer_tree import merge_answers
from models.attention import AttentionInputs, Memory
from models.base import VisionLanguageModel
from models.config import ModelConfig
from models.errors import check
from models.face import make_callable
from models.generation import SearchOptions, check_finite, generate
from models.kernels import for_changing_shapes
from models.med import TextDecoder, TextModel
from models.names_2022 import load_checkpoint as load_checkpoint
from models.tokenizer import decode, tokenize
from models.transfer import send
from models.vocabulary import Vocabulary
from models.weights.load import load_checkpoint as load_weights

MAX_QUESTION_LENGTH = 35  # tokens
MAX_ANSWER_LENGTH = 10  # tokens of a generated answer, start and end counted
CANDIDATES_AT_ONCE = 128  # candidate answers of each question that are scored in one pass
READS_QUESTION = "text_decoder.bert.encoder.layer.*.crossattention.self"  # prefix of the parameters that read it


class BLIPVQA(VisionLanguageModel):
    """Answers questions about images: ranks candidate answers, or generates an answer.

    Args:
        med_config: sizes of the text models: a BERT configuration, as a file or a mapping.
        image_size: side of the square input, in pixels.
        vit: a name ('tiny', 'small', 'base', 'large'), or a mapping `{embed_dim, depth, num_heads, patch_size}`.
        vit_grad_ckpt, vit_ckpt_layer: with the first, the last `vit_ckpt_layer` ViT blocks recompute their activations
            in the backward pass, to save memory.
        label_smoothing: label smoothing of the loss, by which candidates are ranked too.
        drop_path_rate: stochastic depth of the image encoder; when None, 0.1 for 'large' and 0 for other sizes.
        vocab_file: the tokenizer's vocabulary (see `Vocabulary.read`); bert-base-uncased's when None.
    """

    def __init__(
        self,
        med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
        image_size: int = 480,
        vit: str | Mapping[str, int] = "base",
        vit_grad_ckpt: bool = False,
        vit_ckpt_layer: int = 0,
        *,
        label_smoothing: float = 0.1,
        drop_path_rate: float | None = None,
        vocab_file: str | Path | Vocabulary | None = None,
    ) -> None:
        super().__init__(
            ModelConfig.read(med_config, image_size, vit, vit_grad_ckpt, vit_ckpt_layer, drop_path_rate, vocab_file)
        )
        config, vocabulary = self.text_config, len(self.tokenizer)
        self.text_encoder = TextModel(config, vocabulary, self.vision_width)
        self.text_decoder = TextDecoder(config, vocabulary, config.hidden_size)  # attends to question states
        self.label_smoothing = label_smoothing

    def forward(
        self,
        image: Tensor,
        question: str | Sequence[str],
        answer: str | Sequence[str] | BatchEncoding | None = None,
        n: Sequence[int] | Tensor | None = None,
        weights: Tensor | None = None,
        train: bool = True,
        inference: str = "rank",
        k_test: int = 128,
    ) -> Tensor | list[str]:
        """Compute the training loss, or answer the questions.

        Args:
            image: `[B, 3, H, W]`, normalized.
            question: B texts; those over 35 tokens are cut.
            answer: in training, the answers of all questions one after another; for ranking, the candidates, as texts
                or as the tokenizer returns them.
            n: in training, how many answers each question has.
            weights: in training, the weight of each answer, `[sum(n)]`.
            train: compute the loss.
            inference: 'rank' chooses among candidates, 'generate' writes answers by beam search.
            k_test: how many candidates are ranked by the loss of the whole answer; see `rank_answers`.

        Returns:
            the loss; or with 'rank' the index of each question's best candidate `[B]`; or with 'generate' B answers.

        Raises:
            ValueError: an unknown `inference`, a missing argument, or numbers of images, questions and answers that do
                not fit.
        """
        if train:
            if answer is None or n is None or weights is None:
                raise ValueError("training needs answer, n and weights, and one of them was not given")
            return self._loss(self.read_question(image, question), answer, n, weights)
        if inference == "generate":
            return self.generate_answers(image, question)
        if inference != "rank":
            raise ValueError(f"inference={inference!r} must be 'rank' or 'generate'")
        if answer is None:
            raise ValueError("inference='rank' chooses among answers, and none were given")
        candidates, _ = self.rank_answers(image, question, answer, k_test)
        return candidates[:, 0]

    def read_question(self, image: Tensor, question: str | Sequence[str]) -> Memory:
        """Encode B questions with their images -> the decoder's keys and values of them, with padding masked."""
        enc = self.special.enc
        ids, mask = self.tokenize_for(image, question, first_token=enc, max_length=MAX_QUESTION_LENGTH)
        states = self.text_encoder(ids, mask, self.text_encoder.project(self.visual_encoder(image)))
        return self.text_decoder.project(states, mask)

    def _answer_tokens(
        self, answer: str | Sequence[str] | BatchEncoding, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Tokenize A answers -> ids, starting with `[DEC]`, and mask, each [A, L]."""
        if not isinstance(answer, BatchEncoding):
            return tokenize(self.tokenizer, answer, device, first_token=self.special.dec)
        ids = answer.input_ids.clone()
        ids[:, 0] = self.special.dec
        return ids.to(device), answer.attention_mask.to(device)

    def _loss(
        self,
        memory: Memory,
        answer: str | Sequence[str] | BatchEncoding,
        n: Sequence[int] | Tensor,
        weights: Tensor,
    ) -> Tensor:
        """The sum over answers of loss times weight, divided by the number of questions."""
        ids, mask = self._answer_tokens(answer, torch.device("cpu"))
        lengths = mask.sum(dim=1).tolist()  # on the host, which need not wait for a GPU to tell
        ids, mask = (send(x, self.device) for x in (ids, mask))
        counts = torch.as_tensor(n)
        if counts.sum() != len(ids) or len(weights) != len(ids):
            raise ValueError(f"{len(ids)} answers came with {len(weights)} weights and n={counts.tolist()}")
        index = send(torch.arange(len(counts), device=counts.device).repeat_interleave(counts), self.device)
        labels = ids.masked_fill(mask == 0, -100)
        losses = self.text_decoder.token_losses(ids, labels, memory, index, self.label_smoothing, lengths=lengths)
        return (losses.sum(dim=1) * weights.to(losses)).sum() / len(counts)

    @torch.no_grad()
    def generate_answers(self, image: Tensor, question: str | Sequence[str]) -> list[str]:
        """Generate an answer to each question by beam search, of at most 10 tokens, start and end token counted."""
        memory = self.read_question(image, question)
        generated = generate(
            self.text_decoder,
            memory,
            torch.full((len(memory), 1), self.special.dec, device=image.device),
            SearchOptions(num_beams=3, max_length=MAX_ANSWER_LENGTH, min_length=1),
            end_token=self.special.sep,
            pad_token=self.special.pad,
        )
        return [decode(self.tokenizer, ids[0]) for ids in generated.ids.tolist()]

    @torch.no_grad()
    def rank_answers(
        self,
        image: Tensor,
        question: str | Sequence[str],
        answer: str | Sequence[str] | BatchEncoding,
        k: int = 128,
    ) -> tuple[Tensor, Tensor]:
        """Rank candidate answers: the k with the most probable first token, by the loss of the whole answer.

        Args:
            image: `[B, 3, H, W]`, normalized.
            question: B texts.
            answer: the candidates, the same for all questions.
            k: how many are ranked; all, if there are fewer.

        Returns:
            indices into the candidates, best first, and their scores (the negative smoothed losses), each `[B, k]`. A
            softmax over the scores compares the answers.

        Raises:
            ValueError: no candidates, or k below 1.
            ConfigError: a candidate that is longer than the text model has positions.
        """
        return self.rank(self.read_question(image, question), answer, k)

    @torch.no_grad()
    def rank(self, memory: Memory, answer: str | Sequence[str] | BatchEncoding, k: int = 128) -> tuple[Tensor, Tensor]:
        """Do what `rank_answers` does, for encoded questions: `memory` is what `read_question` returns."""
        ids, mask = self._answer_tokens(answer, torch.device("cpu"))
        if k < 1 or not len(ids):
            raise ValueError(f"cannot rank the best k={k} of {len(ids)} candidate answers: give at least one of each")
        lengths = mask.sum(dim=1)
        longest, positions = int(lengths.max()), self.text_config.max_position_embeddings
        rule = f"at most {positions + 1}, one more than the text model has positions: leave that answer out"
        check(longest <= positions + 1, "tokens of the longest candidate answer", longest, rule)
        sorted_place = ids.unique(dim=0, return_inverse=True)[1]  # by token ids: shared prefixes become adjacent
        with for_changing_shapes(self.device):
            chosen = self._likely_answers(memory, ids, k)
            if not len(memory):
                return send(chosen, self.device), torch.empty(chosen.shape, device=self.device)
            chosen = chosen.gather(1, sorted_place[chosen].argsort(dim=1))
            parts = chosen.split(CANDIDATES_AT_ONCE, dim=1)
            scores = torch.cat([self._answer_scores(memory, ids[part], lengths[part]) for part in parts], dim=1)
        scores, order = scores.sort(dim=1, descending=True)
        return send(chosen, self.device).gather(1, order), scores

    def _likely_answers(self, memory: Memory, ids: Tensor, k: int) -> Tensor:
        """The k answers, of ids [A, L], whose first token each question makes most probable -> [B, k], on the host."""
        start = torch.full((len(memory), 1), self.special.dec, device=self.device)
        first = self.text_decoder.logits(self.text_decoder.bert(start, memory=memory, causal=True)[:, 0])
        chosen = first.softmax(dim=1)[:, send(ids[:, 1], self.device)].topk(min(k, len(ids)), dim=1).indices
        # The only wait for the device in ranking a batch.
        on_host = torch.cat([chosen.flatten(), first.isfinite().all().long()[None]]).cpu()
        check_finite(bool(on_host[-1]))
        return on_host[:-1].view(chosen.shape)

    def _answer_scores(self, memory: Memory, ids: Tensor, lengths: Tensor) -> Tensor:
        """Negative losses of each question's answers: ids [B, c, L], sorted, and lengths [B, c] -> [B, c]."""
        tree = merge_answers(ids, lengths).to(self.device)
        bert = self.text_decoder.bert
        # Not by its `forward`, which would wait for the device to compare these positions with those there are.
        hidden = bert.embeddings(tree.ids, tree.positions)
        states = bert.run_layers(hidden, AttentionInputs(tree.visible), memory).flatten(0, 1)
        # The vocabulary projection costs as much as three layers: it skips padding, and runs once for a shared prefix.
        log_p = self.text_decoder.logits(states[tree.nodes]).log_softmax(dim=1)  # [all nodes, vocabulary]
        # Label smoothing mixes in the mean log-probability of the whole vocabulary.
        log_p = log_p[tree.predictors, tree.targets].lerp(log_p.mean(dim=1)[tree.predictors], self.label_smoothing)
        return torch.zeros_like(tree.scored, dtype=log_p.dtype).masked_scatter(tree.scored, log_p).sum(dim=2)


def blip_vqa(
    pretrained: str | Path = "",
    med_config: str | Path | Mapping[str, Any] = "configs/med_config.json",
    image_size: int = 480,
    vit: str | Mapping[str, int] = "base",
    vit_grad_ckpt: bool = False,
    vit_ckpt_layer: int = 0,
    *,
    label_smoothing: float = 0.1,
    drop_path_rate: float | None = None,
    vocab_file: str | Path | Vocabulary | None = None,
) -> BLIPVQA:
    """A question answerer, with the weights of `pretrained` (a released name, path, URL or hub name) if given.

    The decoder attends to question states. Where pre-training's decoder attended to image states of another width
    (ViT-L), the projections to keys and values keep their random initialization.

    The other arguments are those of `BLIPVQA`.
    """
    model = BLIPVQA(
        med_config,
        image_size,
        vit,
        vit_grad_ckpt,
        vit_ckpt_layer,
        label_smoothing=label_smoothing,
        drop_path_rate=drop_path_rate,
        vocab_file=vocab_file,
    )
    if pretrained:
        load_weights(model, pretrained, reinitialized=(f"{READS_QUESTION}.key.*", f"{READS_QUESTION}.value.*"))
    return model


BLIP_VQA = BLIPVQA  # its name in 2022
make_callable(__name__)
