"""Greedy decoding and beam search against decoding without caches and against all possible outputs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqbench.api import DecoderForm, Form, Tokens
from seqbench.assemble import build, core_spec
from seqbench.registry import Registry
from seqbench.search import Found, Rules, search

BEGIN, END = 1, 2


class Table:
    """A made-up model: the logits of the next token follow from the sentence and the tokens so far alone.

    State: ``((sentence (R,),), tokens so far (R, limit + 1))``, so that a wrong reordering shows.
    """

    def __init__(self, V: int, limit: int, seed: int, B: int) -> None:
        self.V, self.limit, self.seed, self.B = V, limit, seed, B

    def start(self) -> Any:
        return (torch.arange(self.B),), (
            torch.zeros(self.B, self.limit + 1, dtype=torch.int64),
            torch.zeros(self.B).long(),
        )

    def logits(self, sentence: int, past: tuple[int, ...]) -> Tensor:
        code = hash((self.seed, sentence, past)) % (1 << 31)
        return 2 * torch.randn(self.V, generator=torch.Generator().manual_seed(code), dtype=torch.float64)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        (sentence,), (past, at) = state
        past = past.clone()
        past[torch.arange(len(tokens)), at] = tokens
        rows = [tuple(p[: n + 1].tolist()) for p, n in zip(past, at.tolist(), strict=True)]
        logits = torch.stack([self.logits(int(s), row) for s, row in zip(sentence, rows, strict=True)])
        return logits, ((sentence,), (past, at + 1))

    def search(self, beam: int, penalty: float = 1.0) -> Found:
        return search(self.step, self.start(), self.B, Rules(BEGIN, END, self.limit, beam, penalty))

    def log_p(self, sentence: int, tokens: tuple[int, ...]) -> float:
        past, total = (BEGIN,), 0.0
        for token in tokens:
            total += float(self.logits(sentence, past).log_softmax(0)[token])
            past = (*past, token)
        return total

    def every_output(self) -> list[tuple[int, ...]]:
        words = [v for v in range(self.V) if v != END]
        return [(*w, END) for n in range(self.limit) for w in itertools.product(words, repeat=n)]


def output(found: Found, b: int) -> tuple[int, ...]:
    return tuple(found.tokens[b, : int(found.length[b])].tolist())


def rank(found: Found, b: int) -> tuple[bool, float]:
    return bool(found.ended[b]), float(found.score[b])


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_everything_finds_the_best_of_all_outputs(seed: int, penalty: float) -> None:
    table = Table(V=4, limit=4, seed=seed, B=2)
    found = table.search(beam=3**4, penalty=penalty)
    for b in range(2):
        best = max(table.every_output(), key=lambda o: table.log_p(b, o) / len(o) ** penalty)
        assert output(found, b) == best
        assert float(found.score[b]) == pytest.approx(table.log_p(b, best) / len(best) ** penalty, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5), st.integers(3, 8))
def test_a_beam_of_one_is_greedy_and_a_wider_one_never_scores_lower(seed: int, limit: int, beam: int, V: int) -> None:
    table = Table(V, limit, seed, B=3)
    one, wide = table.search(1), table.search(beam)
    for b in range(3):
        past: tuple[int, ...] = (BEGIN,)
        while len(past) <= limit and past[-1] != END:
            past = (*past, int(table.logits(b, past).argmax()))
        assert output(one, b) == past[1:]
        assert bool(one.ended[b]) == (past[-1] == END)
        assert rank(wide, b) >= rank(one, b)
        said = output(wide, b)
        assert float(wide.score[b]) == pytest.approx(table.log_p(b, said) / len(said), abs=1e-12)
        assert (said[-1] == END) == bool(wide.ended[b])
        assert END not in said[:-1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_what_else_is_in_the_batch_does_not_matter(seed: int, beam: int) -> None:
    table = Table(V=5, limit=7, seed=seed, B=6)
    together = table.search(beam)
    (sentences,), own = table.start()
    for b in range(6):
        state = (sentences[b : b + 1],), tuple(leaf[b : b + 1] for leaf in own)
        alone = search(table.step, state, 1, Rules(BEGIN, END, 7, beam))
        assert output(alone, 0) == output(together, b)
        assert rank(alone, 0) == rank(together, b)


def test_the_greedy_path_is_never_pruned() -> None:
    """Where greedy is best in the end but falls out of the beam on the way, the beam still finds it."""
    kept = 0
    for seed in range(300):
        table = Table(V=8, limit=6, seed=seed, B=1)
        one, two = table.search(1), table.search(2)
        assert rank(two, 0) >= rank(one, 0)
        kept += output(one, 0) != output(two, 0)
    assert kept > 30  # and it is a search


# --- with networks ------------------------------------------------------------------------------------

S, V, LIMIT, B = 6, 9, 8, 5
LENGTHS = torch.tensor([6, 2, 4, 1, 5])


def network_of(cards: Registry, name: str, attention: str, both: bool) -> Any:
    decoder = DecoderForm(LIMIT, BEGIN, END, attention)  # type: ignore[arg-type]
    form = Form(Tokens(V), V, "decoder", "class", S, causal=not both, bidirectional=both, decoder=decoder)
    card = cards.model(name)
    torch.manual_seed(11)
    network = build(card, "torch", core_spec(card, form, 8, 2), card.options(), form).double().eval()
    with torch.no_grad():
        for p in network.head.parameters():
            p.mul_(12)  # so that outputs differ
        network.head.bias[END] = 1.0  # and some end before the limit
    return network


def without_cache(network: Any, x: Tensor, lengths: Tensor, row: int) -> list[int]:
    """Greedy decoding by reading the whole prefix anew at every step, one sentence at a time."""
    n, said = int(lengths[row]), [BEGIN]
    while len(said) <= LIMIT and said[-1] != END:
        logits = network(x[row : row + 1, :n], None, torch.tensor([said]))
        said.append(int(logits[0, -1].argmax()))
    return said[1:]


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("attention", ["none", "dot", "additive"])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "janet", "tcn", "transformer"])
@torch.no_grad()
def test_cached_decoding_is_decoding_without_caches_token_for_token(
    cards: Registry, name: str, attention: str, both: bool
) -> None:
    network = network_of(cards, name, attention, both)
    x = torch.randint(0, V, (B, S), generator=torch.Generator().manual_seed(3))
    found = search(network.step, network.start(x, LENGTHS, LIMIT), B, Rules(BEGIN, END, LIMIT))
    assert [list(output(found, b)) for b in range(B)] == [without_cache(network, x, LENGTHS, b) for b in range(B)]


@pytest.mark.parametrize("name", ["lstm", "tcn", "transformer"])
@torch.no_grad()
def test_the_score_is_the_models_own_of_its_output(cards: Registry, name: str) -> None:
    network = network_of(cards, name, "additive", True)
    x = torch.randint(0, V, (B, S), generator=torch.Generator().manual_seed(3))
    found = search(network.step, network.start(x, LENGTHS, LIMIT), B, Rules(BEGIN, END, LIMIT, 4, 0.7))
    for b in range(B):
        said = output(found, b)
        y_in = torch.tensor([[BEGIN, *said[:-1]]])
        log_p = network(x[b : b + 1, : int(LENGTHS[b])], None, y_in).log_softmax(-1)[0]
        total = float(log_p[torch.arange(len(said)), torch.tensor(said)].sum())
        assert float(found.score[b]) == pytest.approx(total / len(said) ** 0.7, abs=1e-9)
