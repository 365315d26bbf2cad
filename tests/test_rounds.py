"""Seeds in rounds: the looks, their price, and a run that adds seeds until its models are told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import seqbench
from seqbench.api import Metric
from seqbench.errors import SpecError
from seqbench.rounds import level_of, looks, next_look
from seqbench.spec import RunSpec
from seqbench.verdicts import compare

LOSS = Metric("loss", "a loss", "nats")


def test_looks() -> None:
    assert looks(5, 20) == (5, 10, 20)
    assert looks(5, 12) == (5, 10, 12)
    assert looks(3, 0) == (3,)
    assert level_of(5, 20) == pytest.approx(0.05 / 3)


def test_equal_models_rarely_differ_at_any_look() -> None:
    """Without the correction 5, 10 and 20 seeds together would be wrong about twice as often."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(1000):
        samples = rng.normal(size=(4, 20))
        scores = [dict(zip("abcd", samples[:, :n].tolist(), strict=True)) for n in looks(5, 20)]
        wrong += any(v.differ for found in scores for v in compare(found, LOSS, level_of(5, 20)))
    assert wrong / 1000 <= 0.06


def test_it_ends_when_all_differ_or_the_seeds_are_used_up() -> None:
    apart = compare({"a": [1.0, 1.1, 1.2], "b": [9.0, 9.1, 9.3]}, LOSS)
    alike = compare({"a": [1.0, 1.1, 1.2], "b": [1.1, 1.0, 1.2]}, LOSS)
    assert next_look(3, 3, 12, apart) == 0
    assert [next_look(n, 3, 10, alike) for n in (3, 6, 10)] == [6, 10, 0]
    assert next_look(3, 3, 12, []) == 0


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(SpecError, match="--until-decided is 5; expected more than the 5 --seeds"):
        RunSpec(task=("copy",), until_decided=5)
    with pytest.raises(SpecError, match="does not go with --aa"):
        RunSpec(task=("copy",), aa="lstm", until_decided=9)


def test_a_run_adds_seeds_to_all_models_and_says_what_that_cost(tmp_path: Path) -> None:
    """Two rows of the same model under other names never differ, so all rounds are run."""
    options = {"seeds": 2, "until_decided": 5, "params": "2k", "budget": "5steps", "batch": 4, "out": tmp_path}
    results = seqbench.run(task="copy[T=3]", models=["rnn", "rnn[nonlinearity=relu]"], **options)
    frame = results.frame
    assert {label: sorted(rows["seed"]) for label, rows in frame.groupby("model")} == {
        "rnn": [0, 1, 2, 3, 4],
        "rnn[nonlinearity=relu]": [0, 1, 2, 3, 4],
    }
    assert "3 looks at growing numbers of seeds allowed for" in repr(results)
