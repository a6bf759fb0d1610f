"""Ranking answers: questions a second in the decoder, against the textbook way on the same weights.

    python -m benchmarks.vqa [--questions 4] [--k 128] [--device cpu] [--precision fp32]

A decoder of BERT-base's size with random weights ranks, for each question, the k of 3,128 candidate answers whose first
token is the most probable, from the question's states on:

- ours: `BLIPVQA.rank`, which projects a question once for all its candidates and computes what several of them begin
  with once, its vocabulary too;
- textbook: each (question, answer) pair is a row by itself, for which the question's states are repeated and projected
  anew; all rows are padded to the longest of them, and every position passes through the vocabulary, as in 2022.

Questions have 7 to 11 tokens. Answers are as long as those of VQA v2: 60% have one token, 24% two, 13% three, the rest
up to five. Both ways must give the same candidates, losses and best answers. On a CPU one thread is used and processor
time is measured. On a GPU take `--questions 32 --precision bf16`.
"""

if __name__ == "__main__":
    from settings.interrupts import exit_on_interrupt

    exit_on_interrupt()

import torch
from torch import Tensor

from benchmarks.measurement import command_line, machine, prepare, save, seconds
from models.blip_vqa import BLIPVQA
from settings.flags import at_least

CANDIDATES, WORDS = 3_128, 2_000
LENGTHS = {1: 0.60, 2: 0.24, 3: 0.13, 4: 0.02, 5: 0.01}  # tokens of an answer, and how many answers have so many
TINY_VIT = {"embed_dim": 64, "depth": 1, "num_heads": 1, "patch_size": 16}  # takes no part


def answers(model: BLIPVQA) -> list[str]:
    """Different answers out of 2,000 words that are one token each."""
    vocabulary = model.tokenizer.get_vocab()
    words = [word for word in vocabulary if word.isascii() and word.isalpha()]
    words = sorted(words, key=lambda word: vocabulary[word])[:WORDS]
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor(list(LENGTHS.values()))
    found: dict[str, None] = {}
    while len(found) < CANDIDATES:
        length = 1 + int(shares.multinomial(1, generator=generator))
        found[" ".join(words[i] for i in torch.randint(WORDS, (length,), generator=generator).tolist())] = None
    return list(found)


def textbook(
    model: BLIPVQA, states: Tensor, mask: Tensor, ids: Tensor, lengths: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Question states [B, T, D] with mask [B, T], candidates [A, L] -> those chosen and their scores, [B, k] each."""
    decoder = model.text_decoder
    start = ids[:1, :1].expand(len(states), 1)
    first = decoder.logits(decoder.bert(start, memory=decoder.project(states, mask), causal=True)[:, 0])
    chosen = first.softmax(dim=1)[:, ids[:, 1]].topk(k, dim=1).indices
    rows = chosen.flatten()
    longest = int(lengths[rows].max())
    memory = decoder.project(states.repeat_interleave(k, dim=0), mask.repeat_interleave(k, dim=0))
    padding = torch.arange(longest, device=ids.device) >= lengths[rows, None]
    tokens = ids[rows, :longest]
    losses = decoder.token_losses(tokens, tokens.masked_fill(padding, -100), memory)
    return chosen, -losses.sum(dim=1).view_as(chosen)


@torch.inference_mode()
def main() -> None:
    parser = command_line(__doc__, "vqa.json", rounds=3)
    parser.add_argument("--questions", type=at_least(1), default=4)
    parser.add_argument("--k", type=at_least(1), default=128)
    flags = parser.parse_args()
    device, dtype = prepare(flags)
    model = BLIPVQA(image_size=16, vit=TINY_VIT).to(device).eval()
    candidates = model.tokenizer(answers(model), padding="longest", return_tensors="pt")
    ids, lengths = candidates.input_ids.to(device, copy=True), candidates.attention_mask.sum(dim=1).to(device)
    ids[:, 0] = model.tokenizer.dec_token_id
    states = torch.randn(flags.questions, 11, 768, device=device)
    mask = torch.arange(11, device=device) < torch.arange(flags.questions, device=device)[:, None] % 5 + 7

    def ours() -> tuple[Tensor, Tensor]:
        return model.rank(model.text_decoder.project(states, mask), candidates, flags.k)

    ways = {"ours": ours, "textbook": lambda: textbook(model, states, mask, ids, lengths, flags.k)}
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
        (chosen, scores), (expected_chosen, expected) = (way() for way in ways.values())
        expected, order = expected.sort(dim=1, descending=True)
        same_best = (chosen[:, 0] == expected_chosen.gather(1, order)[:, 0]).float().mean().item()
        difference = (scores - expected).abs().max().item()
        if dtype is torch.float32 and (difference > 1e-4 or same_best < 1):
            raise RuntimeError(
                f"the two ways differ by {difference:.1e} and in the best answer of {1 - same_best:.0%} of the "
                "questions, so that their times mean nothing"
            )
        least = seconds(ways, flags.rounds, device)
    rate = {name: flags.questions / elapsed for name, elapsed in least.items()}
    result = {
        "what": f"{flags.questions} questions x {flags.k} of {CANDIDATES:,} answers, BERT-base, {flags.precision}",
        "largest_difference": difference,
        "share_with_the_same_best_answer": same_best,
        "questions_per_second": rate,
        "ours_over_textbook": rate["ours"] / rate["textbook"],
        "machine": machine(device),
    }
    for name, value in rate.items():
        print(f"{name:9} {value:8.2f} questions/s  {1000 / value:8.1f} ms a question")
    print(f"ours is {result['ours_over_textbook']:.1f} times as fast; losses differ by {difference:.1e} at most")
    save(flags.out, result)


if __name__ == "__main__":
    main()
