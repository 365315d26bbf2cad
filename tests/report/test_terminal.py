"""The table in the terminal: what stands in it at which width."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from made_up_runs import COPY, failed, full_run, make_record, make_trial
from rich.console import Console

from seqbench.report.collect import collect, read_run
from seqbench.report.terminal import terminal_table, text_tables

EXPECTED_80 = """\
copy/embedded
             recall                Error  Train  Infer  Train  Peak
Model         [%] ↑  Rank  Params      %  tok/s  tok/s      s   MiB  Status
──────────────────────────────────────────────────────────────────────────────
lstm     91.0 ± 2.5   1–2   50.0k    0.0   100k   300k     20    60  ok
tcn           70.00   1–2   52.4k  +4.8!   100k   300k     20    93  1 of 2 ok
gru               –     –   50.0k    0.0      –      –      –     –  not run
rnn               –     –   50.0k    0.0      –      –      –     –  refused

trivial       12.50                                                  reference
optimum       100.0                                                  reference
± half width of the 95 % interval of the mean over seeds (Student's t)
not shown at this width: loss [nats] ↓, Core
warning: tcn: parameters miss the budget of 50,000 by +4.8 %, at width 96
failed: tcn, seed 1: timeout: killed after 60 s
failed: rnn, seeds 0, 1: refused: rnn cannot step"""


def small_run():
    trials = {label: [make_trial(label=label, seed=s) for s in range(2)] for label in ("lstm", "gru", "rnn")}
    trials["tcn"] = [make_trial(label="tcn", seed=s, parameters=52_400) for s in range(2)]
    speed = {"train_tokens_per_s": 1e5, "infer_tokens_per_s": 3e5, "train_seconds": 20.0, "seconds": 21.0}
    records = [make_record(t, score=91.2 - 0.4 * t.seed, speed=speed) for t in trials["lstm"]]
    records += [make_record(trials["tcn"][0], score=70.0, speed=speed)]
    records += [failed(trials["tcn"][1], "timeout", cause="killed after 60 s")]
    records += [failed(t, "refused", cause="rnn cannot step") for t in trials["rnn"]]
    return collect([t for group in trials.values() for t in group], records)


def test_at_80_columns() -> None:
    assert text_tables(small_run(), 80) == EXPECTED_80


def test_at_120_columns_nothing_is_left_out() -> None:
    text = text_tables(small_run(), 120)
    head = text.splitlines()[2].split()
    assert head == [
        "Model", "[%]", "↑", "Rank", "[nats]", "↓", "Params", "Core", "%", "tok/s", "tok/s", "s", "MiB", "Status",
    ]  # fmt: skip
    assert "not shown" not in text


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_rows_fit_and_keep_what_counts(tmp_path: Path, width: int) -> None:
    run = read_run(full_run(tmp_path, (COPY,), ("lstm", "a-model-with-a-long-name[and=many,options=1.0]")))
    lines = text_tables(run, width).splitlines()
    table = lines[: lines.index("± half width of the 95 % interval of the mean over seeds (Student's t)")]
    assert max(map(len, table)) <= width
    assert all("Status" in table[2] and word in "\n".join(table) for word in ("recall", "lstm", "Params"))


def printed(encoding: str, **options: object) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    terminal_table(small_run(), Console(file=file, width=100, **options))
    file.flush()
    return raw.getvalue().decode(encoding)


def test_plain_where_there_is_no_terminal() -> None:
    assert "\x1b" not in printed("utf-8")


def test_colours_in_a_terminal() -> None:
    assert "\x1b[31m" in printed("utf-8", force_terminal=True, color_system="standard")


def test_an_ascii_stream_gets_ascii() -> None:
    assert "91.0 +/- 2.5" in printed("ascii")


def test_brackets_and_escapes_in_names_are_text() -> None:
    trial = make_trial(label="[red]x[/red]\x1b[2J:smile:")
    text = text_tables(collect([trial], [failed(trial, cause="[/bold] \x1b]0;title\x07")]), 100)
    assert "[red]x[/red]:smil" in text
    assert "[/bold]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_the_same_remark_about_several_models_stands_once() -> None:
    trials = [make_trial(label=label, seed=s, advice="warning: mind the gap") for label in "ab" for s in range(2)]
    trials.append(make_trial(label="c"))
    said = {"a": ["by the way"], "b": ["by the way"], "c": []}
    records = [make_record(t, notes=["warning: mind the gap", *said[t.label]]) for t in trials]
    lines = text_tables(collect(trials, records), 100).splitlines()
    assert [line for line in lines if "mind the gap" in line] == ["warning: mind the gap"]  # about all: none is named
    assert [line for line in lines if "by the way" in line] == ["a, b: by the way"]


@pytest.mark.parametrize(("tolerance", "marked"), [(0.02, False), (0.01, True)])
def test_a_size_is_marked_beyond_the_tolerance_that_was_asked_for(tolerance: float, marked: bool) -> None:
    on_the_limit = make_trial(parameters=49_000)
    assert "!" not in text_tables(collect([on_the_limit], [make_record(on_the_limit)]), 120)
    trial = make_trial(parameters=50_750, parameter_tolerance=tolerance)
    text = text_tables(collect([trial], [make_record(trial)]), 120)
    assert ("+1.5!" in text) == marked
    assert ("parameters miss the budget of 50,000 by +1.5 %" in text) == marked


def test_one_seed_is_warned_of() -> None:
    trial = make_trial()
    text = text_tables(collect([trial], [make_record(trial)]), 100)
    assert "warning: one seed: no interval can be given" in text
    assert "half width" not in text


def test_scores_that_are_no_numbers_are_counted() -> None:
    trials = [make_trial(seed=s) for s in range(3)]
    records = [make_record(t) | ({"score": None} if t.seed == 2 else {}) for t in trials]
    assert "the score of 1 of 3 trials is not a number" in text_tables(collect(trials, records), 100)


def test_a_metric_that_nobody_has_takes_no_column() -> None:
    trial = make_trial()
    record = make_record(trial)
    assert "loss" in text_tables(collect([trial], [record]), 160)
    del record["metrics"]["test"]["loss"]
    record["references"] = [{**r, "metrics": {"recall": r["metrics"]["recall"]}} for r in record["references"]]
    shown = text_tables(collect([trial], [record]), 160)
    assert "recall" in shown
    assert "loss" not in shown
