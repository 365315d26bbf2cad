"""Whole runs, as a user makes them: the command line, interruptions, failures, the same bits again."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import seqbench
from seqbench.store import RunFolder

HERE = Path(__file__).parent
FAULTY = HERE / "plugins" / "faulty_models.py"
TINY = {"params": "1500", "budget": "4steps", "seeds": 2}


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "seqbench", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=240, check=False, **options)


def numbers(path: Path) -> dict[str, Any]:
    """Everything in a run that must be the same every time: no clocks, no memory, no log (nor a checksum over them)."""
    folder = RunFolder.open(path)
    found = {}
    for record in folder.records():
        for volatile in ("speed", "memory", "log_tail", "checksum"):
            record.pop(volatile, None)
        for curve in record.get("curve", {}).values():
            curve.pop("seconds", None)
        arrays = {name: array.tobytes() for name, array in folder.arrays(record["id"]).items()}
        found[record["id"]] = (json.dumps(record, sort_keys=True), arrays)
    return found


def test_three_tasks_from_the_command_line(tmp_path: Path) -> None:
    tasks = [word for task in ("copy[T=5]", "adding[T=8]", "char-lm[window=16,sample=20]") for word in ("--task", task)]
    models = ["--model", "gru", "--model", "tcn", "--model", "transformer"]
    small = ["--params", "3k", "--budget", "4steps", "--seeds", "1", "--out", str(tmp_path)]
    done = command("run", *tasks, *models, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = tmp_path.iterdir()
    with (folder / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["task"] for row in rows} == {
        "copy[T=5]/embedded",
        "adding[T=8]/embedded",
        "char-lm[sample=20,window=16]/embedded",
    }
    for row in rows:
        assert float(row["score"]) >= 0
        assert float(row["train_tokens_per_s"]) > 0
        assert float(row["infer_tokens_per_s"]) > 0
        assert float(row["peak_memory_mib"]) > 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 3
    assert "Generated text" in page
    for name in ("gru", "tcn", "transformer", "trivial", "optimum"):
        assert name in done.stdout


def test_the_report_is_made_anew_with_the_same_bytes(tmp_path: Path) -> None:
    results = seqbench.run(task="copy[T=5]", model="rnn", out=tmp_path, **TINY)
    before = {name: (results.path / name).read_bytes() for name in ("report.html", "results.csv")}
    for name in before:
        (results.path / name).unlink()
    done = command("report", str(results.path))
    assert done.returncode == 0, done.stderr
    assert before == {name: (results.path / name).read_bytes() for name in before}


@pytest.mark.slow
def test_same_bits_whatever_the_number_of_jobs(tmp_path: Path) -> None:
    spec = {"task": "char-lm[window=16,sample=20]", "models": ["lstm[dropout=0.3]", "tcn", "transformer[dropout=0.1]"]}
    one, two = (seqbench.run(**spec, **TINY, jobs=jobs, out=tmp_path / str(jobs)) for jobs in (1, 2))
    first = numbers(one.path)
    assert len(first) == 6
    assert first == numbers(two.path)


def test_seeds_differ_and_models_see_the_same_data(tmp_path: Path) -> None:
    results = seqbench.run(task="copy[T=5]", models=["rnn"], out=tmp_path, **TINY)
    first, second = results.frame["test_loss"]
    assert first != second


@pytest.mark.slow
def test_killed_run_is_finished_by_resume_with_the_same_numbers(tmp_path: Path) -> None:
    spec = ["--task", "copy[T=5]", "--model", "rnn", "--model", "gru", "--seeds", "3", "--params", "1500"]
    spec += ["--budget", "150steps", "--jobs", "1"]
    whole = command("run", *spec, "--out", str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    line = [sys.executable, "-m", "seqbench", "run", *spec, "--out", str(tmp_path / "cut")]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        finished = wait_for_records(tmp_path / "cut", 2)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs([p for p in family if p.is_running()], timeout=15)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE], "trials must not outlive a killed program"
    (folder,) = (tmp_path / "cut").iterdir()
    assert finished <= len(list((folder / "trials").glob("*.json"))) < 6
    kept = {path: path.stat().st_mtime_ns for path in (folder / "trials").glob("*.json")}
    resumed = command("run", "--resume", str(folder))
    assert resumed.returncode == 0, resumed.stderr
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in (folder / "trials").glob("*.json")}.items()
    (uncut,) = (tmp_path / "whole").iterdir()
    assert len(numbers(folder)) == 6
    assert numbers(folder) == numbers(uncut)


def wait_for_records(out: Path, count: int) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = len(list(out.glob("*/trials/*.json")))
        if found >= count:
            return found
        time.sleep(0.02)
    raise AssertionError("the run made no progress")


@pytest.mark.slow
def test_every_way_to_fail_is_a_row_and_the_others_are_right(tmp_path: Path) -> None:
    faults = ("raise", "nan", "hang", "exit", "kill", "memory")
    models = ["rnn", *(f"faulty[fault={fault}]" for fault in (*faults, "construct")), "looks-ahead"]
    spec = {"task": "copy[T=5]", "seeds": "0,", "params": "1500", "budget": "4steps", "plugin": FAULTY}
    results = seqbench.run(models=models, timeout=15, out=tmp_path / "a", **spec)
    assert not results.ok
    rows = results.frame.set_index("model")
    statuses = {fault: rows.loc[f"faulty[fault={fault}]", "status"] for fault in faults}
    assert statuses == {
        "raise": "error",
        "nan": "diverged",
        "hang": "timeout",
        "exit": "error",
        "kill": "killed",
        "memory": "out_of_memory",
    }
    causes = rows["cause"]
    assert causes["faulty[fault=raise]"] == "faulty of faulty_models.py: ValueError: a planted fault <b>"
    assert "at step 3" in causes["faulty[fault=nan]"]
    assert "--timeout" in causes["faulty[fault=hang]"]
    assert "exit code 5" in causes["faulty[fault=exit]"]
    assert "SIGKILL" in causes["faulty[fault=kill]"]
    assert rows.loc["looks-ahead", "status"] == "refused"
    assert "causal" in causes["looks-ahead"]
    log = {r["trial"]["label"]: r.get("log_tail") for r in results.folder.records()}
    assert "in fail" in log["faulty[fault=raise]"], "the traceback is in the log"
    constructor = rows.loc["faulty[fault=construct]"]
    said = "faulty of faulty_models.py: NameError: a planted fault"
    assert (constructor["status"], constructor["cause"]) == ("error", said)
    assert "in make_core" in log["faulty[fault=construct]"]
    page = (results.path / "report.html").read_text(encoding="utf-8")
    assert "a planted fault &lt;b&gt;" in page
    alone = seqbench.run(model="rnn", out=tmp_path / "b", **{**spec, "plugin": ()})
    ((record, arrays),) = numbers(alone.path).values()
    (other,) = (pair for id_, pair in numbers(results.path).items() if "-rnn-" in id_)
    assert arrays == other[1]
    assert json.loads(record)["metrics"] == json.loads(other[0])["metrics"]


def test_faults_of_a_task_stay_in_its_rows(tmp_path: Path) -> None:
    faults = ("none", "prepare", "probe", "diagnose", "score", "metric", "references")
    tasks = [f"last[fault={fault}]" for fault in faults]
    results = seqbench.run(
        tasks=tasks, model="gru", seeds=1, params="500", budget="3steps", plugin=HERE / "plugins" / "faulty_tasks.py",
        out=tmp_path,
    )  # fmt: skip
    records = dict(zip(faults, results.folder.records(), strict=True))
    assert {fault: record["status"] for fault, record in records.items()} == {
        "none": "ok",
        "prepare": "error",
        "probe": "ok",
        "diagnose": "ok",
        "score": "diverged",
        "metric": "error",
        "references": "error",
    }
    said = "last of faulty_tasks.py: "
    assert records["prepare"]["cause"] == records["references"]["cause"] == f"{said}ValueError: a planted fault"
    assert "steps" not in records["references"], "found before training, not after"
    for fault in ("probe", "diagnose"):
        assert records[fault]["score"] == records["none"]["score"]
        assert records[fault]["notes"] == ["warning: no diagnosis of gru: ValueError: a planted fault"]
    kept = results.folder.arrays(records["none"]["id"], "task/")
    np.testing.assert_array_equal(kept["untrained/draw"], kept["trained/draw"])
    assert (kept["untrained/weights"] != kept["trained/weights"]).any()
    assert "test score mse is nan" in records["score"]["cause"]
    assert records["metric"]["cause"] == f"{said}task last: evaluate gives no mse; its card promises it"


def test_plugin_files_are_pinned_for_resume_and_not_needed_for_reports(tmp_path: Path) -> None:
    plugin = tmp_path / "pinned.py"
    plugin.write_bytes(FAULTY.read_bytes())
    spec = {"task": "copy[T=5]", "model": "faulty", "seeds": 2, "params": "1500", "budget": "3steps"}
    results = seqbench.run(**spec, plugin=plugin, out=tmp_path / "out")
    first = min((results.path / "trials").glob("*.json"))
    first.unlink()
    plugin.write_text(plugin.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    done = command("run", "--resume", str(results.path))
    assert done.returncode == 2
    assert "pinned.py has changed since the run was planned; start a new run" in done.stderr
    assert not first.exists()
    plugin.unlink()
    done = command("report", str(results.path))
    assert done.returncode == 1, "a trial is missing"
    assert "faulty" in done.stdout


@pytest.mark.data
def test_resume_without_the_data_stops_and_makes_no_row(tmp_path: Path) -> None:
    data = tmp_path / "data"
    source = Path(os.environ.get("SEQBENCH_DATA") or "nowhere") / "shakespeare" / "input.txt"
    if not source.is_file():
        pytest.skip("SEQBENCH_DATA names no folder with shakespeare")
    (data / "shakespeare").mkdir(parents=True)
    (data / "shakespeare" / "input.txt").write_bytes(source.read_bytes())
    results = seqbench.run(
        task="char-lm[window=16,sample=0]", dataset="shakespeare", model="rnn", seeds=1, params="3k", budget="2steps",
        data_dir=data, out=tmp_path / "out",
    )  # fmt: skip
    assert results.ok
    (record,) = (results.path / "trials").glob("*.json")
    record.unlink()
    (data / "shakespeare" / "input.txt").unlink()
    environment = {**os.environ, "SEQBENCH_OFFLINE": "1", "SEQBENCH_CACHE": str(tmp_path)}
    environment.pop("SEQBENCH_DATA")
    done = command("run", "--resume", str(results.path), env=environment)
    assert done.returncode == 2
    assert "seqbench data fetch shakespeare" in done.stderr
    assert not record.exists()


def test_a_run_that_is_running_cannot_be_resumed(tmp_path: Path) -> None:
    results = seqbench.run(task="copy[T=5]", model="rnn", out=tmp_path, **TINY)
    with RunFolder.open(results.path).locked():
        done = command("run", "--resume", str(results.path))
    assert done.returncode == 2
    assert "Another seqbench is running the trials of" in done.stderr


def test_a_failed_trial_gives_exit_code_1(tmp_path: Path) -> None:
    done = command(
        *("run", "--task", "copy[T=5]", "--model", "faulty[fault=raise]", "--plugin", str(FAULTY)),
        *("--seeds", "1", "--params", "1500", "--budget", "4steps", "--out", str(tmp_path)),
    )
    assert done.returncode == 1
    assert "ValueError: a planted fault <b>" in done.stdout


@pytest.mark.slow
def test_seconds_become_steps_that_a_replay_uses(tmp_path: Path) -> None:
    spec = {"task": "copy[T=5]", "model": "rnn", "seeds": 2, "params": "1500", "budget": "0.2s"}
    first = seqbench.run(**spec, out=tmp_path)
    (steps,) = set(first.frame["steps"])
    assert steps > 1, "and all seeds of a row have the same schedule"
    done = command("run", str(first.path / "spec.toml"))
    assert done.returncode == 0, done.stderr
    (second,) = (path for path in tmp_path.iterdir() if path != first.path)
    for again, before in zip(RunFolder.open(second).records(), first.folder.records(), strict=True):
        assert again["steps"] == steps
        assert again["metrics"] == before["metrics"]


def test_a_script_without_the_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import seqbench\n"
        "print('once')\n"
        f"results = seqbench.run(task='copy[T=5]', model='rnn', seeds=1, params=1500, budget='2steps', "
        f"out={str(tmp_path / 'out')!r})\n"
        "print(len(results.frame), results.ok)\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["once", "1", "True"], done.stderr


def test_weights_are_stored_and_are_the_tested_ones(tmp_path: Path) -> None:
    import torch

    from seqbench.losses import loss_of
    from seqbench.predict import NetworkPredictor
    from seqbench.spec import trial_from_dict
    from seqbench.trial import find, make_network

    results = seqbench.run(task="copy[T=5]", model="gru", out=tmp_path, **TINY)
    stored = results.folder.run()["trials"][1]
    trial = trial_from_dict(stored)
    cast = find(trial)
    network = make_network(trial, cast)
    weights = results.folder.arrays(trial.id, "weights/")
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    predict = NetworkPredictor(network, cast.card, cast.form, loss_of(cast.task, cast.form))
    measured = cast.task.evaluate(predict, "test")
    record = results.folder.record(trial.id)
    assert record is not None
    np.testing.assert_allclose(measured["loss"], record["metrics"]["test"]["loss"], rtol=1e-5)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupt_kills_the_trials_and_says_how_to_go_on(tmp_path: Path) -> None:
    line = [sys.executable, "-X", "faulthandler", "-m", "seqbench", "run"]
    line += ["--task", "copy[T=5]", "--model", "faulty[fault=hang]"]
    line += ["--plugin", str(FAULTY), "--seeds", "2", "--params", "1500", "--out", str(tmp_path)]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are told to ignore it
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*/logs/*.log")) and time.monotonic() < deadline:
            time.sleep(0.05)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        try:
            _, error = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler then says where each thread is
            raise AssertionError(process.communicate(timeout=60)[1]) from None
    assert process.returncode == 130
    (folder,) = tmp_path.iterdir()
    assert f"seqbench run --resume {folder}" in error
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
