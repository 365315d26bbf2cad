from __future__ import annotations

from seqbench_tasks.words import UNKNOWN, WordVocabulary, tokenise


def test_rare_and_strange_words_are_unknown() -> None:
    vocabulary = WordVocabulary([["b", "a"], ["a", "c", "b"]], min_count=2)
    assert vocabulary.words == ["<unk>", "a", "b"]
    assert vocabulary.encode(["b", "c", "a", "z"]) == [2, UNKNOWN, 1, UNKNOWN]
    assert len(WordVocabulary([["b", "a"], ["a", "c", "b"]], min_count=1)) == 4


def test_only_blanks_part_words() -> None:
    assert tokenise(" a  b\u00a0c ") == ["a", "b\u00a0c"]
