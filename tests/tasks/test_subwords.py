from __future__ import annotations

import pytest

from seqbench.api import DataError
from seqbench_tasks.subwords import END, UNKNOWN, Subwords, Words, learn

LINES = [
    f"The {a} {b}s the {c}, it does."
    for a in ["dog", "cat", "hen"]
    for b in ["see", "bite"]
    for c in ["cow", "ox", "ant"]
] * 5


def test_learning_gives_the_same_bytes_every_time_and_the_text_comes_back() -> None:
    model = learn(LINES, 120)
    assert model == learn(LINES, 120)
    codec = Subwords(model)
    assert 20 < len(codec) <= 120
    rows = codec.encode(LINES)
    assert [codec.decode(row) for row in rows] == LINES
    assert all(UNKNOWN not in row for row in rows)
    assert max(map(len, rows)) < len(LINES[0])
    assert codec.show(rows[0][0]).startswith("\u2581")


def test_what_training_never_showed_is_unknown() -> None:
    assert UNKNOWN in Subwords(learn(LINES, 120)).encode(["ß"])[0]


def test_a_small_corpus_gives_fewer_pieces() -> None:
    assert len(Subwords(learn(["ab ba"], 5000))) < 20


def test_nothing_to_learn_from() -> None:
    with pytest.raises(DataError, match="no text in the training split"):
        learn(["", " "], 100)


def test_words_of_a_closed_vocabulary() -> None:
    codec = Words(["b", "a", "b"])
    assert len(codec) == 5
    assert codec.encode(["a b", "b z", ""]) == [[3, 4], [4, UNKNOWN], []]
    assert codec.decode([3, 4]) == "a b"
    assert codec.show(END) == "</s>"
