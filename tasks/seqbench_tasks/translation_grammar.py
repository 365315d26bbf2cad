"""A synchronous grammar, English to Portuguese: each English sentence has one right translation, known exactly.

::

    the tall girls see the boy 's new house and a teacher helps them
    as meninas altas veem a casa nova do menino e um professor os ajuda

What a model must learn beyond a dictionary:

- **order**: adjectives follow their noun; a possessor follows what it owns; an object pronoun comes before the verb;
- **agreement**: articles and adjectives take gender and number from a Portuguese noun that comes later in English;
- **contraction**: ``de`` + ``o`` = ``do``, ``em`` + ``as`` = ``nas``, ``por`` + ``a`` = ``pela``.

::

    sentence   clause ("and" clause)*            up to LONGEST English words
    clause     phrase verb object place?
    object     phrase | "him" | "her" | "them"
    place      preposition phrase
    phrase     article adjective? noun tail?  |  owner "'s" adjective? noun
    tail       preposition phrase | "that" verb phrase
    owner      article noun
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqbench_tasks.dice import Dice
from seqbench_tasks.randomness import fixed, permutation

LONGEST = 15
"""English words of a sentence, at most."""
SIZES = {"train": 30_000, "valid": 500, "test": 1000}
SEED = 2017
MASCULINE, FEMININE = 0, 1


@dataclass(frozen=True)
class Noun:
    """English singular and plural, Portuguese singular and plural, gender."""

    english: tuple[str, str]
    portuguese: tuple[str, str]
    gender: int


@dataclass(frozen=True)
class Verb:
    """Third person, singular and plural."""

    english: tuple[str, str]
    portuguese: tuple[str, str]


def _nouns(gender: int, text: str) -> tuple[Noun, ...]:
    words = [entry.split() for entry in text.split(",")]
    return tuple(Noun((a, b), (c, d), gender) for a, b, c, d in words)


NOUNS = _nouns(
    MASCULINE,
    "boy boys menino meninos, cat cats gato gatos, teacher teachers professor professores, book books livro livros",
) + _nouns(
    FEMININE,
    "girl girls menina meninas, house houses casa casas, nurse nurses enfermeira enfermeiras, table tables mesa mesas",
)

ADJECTIVES: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "new": (("novo", "novos"), ("nova", "novas")),
    "tall": (("alto", "altos"), ("alta", "altas")),
    "white": (("branco", "brancos"), ("branca", "brancas")),
    "pretty": (("bonito", "bonitos"), ("bonita", "bonitas")),
    "big": (("grande", "grandes"), ("grande", "grandes")),
    "poor": (("pobre", "pobres"), ("pobre", "pobres")),
}
"""English to Portuguese, ``[gender][number]``."""

VERBS = (
    Verb(("sees", "see"), ("vê", "veem")),
    Verb(("helps", "help"), ("ajuda", "ajudam")),
    Verb(("finds", "find"), ("encontra", "encontram")),
    Verb(("loves", "love"), ("ama", "amam")),
)

ARTICLES = {
    "the": (("o", "os"), ("a", "as")),
    "a": (("um", "uns"), ("uma", "umas")),
    "some": (("um", "uns"), ("uma", "umas")),
}
"""``[gender][number]``; "a" is singular, "some" plural, "the" either."""

PREPOSITIONS = {"of": "de", "in": "em", "by": "por", "with": "com", "for": "para"}
CONTRACTED = {"de": "d", "em": "n", "por": "pel"}
"""What is left of a preposition before ``o, a, os, as``."""
PRONOUNS = {"him": "o", "her": "a", "them": "os"}


@dataclass(frozen=True)
class Phrase:
    """A noun phrase in both languages.

    Attributes:
        english: with its article.
        article: the Portuguese article, apart, for it may contract.
        portuguese: what follows the article.
        number: 0 singular, 1 plural.
    """

    english: tuple[str, ...]
    article: str
    portuguese: tuple[str, ...]
    number: int

    @property
    def full(self) -> tuple[str, ...]:
        """The Portuguese phrase, article and all."""
        return (self.article, *self.portuguese)

    def after(self, preposition: str) -> tuple[str, ...]:
        """The Portuguese phrase after a Portuguese preposition, contracted where the language does."""
        if preposition in CONTRACTED and self.article in ("o", "a", "os", "as"):
            return (CONTRACTED[preposition] + self.article, *self.portuguese)
        return (preposition, *self.full)


def _article(dice: Dice, noun: Noun) -> tuple[str, str, int]:
    """An English article, the Portuguese one, and the number that it brings."""
    english = dice.one(("the", "the", "a", "some"))
    number = {"a": 0, "some": 1}.get(english, dice.below(2))
    return english, ARTICLES[english][noun.gender][number], number


def _described(dice: Dice, noun: Noun, number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A noun, with an adjective every other time, in both languages."""
    english, portuguese = noun.english[number], noun.portuguese[number]
    if not dice.chance(50):
        return (english,), (portuguese,)
    adjective = dice.one(tuple(ADJECTIVES))
    return (adjective, english), (portuguese, ADJECTIVES[adjective][noun.gender][number])


def _plain(dice: Dice) -> Phrase:
    """An article and a noun."""
    noun = dice.one(NOUNS)
    english, portuguese, number = _article(dice, noun)
    return Phrase((english, noun.english[number]), portuguese, (noun.portuguese[number],), number)


def _owned(dice: Dice) -> Phrase:
    """``the boy 's new house``."""
    owner, noun, number = _plain(dice), dice.one(NOUNS), dice.below(2)
    english, portuguese = _described(dice, noun, number)
    article = ARTICLES["the"][noun.gender][number]
    return Phrase((*owner.english, "'s", *english), article, portuguese + owner.after("de"), number)


def _phrase(dice: Dice, tails: int) -> Phrase:
    """A noun phrase with up to ``tails`` tails within one another."""
    if dice.chance(20):
        return _owned(dice)
    noun = dice.one(NOUNS)
    word, article, number = _article(dice, noun)
    english, portuguese = _described(dice, noun, number)
    more, mais = _tail(dice, number, tails - 1) if tails and dice.chance(30) else ((), ())
    return Phrase((word, *english, *more), article, portuguese + mais, number)


def _tail(dice: Dice, number: int, tails: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What follows a noun of that number, in both languages."""
    if dice.chance(50):
        return _place(dice, tails)
    verb, phrase = dice.one(VERBS), _phrase(dice, tails)
    return ("that", verb.english[number], *phrase.english), ("que", verb.portuguese[number], *phrase.full)


def _place(dice: Dice, tails: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    preposition, phrase = dice.one(tuple(PREPOSITIONS)), _phrase(dice, tails)
    return (preposition, *phrase.english), phrase.after(PREPOSITIONS[preposition])


def _clause(dice: Dice) -> tuple[tuple[str, ...], tuple[str, ...]]:
    subject, verb = _phrase(dice, 1), dice.one(VERBS)
    said, diz = verb.english[subject.number], verb.portuguese[subject.number]
    english: tuple[str, ...]
    portuguese: tuple[str, ...]
    if dice.chance(20):
        pronoun = dice.one(tuple(PRONOUNS))
        english, portuguese = (said, pronoun), (PRONOUNS[pronoun], diz)
    else:
        thing = _phrase(dice, 1)
        english, portuguese = (said, *thing.english), (diz, *thing.full)
    where, onde = _place(dice, 0) if dice.chance(25) else ((), ())
    return (*subject.english, *english, *where), (*subject.full, *portuguese, *onde)


def sentence(dice: Dice) -> tuple[str, str]:
    """A sentence and its translation: one to three clauses, no more than ``LONGEST`` English words."""
    while True:
        clauses = [_clause(dice) for _ in range(dice.one((1, 1, 1, 2, 2, 3)))]
        english = " and ".join(" ".join(e) for e, _ in clauses)
        if len(english.split()) <= LONGEST:
            return english, " e ".join(" ".join(p) for _, p in clauses)


def pairs(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """That many pairs of distinct English sentences, in random order.

    Distinct ones come in an order that favours short sentences early; shuffled, every part of the list is alike.
    """
    dice = Dice(rng)
    found: dict[str, str] = {}
    while len(found) < count:
        english, portuguese = sentence(dice)
        found[english] = portuguese
    items = list(found.items())
    return [items[i] for i in permutation(rng, count)]


def embedded_pairs() -> dict[str, list[tuple[str, str]]]:
    """The embedded dataset: ``train``, ``valid`` and ``test``, no English sentence in two of them, or twice in one."""
    everything, splits, start = pairs(fixed(SEED), sum(SIZES.values())), {}, 0
    for split, size in SIZES.items():
        splits[split], start = everything[start : start + size], start + size
    return splits
