"""The speed phase of a run: the networks whose scores it has, at the length and batches of their training."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import seqbench
from seqbench import registry
from seqbench.cli import cli
from seqbench.errors import UsageError
from seqbench.report.collect import read_run
from seqbench.report.speeds.stored import latencies, stored_speeds
from seqbench.speed.of_run import specs_of
from seqbench.speed.run import make_plan
from seqbench.store import RunFolder

MODELS = ("gru", "rnn[nonlinearity=relu]")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("run")
    tasks = ["copy[T=4]", "adding[T=9]"]
    options = {"params": "2k", "budget": "2steps", "batch": 8, "seeds": 1}
    return seqbench.run(tasks=tasks, models=list(MODELS), out=out, **options).folder


def speed(*words: object) -> Result:
    return CliRunner().invoke(cli, ["speed", *map(str, words)])


def test_every_task_is_measured_as_it_was_trained(run: RunFolder) -> None:
    copy, adding = specs_of(run, {})
    assert (copy.lengths, copy.batches, copy.run.params) == ((24,), (1, 8), "2000")
    assert (adding.lengths, adding.batches, adding.run.task) == ((9,), (1, 8), ("adding[T=9]",))
    assert copy.run.model == ("gru", "rnn[nonlinearity=relu]")
    assert specs_of(run, {"data_dir": "elsewhere"})[0].run.data_dir == "elsewhere", "files may lie elsewhere now"
    longer = specs_of(run, {"lengths": "24,48", "backend": ("torch", "numba")})[0]
    assert (longer.lengths, longer.run.backend) == ((24, 48), ("torch", "numba"))


def test_what_the_run_says_cannot_be_said_again(run: RunFolder) -> None:
    for name, value in (("model", ("gru",)), ("params", "3k"), ("out", "x")):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is what the run says"):
            specs_of(run, {name: value})
    done = speed(run.path, "--task", "copy")
    assert done.exit_code == 2
    assert "leave out the run" in done.output


def test_its_report_and_summary_show_what_was_measured(run: RunFolder) -> None:
    done = speed(run.path, "--rounds", 1, "--starts", 1, "--operation", "infer", "--operation", "step")
    assert done.exit_code == 0, done.output
    phases = stored_speeds(run.path)
    assert set(phases) == {"copy[T=4]/embedded", "adding[T=9]/embedded"}
    widths = {trial.label: trial.width for trial in run.trials() if trial.task == "copy"}
    rows = phases["copy[T=4]/embedded"]["rows"]
    assert {row["label"]: row["width"] for row in rows} == widths
    with (run.path / "summary.csv").open(encoding="utf-8") as file:
        table = {(row["task"], row["model"]): row for row in csv.DictReader(file)}
    (wall,) = [r["wall"]["median"] for r in rows if (r["label"], r["operation"], r["batch"]) == ("gru", "infer", 1)]
    assert float(table["copy[T=4]/embedded", "gru"]["infer_latency_ms"]) == pytest.approx(1e3 * wall)
    assert float(table["copy[T=4]/embedded", "gru"]["step_latency_us"]) > 0
    assert table["adding[T=9]/embedded", "gru"]["step_latency_us"] == "", "one answer a sequence: no stream"
    assert table["copy[T=4]/embedded", "trivial"]["infer_latency_ms"] == ""


def test_a_run_without_a_finished_trial_is_refused(run: RunFolder, tmp_path: Path) -> None:
    empty = RunFolder.create(tmp_path, "empty")
    empty.write_run(run.run())
    done = speed(empty.path)
    assert done.exit_code == 2
    assert "has ended well yet; finish the run first" in done.output
    finished = next(trial for trial in run.trials() if trial.task == "adding")
    empty.write_record(finished.id, run.record(finished.id) or {})
    said: list[str] = []
    (adding,) = specs_of(empty, {}, said.append)
    assert adding.run.task == ("adding[T=9]",)
    assert said == ["copy[T=4]/embedded is left out: none of its trials has ended well yet"]


def row(label: str = "gru", operation: str = "infer", length: int = 10, batch: int = 1, **other: Any) -> dict[str, Any]:
    known = {"label": label, "backend": "torch", "operation": operation, "length": length, "batch": batch}
    return {**known, "status": "ok", "wall": {"median": length / 1000}, **other}


def test_latencies_of_all_models_are_at_the_same_length() -> None:
    """That of training, or, where the phase does not have it, the longest; a model that failed there has none."""
    rows = [row(length=20), row(length=90), row("lstm", length=20), row("lstm", length=90, status="out_of_memory")]
    rows += [row(length=500, batch=8), row(operation="step", length=40), row(backend="numba", length=20)]
    phase = {"rows": rows}
    assert latencies(phase, "gru", "torch", trained=20) == {"infer": 0.02, "step": 0.001}
    assert latencies(phase, "lstm", "torch", trained=20) == {"infer": 0.02}
    assert latencies(phase, "gru", "torch", trained=7) == {"infer": 0.09, "step": 0.001}
    assert latencies(phase, "lstm", "torch", trained=7) == {}
    assert latencies(phase, "gru", "numba", trained=None) == {}
    assert latencies(phase, "tcn", "torch", trained=20) == {}


def test_a_phase_that_was_interrupted_replaces_none_that_was_not(tmp_path: Path) -> None:
    for name, complete in (("1", False), ("2", True), ("3", False)):
        path = tmp_path / "speed" / name / "speed.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"task": "a", "complete": complete, "rows": [], "name": name}), encoding="utf-8")
    assert stored_speeds(tmp_path)["a"]["name"] == "2"
    (tmp_path / "speed" / "2" / "speed.json").unlink()
    assert stored_speeds(tmp_path)["a"]["name"] == "3"


def test_a_model_against_itself_is_not_measured_by_this(run: RunFolder, tmp_path: Path) -> None:
    stored = run.run()
    twins = RunFolder.create(tmp_path, "twins")
    twins.write_run(stored | {"spec": {**stored["spec"], "aa": "gru"}})
    with pytest.raises(UsageError, match="one model under two names"):
        specs_of(twins, {})


def test_only_what_the_run_trained_is_measured(run: RunFolder, tmp_path: Path) -> None:
    """As after ``--backend auto``: one backend for one model, another for another."""
    stored = run.run()
    trials = [t for t in stored["trials"] if t["task"] == "copy"]
    mixed = RunFolder.create(tmp_path, "mixed")
    mixed.write_run(
        stored | {"trials": [{**t, "backend": "numba" if t["model"] == "gru" else "torch"} for t in trials]}
    )
    done = next(t for t in run.trials() if t.task == "copy")
    mixed.write_record(mixed.trials()[0].id, run.record(done.id) or {})
    (spec,) = specs_of(mixed, {})
    plan = make_plan(spec, registry.load())
    assert {(s.trial.label, s.trial.backend) for s in plan.subjects} == {
        ("gru", "numba"), ("rnn[nonlinearity=relu]", "torch")
    }  # fmt: skip
    (both,) = specs_of(mixed, {"backend": ("torch",)})
    assert both.rows == ()


def test_a_plugin_that_has_changed_is_refused(run: RunFolder, tmp_path: Path) -> None:
    """The latency of other code than that of the score would stand beside it."""
    plugin = tmp_path / "own.py"
    plugin.write_text("# changed", encoding="utf-8")
    stored = run.run()
    other = RunFolder.create(tmp_path, "other")
    other.write_run(stored | {"trials": [{**t, "plugins": {str(plugin): "0" * 64}} for t in stored["trials"]]})
    for trial, old in zip(other.trials(), run.trials(), strict=True):
        other.write_record(trial.id, run.record(old.id) or {})
    with pytest.raises(UsageError, match="has changed since the run was planned"):
        specs_of(other, {})


def test_the_newest_phase_of_a_task_counts(run: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "again")
    folder.write_run(run.run())
    for name, seconds in (("20260102", 2.0), ("20260101", 1.0)):
        path = folder.path / "speed" / f"{name}-speed" / "speed.json"
        path.parent.mkdir(parents=True)
        measured = row(samples={"wall": [seconds], "cpu": [seconds]}, memory={"call_mib": 0.0})
        data = {"task": "copy[T=4]/embedded", "complete": True, "rows": [measured]}
        path.write_text(json.dumps(data), encoding="utf-8")
    copy, adding = read_run(folder).tasks
    assert [r.latency.get("infer", math.nan) for r in copy.rows if r.label == "gru"] == [2.0]
    assert adding.speed is None
    assert adding.rows[0].latency == {}
