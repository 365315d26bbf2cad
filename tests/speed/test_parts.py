"""The parts of the speed phase by themselves: sizes in text, the fit of growth, samples, the documented columns."""

from __future__ import annotations

import gc
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from seqbench.errors import SpecError, UsageError
from seqbench.measure import sampling
from seqbench.measure.sampling import Sampler
from seqbench.process import Outcome
from seqbench.report.speeds.columns import COLUMNS, with_figures
from seqbench.report.speeds.growth import growth
from seqbench.report.speeds.levels import levels
from seqbench.report.speeds.tables import meanings, print_tables
from seqbench.speed.rounds import _Turn, shares
from seqbench.speed.spec import make_spec, parse_sizes

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("text", "sizes"),
    [("64,128,256", (64, 128, 256)), ("256, 64", (64, 256)), ("64..512", (64, 128, 256, 512)), ("3..20", (3, 6, 12))],
)
def test_sizes(text: str, sizes: tuple[int, ...]) -> None:
    assert parse_sizes(text, "--lengths", 1000) == sizes


@pytest.mark.parametrize("text", ["", "0", "1,1", "x", "8..4", "0..8", "1,,2", "1001", "-4", "1.5"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--lengths is .*; expected different numbers from 1 to 1000"):
        parse_sizes(text, "--lengths", 1000)


@given(st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=6))
def test_the_fit_is_that_of_numpy(values: list[float]) -> None:
    lengths = [64 * 2**k for k in range(len(values))]
    found = growth(lengths, values)
    line, covariance = np.polyfit(np.log(lengths), np.log(values), 1, cov=True)
    assert found is not None
    assert found.exponent == pytest.approx(line[0], abs=1e-9)
    assert found.error == pytest.approx(covariance[0, 0] ** 0.5, abs=1e-6)


def test_a_power_law_has_its_exponent() -> None:
    found = growth([8, 16, 64], [3 * n**1.5 for n in (8, 16, 64)])
    assert found is not None
    assert (found.exponent, found.error, found.r2) == pytest.approx((1.5, 0.0, 1.0), abs=1e-7)


def test_two_lengths_have_no_exponent() -> None:
    assert growth([8, 16], [1.0, 2.0]) is None
    assert growth([8, 16, 32], [1.0, 2.0, 0.0]) is None, "nothing is no point"


# --- levels -------------------------------------------------------------------------------------------

Factors = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=9)


@settings(deadline=None)  # the first call imports scipy
@given(Factors, Factors)
def test_factors_of_rounds_are_divided_out(subjects: list[float], rounds: list[float]) -> None:
    """What is exactly subject * round has the subject's factor in the middle round."""
    found = levels(np.outer(subjects, rounds).tolist())
    middle = np.exp(np.median(np.log(rounds))) if len(subjects) > 1 else np.median(rounds)
    assert found == pytest.approx(middle * np.array(subjects))


def test_one_subject_alone_and_samples_of_nothing_have_plain_medians() -> None:
    assert levels([[3.0, 1.0, 2.0, 9.0]]) == [2.5]
    assert levels([[3.0, 1.0, 2.0], [0.0, 1.0, 5.0]]) == [2.0, 1.0]


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100.0))
def test_levels_go_by_rounds_and_not_by_their_order_and_have_a_unit(seed: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.lognormal(size=(4, 15))
    found = levels(samples.tolist())
    assert levels((unit * samples[:, rng.permutation(15)]).tolist()) == pytest.approx(unit * np.array(found))
    assert levels(samples[::-1].tolist()) == pytest.approx(found[::-1])


def test_some_suffer_more_than_others() -> None:
    """Each has its own power of the round's factor."""
    rounds = np.array([1.0, 1.3, 2.0, 1.1, 1.3, 1.9, 1.3, 1.05, 2.2])
    powers = np.array([0.0, 0.5, 1.0, 1.0, 2.0])
    samples = 7.0 * rounds ** powers[:, None]
    assert levels(samples.tolist()) == pytest.approx(7.0 * 1.3**powers)


def test_what_only_one_model_suffers_from_is_its_own() -> None:
    """Less than half of its samples change no median; all of them change its own alone."""
    even = [1.0 + 0.01 * (k % 3) for k in range(15)]
    odd = [10.0 * v if k < 6 else v for k, v in enumerate(even)]
    assert levels([even, even, odd]) == pytest.approx([1.01] * 3)
    assert levels([even, even, [10.0 * v for v in even]]) == pytest.approx([1.01, 1.01, 10.1])


def test_a_machine_that_is_slow_half_of_the_time_does_not_part_twins() -> None:
    """Rounds take 1 or 1.5 as a coin falls, four subjects alike; 3 per cent of noise of their own."""
    rng = np.random.default_rng(0)
    apart: dict[str, list[float]] = {"levels": [], "medians": []}
    for _ in range(100):
        machine = rng.choice([1.0, 1.5], size=60)
        samples = machine * np.exp(0.03 * rng.standard_normal((4, 60)))
        for name, (one, two, *_) in (("levels", levels(samples.tolist())), ("medians", np.median(samples, 1))):
            apart[name].append(abs(two / one - 1))
    assert np.mean(np.array(apart["levels"]) < 0.02) >= 0.95
    assert np.mean(np.array(apart["medians"]) < 0.02) < 0.9, "else this would show nothing"


def test_twins_that_suffer_twice_as_much_as_the_others_are_not_parted_either() -> None:
    """Less a loudness that is only half of theirs, their samples would still be of two kinds."""
    rng = np.random.default_rng(1)
    powers = np.array([[2.0], [2.0], [1.0], [1.0], [1.0], [1.0]])
    apart = []
    for _ in range(100):
        machine = rng.choice([1.0, 1.5], size=60)
        one, two, *_ = levels((machine**powers * np.exp(0.03 * rng.standard_normal((6, 60)))).tolist())
        apart.append(abs(two / one - 1))
    assert np.mean(np.array(apart) < 0.02) >= 0.9


def test_medians_are_those_of_what_was_measured_together() -> None:
    """By length and batch, whatever the operation; one that died does not count."""
    machine = [1.0, 2.0, 2.0, 2.0, 1.0]
    rows = with_figures(
        [
            record("a", machine),
            record("b", [6.0, 12.0, 6.0, 12.0, 6.0], operation="train"),
            record("c", [4.0, 5.0, 9.0, 3.0, 9.0], length=16),
            record("d", [100.0], status="killed"),
            record("e", [3.0 * factor for factor in machine], backend="numba"),
        ]
    )
    medians = [row["wall"]["median"] for row in rows]
    assert medians == pytest.approx([2.0, 12.0, 5.0, 100.0, 6.0])
    assert rows[1]["wall"]["q1"] == 6.0, "quartiles are of the samples as they are"


def test_no_median_is_beyond_its_quartiles() -> None:
    """However odd the few others are."""
    rows = with_figures([record("a", [1.0, 1.01, 1.02]), record("b", [5.0, 1.0, 9.0]), record("c", [7.0, 3.0, 2.0])])
    for row in rows:
        assert row["wall"]["q1"] <= row["wall"]["median"] <= row["wall"]["q3"]


def record(label: str, wall: Any, **changes: Any) -> dict[str, Any]:
    """Of a subject that was measured."""
    what = {"backend": "torch", "operation": "infer", "length": 8, "batch": 1}
    ok = {"status": "ok", "samples": {"wall": list(wall), "cpu": list(wall)}, "memory": {"call_mib": 0.0}}
    return {"label": label, **what, **ok, **changes}


def times_fastest(*records: dict[str, Any]) -> list[Any]:
    """Quartiles of each."""
    return [(t := r["times_fastest"]) and (t["q1"], t["median"], t["q3"]) for r in with_figures(records)]


def test_models_are_compared_round_by_round() -> None:
    """A machine that slows down under both changes their medians, and no ratio."""
    machine = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 5.0, 5.0])
    noise = np.array([0.9, 1.1, 1.0, 1.0, 1.0, 0.8, 1.2])
    assert times_fastest(record("a", machine), record("b", 1.5 * noise * machine)) == [
        pytest.approx((1.0, 1.0, 1.0)),
        pytest.approx(tuple(1.5 * np.percentile(noise, [25, 50, 75]))),
    ]


@pytest.mark.parametrize(
    "change",
    [{"backend": "numba"}, {"operation": "train"}, {"length": 16}, {"batch": 2}, {"status": "killed"}],
    ids=str,
)
def test_only_the_same_work_on_the_same_backend_is_compared(change: dict[str, Any]) -> None:
    assert times_fastest(record("a", [1.0, 1.0]), record("b", [2.0, 2.0], **change)) == [None, None]


def test_below_a_table_stands_what_it_has() -> None:
    cells, times, power = meanings(["Model", "Times\nfastest", "Time\nT^p"])
    assert (cells[:6], times[:13], power[:3]) == ("a cell", "times fastest", "T^p")
    assert meanings(["Model", "T=8"]) == [cells]


@pytest.mark.parametrize(("models", "lengths", "said"), [(1, 1, 1), (2, 1, 2), (1, 3, 2), (2, 3, 3)])
def test_the_terminal_explains_no_column_that_it_does_not_show(models: int, lengths: int, said: int) -> None:
    records = [record("ab"[m], [1.0 + m, 1.0 + m], length=8 * 2**n) for m in range(models) for n in range(lengths)]
    out = io.StringIO()
    print_tables(with_figures(records), Console(file=out, width=200))
    assert sum(line.startswith(("a cell", "times fastest", "T^p")) for line in out.getvalue().splitlines()) == said


class Clocks:
    """Both clocks of a process that waits half of its time."""

    now = 5.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 2


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[float]], Sampler]]:
    """``sampler(seconds)``: of a call that lasts ``seconds[0]`` at first and ``seconds[1]`` ever after."""

    def make(seconds: list[float]) -> Sampler:
        clocks, durations = Clocks(), list(seconds)
        monkeypatch.setattr(sampling, "time", clocks)

        def call() -> None:
            assert not gc.isenabled() or made
            clocks.now += durations.pop(0) if len(durations) > 1 else durations[0]

        made: list[Sampler] = []
        made.append(Sampler(call, torch.device("cpu")))
        return made[0]

    yield make
    gc.unfreeze()


def test_the_first_call_is_apart_and_samples_last_long_enough(sampler: Callable[[list[float]], Sampler]) -> None:
    found = sampler([3.0, 0.001])
    assert found.first == pytest.approx(3.0)
    assert 20 <= found.calls <= 30
    sample = found.sample()
    assert (sample.wall, sample.cpu) == pytest.approx((0.001, 0.0005))


def test_a_long_call_is_a_sample(sampler: Callable[[list[float]], Sampler]) -> None:
    assert sampler([1.0, 0.5]).calls == 1


def test_garbage_collection_is_off_within_a_sample_and_on_again_after_it() -> None:
    seen = []
    found = Sampler(lambda: seen.append(gc.isenabled()), torch.device("cpu"))
    seen.clear()
    found._timed(3)
    assert seen == [False] * 3
    assert gc.isenabled()
    gc.unfreeze()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_device_is_timed() -> None:
    square = torch.ones(2048, 2048, device="cuda")
    found = Sampler(lambda: square @ square, torch.device("cuda"))
    assert 1e-6 < found.sample().wall < 1.0


def test_the_columns_are_documented() -> None:
    text = (ROOT / "docs" / "measuring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.*) \|$", text.partition("## Columns")[2], re.MULTILINE)
    assert rows == [(column.name, column.summary, column.unit) for column in COLUMNS]


# --- rounds shared by processes -----------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 9))
def test_rounds_are_shared_out_evenly(rounds: int, starts: int) -> None:
    parts = shares(rounds, starts)
    assert sum(parts) == rounds
    assert len(parts) == min(rounds, starts)
    assert max(parts) - min(parts) <= 1


class Replies:
    """A process that says what it was told to say."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)

    def ask(self, question: str, limit: float) -> Outcome:
        return Outcome("returned", answer={"status": "ok", **self._answers.pop(0)})


def test_of_several_processes_the_first_prepares_and_the_largest_counts() -> None:
    record = {"status": "ok", "samples": {}}
    figures = [(0.9, 5.0, 1), (0.1, 7.0, 0), (0.2, 6.0, 3)]
    for number, (first, peak, extra) in enumerate(figures, 1):
        said = {"memory": {"peak_mib": peak, "call_mib": 10 - peak}, "extra_threads": extra}
        turn = _Turn(record, Replies({"first_call_seconds": first}, {"wall": 1.0, "cpu": 0.5}, said), number, 9.0)  # type: ignore[arg-type]
        turn.prepare()
        turn.sample(number)
        turn.finish()
    assert record["first_call_seconds"] == 0.9
    assert record["memory"] == {"peak_mib": 7.0, "call_mib": 5.0}
    assert record["extra_threads"] == 3
    assert record["samples"] == {"wall": [1.0] * 3, "cpu": [0.5] * 3, "place": [1, 2, 3], "process": [1, 2, 3]}


def test_a_later_process_that_fails_ends_the_row() -> None:
    record = {"status": "ok", "samples": {}}
    turn = _Turn(record, Replies({"status": "error", "cause": "broken"}), 2, 9.0)  # type: ignore[arg-type]
    turn.prepare()
    assert (record["status"], record["cause"], turn.alive) == ("error", "broken", False)


# --- what is asked for --------------------------------------------------------------------------------


def test_python_says_it_as_the_command_line_does() -> None:
    text = {"model": ("lstm", "tcn"), "lengths": "64,128", "batch": "2", "params": "50k", "operation": ("train",)}
    plain = {"models": ["lstm", "tcn"], "lengths": [64, 128], "batch": 2, "params": 50_000, "operations": "train"}
    asked, same = make_spec(text), make_spec(plain)
    assert asked == replace(same, run=replace(same.run, params="50k"))
    assert (asked.rounds, asked.starts, asked.run.timeout) == (30, 3, 600.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seeds": 3}, "seqbench speed: unknown key 'seeds'. Known: backend, batch, "),
        ({"rounds": 0}, "--rounds is 0; expected a whole number of at least 1"),
        ({"starts": 1.5}, "--starts is 1.5; expected a whole number of at least 1"),
        ({"lengths": [64, 64]}, "--lengths is '64,64'; expected different numbers"),
        ({"operation": "trains"}, "Did you mean 'train'?"),
        ({"threads": "two"}, "seqbench speed: threads is 'two'; expected a number"),
    ],
)
def test_what_cannot_be_measured_is_said(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_spec(values)
    assert said in str(caught.value)
