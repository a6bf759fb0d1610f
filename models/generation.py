"""Greedy search, sampling and beam search over a `TextDecoder`.

An image's keys and values are computed once and shared by its beams or samples, the prompt is decoded once for each
image, and the self-attention cache is allocated once. A token is decoded and chosen without the host waiting for the
device; whether all texts have ended is asked every few tokens. Captioning and VQA both generate by it.
"""

from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torch import Tensor

from models.attention import Memory, SelfAttentionCache
from models.errors import ConfigError, UserError, check
from models.kernels import for_changing_shapes, for_few_rows
from models.med import TextDecoder
from models.transfer import ask

MOST_BEAMS = 1000  # more would search for hours, or fill the memory
SAMPLING_REPETITION_PENALTY = 1.1  # of the released captioner's samples
TOKENS_BETWEEN_END_TESTS = 4  # on a GPU; each is a wait, but a token after all texts have ended is decoded in vain


@dataclass(frozen=True)
class SearchOptions:
    """The options of greedy search, beam search and sampling.

    Attributes:
        sample: draw each token at random (nucleus sampling) instead of searching.
        num_beams: 1 is greedy search.
        max_length: most tokens of a text, with start token, prompt and end token.
        min_length: the end token is forbidden while a text has fewer tokens, with start token and prompt.
        top_p: sample from the smallest set of most probable tokens whose total probability exceeds this.
        top_k: sample from this many most probable tokens; 0 for all.
        repetition_penalty: for each token that the text or its prompt already contains, a positive score is divided by
            this and a negative one multiplied; 1 is no penalty. Scores are logits in greedy search and sampling, and
            log-probabilities in beam search. None means 1 in a search and 1.1 in sampling.
        num_return_sequences: texts for each image: samples, or the best of the beams.
        generator: random generator of the samples, on the model's device; torch's global one when None.
        uniforms: numbers in [0, 1) that choose the samples, in place of a generator: `[N * num_return_sequences,
            max_length]`, a row for each text. Then a text does not depend on the others of its batch.

    Raises:
        ConfigError: impossible numbers.
    """

    sample: bool = False
    num_beams: int = 3
    max_length: int = 30
    min_length: int = 10
    top_p: float = 0.9
    top_k: int = 50
    repetition_penalty: float | None = None
    num_return_sequences: int = 1
    generator: torch.Generator | None = None
    uniforms: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("num_beams", "max_length", "min_length", "top_k", "num_return_sequences"):
            value = getattr(self, name)
            check(isinstance(value, Integral), name, repr(value), "a whole number")
        if self.num_beams < 1 or self.num_return_sequences < 1:
            counts = f"num_beams={self.num_beams} and num_return_sequences={self.num_return_sequences}"
            raise ConfigError(f"{counts} must be at least 1")
        if self.num_beams > MOST_BEAMS:
            raise ConfigError(f"num_beams={self.num_beams} must be at most {MOST_BEAMS:,}")
        if self.sample and (self.top_k < 0 or not 0 < self.top_p <= 1):
            raise ConfigError(f"top_k={self.top_k} must not be negative and top_p={self.top_p} must lie in (0, 1]")
        if self.repetition_penalty is not None and self.repetition_penalty <= 0:
            raise ConfigError(f"repetition_penalty={self.repetition_penalty} must be above 0")
        if not self.sample and self.num_return_sequences > self.num_beams:
            raise ConfigError(f"num_return_sequences={self.num_return_sequences} exceeds num_beams={self.num_beams}")

    def with_results(self, count: int) -> "SearchOptions":
        """The same options for `count` texts of each image: a search gets at least as many beams."""
        beams = max(self.num_beams, 1 if self.sample else count)
        return replace(self, num_return_sequences=count, num_beams=beams)

    @property
    def penalty(self) -> float:
        """The repetition penalty, with the value that None means."""
        if self.repetition_penalty is None:
            return SAMPLING_REPETITION_PENALTY if self.sample else 1.0
        return self.repetition_penalty


@dataclass(frozen=True)
class _Rules:
    """Constraints on a generated text; see `SearchOptions`."""

    end_token: int
    pad_token: int
    max_length: int
    min_length: int
    repetition_penalty: float

    def apply(self, scores: Tensor, ids: Tensor) -> Tensor:
        """Apply repetition penalty and minimal length to the next token's scores [R, V], after ids [R, L]."""
        if self.repetition_penalty != 1.0:
            seen = scores.gather(1, ids)
            penalized = torch.where(seen < 0, seen * self.repetition_penalty, seen / self.repetition_penalty)
            scores = scores.scatter(1, ids, penalized)
        if ids.shape[1] < self.min_length:
            scores = scores.clone()
            scores[:, self.end_token].fill_(float("-inf"))
        return scores


class _EndTest:
    """Asks the device, as rarely as pays, whether all texts have ended, and whether all logits were numbers.

    Whoever asks a GPU waits until it has done all that it was given, and then it idles until it is given more. So it is
    asked every `TOKENS_BETWEEN_END_TESTS` tokens only. A CPU has done everything already: it is asked after each.
    """

    def __init__(self, device: torch.device, start: int) -> None:
        self._finite = torch.ones((), dtype=torch.bool, device=device)
        self._every = 1 if device.type == "cpu" else TOKENS_BETWEEN_END_TESTS
        self._start = start

    def watch(self, logits: Tensor) -> None:
        """Remember whether these logits are numbers."""
        self._finite = self._finite & logits.isfinite().all()

    def passed(self, all_ended: Tensor, length: int) -> bool:
        """Whether all texts have ended, if now, at `length` tokens, is the time to ask; otherwise False."""
        if (length - self._start) % self._every:
            return False
        return bool(self.ask(all_ended))

    def ask(self, value: Tensor) -> int:
        """The value of a scalar on the device, which this waits for.

        Raises:
            UserError: logits that were watched were no numbers.
        """
        answer, finite = ask(value, self._finite)
        check_finite(finite)
        return answer


@dataclass(frozen=True)
class Generated:
    """The texts generated for N images, n for each, best first.

    Attributes:
        ids: `[N, n, T]`, with start token, prompt and end token, padded on the right.
        scores: `[N, n]`, by which they are ranked. In beam search, the sum of (penalized) log-probabilities divided by
            the number of tokens, start and prompt counted but not the end token; otherwise `log_probs`.
        log_probs: `[N, n]`, the log-probability of the generated tokens, the end token included but not the prompt,
            before any penalty or truncation to top_k or top_p.
    """

    ids: Tensor
    scores: Tensor
    log_probs: Tensor


@torch.no_grad()
def generate(
    decoder: TextDecoder, memory: Memory, prompt: Tensor, options: SearchOptions, *, end_token: int, pad_token: int
) -> Generated:
    """Generate texts about the N images of `memory`, each starting with its `prompt` [N, P].

    Args:
        end_token, pad_token: ids of the token that ends a text, and of the padding after it.

    Raises:
        ConfigError: a `max_length` not longer than the prompt, or above the text model's positions.
    """
    if prompt.shape[1] >= options.max_length:
        raise ConfigError(f"max_length={options.max_length} leaves no room after a prompt of {prompt.shape[1]} tokens")
    positions = decoder.bert.config.max_position_embeddings
    if options.max_length > positions:
        raise ConfigError(f"max_length={options.max_length} exceeds the {positions} positions of the text model")
    if options.uniforms is not None:
        needed = (len(memory) * options.num_return_sequences, options.max_length)
        if tuple(options.uniforms.shape) != needed:
            raise ConfigError(f"uniforms of shape {list(options.uniforms.shape)} must be {list(needed)}")
    rules = _Rules(end_token, pad_token, options.max_length, options.min_length, options.penalty)
    if prompt.device.type == "cpu":  # to the kernels of GPUs the layout makes no difference
        memory = memory.contiguous()
    with for_changing_shapes(prompt.device), for_few_rows(prompt.device, decoder.bert.config.hidden_size):
        if options.sample or options.num_beams == 1:
            return _greedy_or_sample(decoder, memory, prompt, rules, options)
        return _beam_search(decoder, memory, prompt, rules, options.num_beams, options.num_return_sequences)


def _next_logits(decoder: TextDecoder, memory: Memory, ids: Tensor, cache: SelfAttentionCache) -> Tensor:
    """Decode ids [R, L], which follow the tokens in the cache -> logits of the next token [R, V]."""
    states = decoder.bert(ids, memory=memory, causal=True, cache=cache)
    return decoder.logits(states[:, -1])


def check_finite(finite: bool | int) -> None:
    """Raise UserError unless a decoder's logits are `finite`: else any token would be as likely as any other."""
    if not finite:
        raise UserError(
            "the decoder computes values that are not finite, so no text can be chosen: the weights or the images hold "
            "such values, or a number format overflows (float16: use bfloat16 or float32)"
        )


def filter_top_k_top_p(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Keep each row's top_k logits [R, V], and of these the fewest with a probability above top_p; others are -inf."""
    best, ids, _ = _nucleus(logits, top_k, top_p)
    return torch.full_like(logits, float("-inf")).scatter(1, ids, best)


def _nucleus(logits: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor, Tensor]:
    """Each row's top_k logits, descending, -inf outside of the nucleus; their ids; their cumulated probability."""
    best, ids = logits.topk(min(top_k or logits.shape[1], logits.shape[1]))
    mass = best.softmax(dim=-1).cumsum(dim=-1)
    outside = torch.zeros_like(mass, dtype=torch.bool)
    outside[:, 1:] = mass[:, :-1] > top_p
    return best.masked_fill(outside, float("-inf")), ids, mass


def _greedy_or_sample(
    decoder: TextDecoder, memory: Memory, prompt: Tensor, rules: _Rules, options: SearchOptions
) -> Generated:
    """Extend every text by its most probable token, or by a sampled one, until all have ended."""
    rows_per_image, start = options.num_return_sequences, prompt.shape[1]
    cache = SelfAttentionCache(len(decoder.bert.layers), rules.max_length)
    logits = _next_logits(decoder, memory, prompt, cache).repeat_interleave(rows_per_image, dim=0)
    cache.repeat(rows_per_image)
    ids = prompt.new_full((len(logits), rules.max_length), rules.pad_token)
    ids[:, :start] = prompt.repeat_interleave(rows_per_image, dim=0)
    log_probs = logits.new_zeros(len(ids))
    running = torch.ones_like(log_probs, dtype=torch.bool)
    end_test = _EndTest(ids.device, start)
    length = start
    longest = torch.full((), start, device=ids.device)  # tokens of the longest text; `length` may run ahead of it
    while True:
        end_test.watch(logits)
        scores = rules.apply(logits, ids[:, :length])
        token = _sample_tokens(scores, options, length) if options.sample else scores.argmax(dim=1)
        log_prob = logits.log_softmax(dim=1).gather(1, token[:, None]).squeeze(1)
        log_probs = log_probs + log_prob.where(running, 0.0)
        token = token.where(running, rules.pad_token)
        ids[:, length] = token
        longest = longest + running.any()
        running = running & (token != rules.end_token)
        length += 1
        if length == rules.max_length or end_test.passed(~running.any(), length):
            break
        logits = _next_logits(decoder, memory, token[:, None], cache)
    ids = ids[:, : end_test.ask(longest)]
    log_probs = log_probs.unflatten(0, (-1, rows_per_image))
    log_probs, order = log_probs.sort(dim=1, descending=True, stable=True)
    return Generated(_gather_rows(ids.unflatten(0, (-1, rows_per_image)), order), log_probs, log_probs)


def _sample_tokens(scores: Tensor, options: SearchOptions, position: int) -> Tensor:
    """Sample the tokens at `position` of R texts, by their scores [R, V] -> [R]."""
    if options.uniforms is not None:
        best, ids, mass = _nucleus(scores, options.top_k, options.top_p)
        inside = best.isfinite()
        total = mass.where(inside, 0.0).amax(dim=1, keepdim=True)
        passed = inside & (mass <= options.uniforms[:, position, None] * total)
        choice = passed.sum(dim=1).minimum(inside.sum(dim=1) - 1).clamp(min=0)  # -1 where no logit is a number
        return ids.gather(1, choice[:, None]).squeeze(1)
    weights = filter_top_k_top_p(scores, options.top_k, options.top_p).softmax(dim=1)
    weights = weights.nan_to_num(1.0)  # a draw by NaN would end the use of a GPU before the end test says why
    if options.generator is None:
        return torch.multinomial(weights, 1).squeeze(1)
    return torch.multinomial(weights, 1, generator=options.generator).squeeze(1)


def _gather_rows(x: Tensor, index: Tensor) -> Tensor:
    """Select rows of each image: x [N, K, ...], index [N, M] -> x[n, index[n]] for every n [N, M, ...]."""
    return x[torch.arange(len(x), device=x.device)[:, None], index]


def _beam_search(
    decoder: TextDecoder, memory: Memory, prompt: Tensor, rules: _Rules, beams: int, num_return_sequences: int
) -> Generated:
    """Beam search: keep the `beams` best unfinished texts and the `beams` best finished ones of every image.

    A finished text's score is its log-probability divided by its length, prompt included. An image is done when its
    worst kept finished text scores at least as high as its best unfinished one would at the present length.
    """
    images, start = prompt.shape
    cache = SelfAttentionCache(len(decoder.bert.layers), rules.max_length)
    logits = _next_logits(decoder, memory, prompt, cache)
    cache.repeat(beams)
    vocabulary = logits.shape[1]
    minus_infinity = logits.new_full((images, beams), float("-inf"))

    ids = prompt.new_full((images, beams, rules.max_length), rules.pad_token)
    ids[:, :, :start] = prompt[:, None]
    scores = minus_infinity.clone()
    scores[:, 0] = 0.0  # all beams start equal: only the first may be continued
    log_probs = torch.zeros_like(scores)
    logits = logits.repeat_interleave(beams, dim=0)

    best = Generated(ids.clone(), minus_infinity.clone(), log_probs.clone())
    done = torch.zeros(images, dtype=torch.bool, device=ids.device)
    rank = torch.arange(2 * beams, device=ids.device)
    first_row = torch.arange(images, device=ids.device)[:, None] * beams

    end_test = _EndTest(ids.device, start)
    length = start
    while True:
        end_test.watch(logits)
        raw = logits.log_softmax(dim=1)
        total = rules.apply(raw, ids[:, :, :length].flatten(0, 1)) + scores.view(-1, 1)
        # At most `beams` of 2 * beams candidates end with the end token, so at least `beams` can go on.
        candidates, choice = total.view(images, beams * vocabulary).topk(min(2 * beams, beams * vocabulary), dim=1)
        parent, token = choice // vocabulary, choice % vocabulary
        raw_sum = _gather_rows(log_probs, parent) + raw.view(images, beams * vocabulary).gather(1, choice)
        ends = token == rules.end_token

        eligible = ends & (rank[: ends.shape[1]] < beams) & ~done[:, None]
        ended_ids = _gather_rows(ids, parent)
        ended_ids[:, :, length] = rules.end_token
        ended = Generated(ended_ids, (candidates / length).masked_fill(~eligible, float("-inf")), raw_sum)
        best = _keep_best(best, ended, beams)
        done = done | (best.scores[:, -1] >= candidates[:, 0] / length)

        going_on = (rank[: ends.shape[1]] + ends * 2 * beams).argsort(dim=1)[:, :beams]
        scores, parent, token = candidates.gather(1, going_on), parent.gather(1, going_on), token.gather(1, going_on)
        scores = scores.masked_fill(token == rules.end_token, float("-inf"))
        log_probs = raw_sum.gather(1, going_on)
        ids = _gather_rows(ids, parent)
        ids[:, :, length] = token
        length += 1
        if length == rules.max_length or end_test.passed(done.all(), length):
            break
        cache.reorder((first_row + parent).flatten())
        logits = _next_logits(decoder, memory, token.view(-1, 1), cache)

    unfinished = Generated(ids, (scores / length).masked_fill(done[:, None], float("-inf")), log_probs)
    best = _keep_best(best, unfinished, num_return_sequences)
    used = (best.ids != rules.pad_token).any(dim=(0, 1))
    longest = end_test.ask((used * torch.arange(1, rules.max_length + 1, device=ids.device)).max())
    return Generated(best.ids[:, :, :longest], best.scores, best.log_probs)


def _keep_best(kept: Generated, new: Generated, number: int) -> Generated:
    """The `number` best texts of every image, out of those kept so far and new ones, best first."""
    scores, index = torch.cat([kept.scores, new.scores], dim=1).sort(dim=1, descending=True, stable=True)
    index = index[:, :number]
    return Generated(
        _gather_rows(torch.cat([kept.ids, new.ids], dim=1), index),
        scores[:, :number],
        _gather_rows(torch.cat([kept.log_probs, new.log_probs], dim=1), index),
    )
