"""Greedy decoding and beam search over cached steps: one implementation, greedy being a beam of one.

A hypothesis that has ended leaves the beam; of those of a sentence the best is kept, by its mean log-probability::

    score = ln p(tokens, end | source) / (count of tokens and end) ** length_penalty

One place of the beam always belongs to the greedy path, so that a wider beam never does worse than a beam of one: the
best ``beam`` continuations go on, the last of them giving way if the greedy one is not among them. A sentence is done
when its greedy path has ended and ``beam`` hypotheses have, or at the limit. There an output without an end counts
only if no hypothesis has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqbench.api import State
from seqbench.states import leaves, map_leaves

Step = Callable[[Tensor, State], tuple[Tensor, State]]
"""``step(tokens (R,), state) -> (logits (R, V), state)``; the state is a decoder's, a pair (memory part, own part)."""


@dataclass(frozen=True)
class Rules:
    """What a search goes by.

    Attributes:
        begin: the token read first.
        end: the token that ends an output.
        limit: the most tokens of an output, the end included.
        beam: hypotheses a sentence.
        length_penalty: the exponent of the length in the score.
    """

    begin: int
    end: int
    limit: int
    beam: int = 1
    length_penalty: float = 1.0


@dataclass
class Found:
    """The best hypothesis of each sentence so far.

    Attributes:
        tokens: int64 ``(B, limit)``, with the end.
        length: int64 ``(B,)``.
        score: float64 ``(B,)``.
        ended: bool ``(B,)``.
    """

    tokens: Tensor
    length: Tensor
    score: Tensor
    ended: Tensor


@torch.no_grad()
def search(step: Step, state: Any, B: int, rules: Rules) -> Found:
    """Decode ``B`` sentences from the decoder's state before the first step, its leaves ``(B, ...)``."""
    return _Search(step, state, B, rules).run()


class _Search:
    """The hypotheses ``(b, k)`` of the sentences not yet done; row ``b * K + k`` of the state is theirs."""

    def __init__(self, step: Step, state: Any, B: int, rules: Rules) -> None:
        self._step, self._rules = step, rules
        K = self._K = rules.beam
        self._state = map_leaves(lambda leaf: leaf.repeat_interleave(K, 0), state)
        self._device = device = _device(state)
        self._sentence = torch.arange(B, device=device)  # which one each of the b is
        self._total = torch.full((B, K), -torch.inf, dtype=torch.float64, device=device)  # ln p so far
        self._total[:, 0] = 0.0  # the beam begins as one hypothesis
        self._tokens = torch.zeros(B, K, rules.limit, dtype=torch.int64, device=device)
        self._greedy = torch.zeros(B, dtype=torch.int64, device=device)  # the place of the greedy path
        self._greedy_ended = torch.zeros(B, dtype=torch.bool, device=device)
        self._count = torch.zeros(B, dtype=torch.int64, device=device)  # hypotheses that have ended
        self._going = torch.ones(B, dtype=torch.bool, device=device)  # not done: what comes later does not count
        self.found = Found(
            tokens=torch.zeros(B, rules.limit, dtype=torch.int64, device=device),
            length=torch.zeros(B, dtype=torch.int64, device=device),
            score=torch.full((B,), -torch.inf, dtype=torch.float64, device=device),
            ended=torch.zeros(B, dtype=torch.bool, device=device),
        )

    def run(self) -> Found:
        """Step until every sentence is done, or the limit."""
        last = torch.full((len(self._sentence) * self._K,), self._rules.begin, device=self._device)
        for t in range(self._rules.limit):
            logits, self._state = self._step(last, self._state)
            self._advance(logits.double().log_softmax(-1), t)
            self._drop_done()
            if not len(self._sentence):
                return self.found
            last = self._tokens[:, :, t].flatten()  # (b * K,)
        self._take_unfinished()
        return self.found

    def _advance(self, log_p: Tensor, t: int) -> None:
        """One step of every hypothesis: ``log_p (b * K, V)`` are the log-probabilities of its next token."""
        K, V = self._K, log_p.shape[-1]
        total = self._total.unsqueeze(-1) + log_p.view(-1, K, V)  # (b, K, V)
        greedy = self._greedy * V + log_p.view(-1, K, V)[self._rows(), self._greedy].argmax(-1)  # (b,)
        # Of 2 K candidates at most K end, one for each hypothesis: at least K are left to go on.
        best, place = total.flatten(1).topk(2 * K, sorted=True)  # (b, 2K)
        ends = place % V == self._rules.end
        self._finish(best, place, ends, t, V)
        self._finish_greedy(total, greedy, t, V)
        self._go_on(best.masked_fill(ends, -torch.inf), place, total, greedy, t)

    def _rows(self) -> Tensor:
        return torch.arange(len(self._sentence), device=self._device)

    def _finish(self, best: Tensor, place: Tensor, ends: Tensor, t: int, V: int) -> None:
        """Keep what ends among the best K continuations."""
        for k in range(self._K):
            ended = ends[:, k] & best[:, k].isfinite()
            self._keep(ended, place[:, k] // V, best[:, k], t, ended=True)
            self._count += ended

    def _finish_greedy(self, total: Tensor, greedy: Tensor, t: int, V: int) -> None:
        """The greedy path counts even where its end is not among the best."""
        ended = (greedy % V == self._rules.end) & ~self._greedy_ended
        self._keep(ended, self._greedy, total.flatten(1)[self._rows(), greedy], t, ended=True)
        self._greedy_ended |= ended

    def _keep(self, which: Tensor, parent: Tensor, total: Tensor, t: int, *, ended: bool) -> None:
        """Take the hypotheses ``parent (b,)``, of ``t`` tokens and the end, where ``which`` and better than before."""
        length = t + 1
        score = total / length**self._rules.length_penalty
        found, at = self.found, self._sentence
        better = which & self._going & (score > found.score[at])
        rows, at = self._rows()[better], at[better]
        found.tokens[at] = self._tokens[rows, parent[better]]
        if ended:
            found.tokens[at, t] = self._rules.end
        found.length[at], found.score[at], found.ended[at] = length, score[better], ended

    def _go_on(self, best: Tensor, place: Tensor, total: Tensor, greedy: Tensor, t: int) -> None:
        """The best K that do not end are the next hypotheses, the greedy path among them."""
        K, V, rows = self._K, total.shape[-1], self._rows()
        best, order = best.topk(K, sorted=True)  # (b, K)
        place = place.gather(1, order)
        here = place == greedy.unsqueeze(1)  # (b, K)
        lost = ~here.any(1) & ~self._greedy_ended
        place[:, -1] = torch.where(lost, greedy, place[:, -1])
        best[:, -1] = torch.where(lost, total.flatten(1)[rows, greedy], best[:, -1])
        self._greedy = torch.where(lost, K - 1, here.int().argmax(1))
        parent = place // V  # (b, K)
        self._tokens = self._tokens.gather(1, parent.unsqueeze(-1).expand_as(self._tokens))
        self._tokens[:, :, t] = place % V
        self._total = best
        if K > 1:
            memory, own = self._state
            source = (rows.unsqueeze(1) * K + parent).flatten()  # (b * K,)
            self._state = (memory, map_leaves(lambda leaf: leaf.index_select(0, source), own))

    def _drop_done(self) -> None:
        """Once half of the sentences are done, go on with the others alone; all at once when the last one is."""
        self._going &= ~(self._greedy_ended & (self._count >= self._K))  # (b,)
        if 2 * int(self._going.sum()) > len(self._going):
            return
        rows = self._going.nonzero().squeeze(1)
        self._sentence, self._total, self._tokens = self._sentence[rows], self._total[rows], self._tokens[rows]
        self._greedy, self._greedy_ended = self._greedy[rows], self._greedy_ended[rows]
        self._count, self._going = self._count[rows], self._going[rows]
        states = (rows.unsqueeze(1) * self._K + torch.arange(self._K, device=self._device)).flatten()
        self._state = map_leaves(lambda leaf: leaf.index_select(0, states), self._state)

    def _take_unfinished(self) -> None:
        """At the limit: where nothing has ended, the best hypothesis as it stands."""
        limit = self._rules.limit
        open_ = ~self.found.ended[self._sentence]
        for k in range(self._K):
            parent = torch.full_like(self._sentence, k)
            self._keep(open_ & self._total[:, k].isfinite(), parent, self._total[:, k], limit - 1, ended=False)


def _device(state: Any) -> torch.device:
    return next(leaves(state)).device
