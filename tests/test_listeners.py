"""Training events: what listeners are told, and that nothing they do or fail to do changes a number."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import seqbench
from seqbench.errors import SpecError, UnknownName, UsageError
from seqbench.listeners import Listeners, check
from seqbench.pipeline import resume
from seqbench.registry import Registry, Source, load
from seqbench.report.collect import read_run
from seqbench.report.messages import notes
from seqbench.spec import Trial, trial_from_dict, trial_to_dict
from seqbench.store import RunFolder
from seqbench.verify import Request, verify

PLUGIN = Path(__file__).parent / "plugins" / "listening.py"
FAULTY = {
    "at-start": "start: ValueError: a planted fault of two lines",
    "at-step": "step 1: SystemExit: bye",
    "at-validation": "the validation after step 2: KeyError: 'mse'",
    "at-end": "the end: RuntimeError: the disk is full",
    "no-listener": "start: PluginError: expected a seqbench.api.Listener, got NoListener",
}
SPEC: dict[str, Any] = {
    "task": "copy[T=5]", "model": "lstm[dropout=0.3]", "params": "1500", "budget": "30steps", "plugin": PLUGIN,
}  # fmt: skip


def numbers(folder: RunFolder) -> dict[str, Any]:
    """All that must not depend on who listens."""
    found = {}
    for trial in folder.trials():
        record = folder.record(trial.id)
        assert record is not None
        for clock in ("speed", "memory", "checksum", "events", "sha256"):
            record.pop(clock, None)
        record["trial"].pop("events", None)
        for curve in record["curve"].values():
            curve.pop("seconds")
        found[trial.id] = record, {name: array.tobytes() for name, array in folder.arrays(trial.id).items()}
    return found


@pytest.fixture(scope="module")
def unheard(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return seqbench.run(**SPEC, seeds=1, out=tmp_path_factory.mktemp("unheard")).folder


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    events = ["meddler", *FAULTY, "mute", "diary"]
    return seqbench.run(**SPEC, seeds=1, events=events, out=tmp_path_factory.mktemp("heard")).folder


def diary(folder: RunFolder, trial: Trial) -> list[tuple[str, int, dict[str, Any]]]:
    lines = (folder.path / "events" / "diary" / trial.id / "diary.jsonl").read_text(encoding="utf-8").splitlines()
    return [tuple(json.loads(line)) for line in lines]


# --- a run ----------------------------------------------------------------------------------------------


def test_the_numbers_are_the_same_bits_whoever_listens(unheard: RunFolder, heard: RunFolder) -> None:
    before = numbers(unheard)
    ((record, arrays),) = before.values()
    assert record["status"] == "ok"
    assert len(arrays) > 3
    assert numbers(heard) == before, "and so are the ids"


def test_a_listener_is_told_what_the_record_says(heard: RunFolder) -> None:
    (trial,) = heard.trials()
    record = heard.record(trial.id)
    assert record is not None
    (started, *told, finished) = diary(heard, trial)
    assert started[:2] == ("started", 30)
    assert (started[2]["label"], started[2]["seed"]) == ("lstm[dropout=0.3]", 0)
    assert trial_from_dict(started[2]["trial"]) == trial
    curve = record["curve"]
    trained = [(step, said) for what, step, said in told if what == "trained"]
    assert [step for step, _ in trained] == curve["train"]["step"] == list(range(1, 31))
    for name in ("loss", "seconds"):
        assert [said[name] for _, said in trained] == curve["train"][name]
    assert all(said["gradient_norm"] > 0 and said["lr"] > 0 for _, said in trained)
    validated = [(step, said["loss"]) for what, step, said in told if what == "validated"]
    assert validated == list(zip(curve["valid"]["step"], curve["valid"]["loss"], strict=True))
    end = finished[2]
    assert (end["score"], end["metrics"]) == (record["score"], record["metrics"])


def test_each_fault_is_a_note_that_names_whose_it_is(heard: RunFolder) -> None:
    (record,) = heard.records()
    source = str(PLUGIN)
    said = [f"warning: listener {name!r} of {source} was dropped at {what}" for name, what in FAULTY.items()]
    assert sorted(record["events"]) == sorted(said)
    assert all(any(fault in note.text for note in notes(read_run(heard, load()).tasks[0])) for fault in FAULTY.values())
    assert "a planted fault" in heard.log_path(record["id"]).read_text(encoding="utf-8")


def test_a_replay_finds_the_same_bits(heard: RunFolder) -> None:
    findings = []
    assert verify(heard, Request(), findings.append), findings
    assert [finding.verdict for finding in findings] == ["bit-equal"]


def test_a_replay_has_no_listeners(heard: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[Trial] = []
    monkeypatch.setattr("seqbench.verify.run_local", lambda trials, *rest: replayed.extend(trials))
    verify(heard, Request(), lambda finding: None)
    assert [trial.events for trial in replayed] == [()]


def test_the_spec_file_and_resume_name_the_listeners(heard: RunFolder, tmp_path: Path) -> None:
    assert 'events = ["meddler", ' in (heard.path / "spec.toml").read_text(encoding="utf-8")
    folder = seqbench.run(**SPEC, seeds=2, events="diary", out=tmp_path).folder
    first, second = folder.trials()
    kept = diary(folder, first)
    (folder.path / "trials" / f"{second.id}.json").unlink()  # as if it had been interrupted, its files half written
    (folder.path / "events" / "diary" / second.id / "half").touch()
    assert resume(folder.path, load([PLUGIN])).ok
    assert diary(folder, first) == kept
    assert [what for what, _, _ in diary(folder, second)].count("started") == 1
    assert [path.name for path in (folder.path / "events" / "diary" / second.id).iterdir()] == ["diary.jsonl"]


# --- before a run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "error", "message"),
    [
        (["diry"], UnknownName, "There is no listener 'diry'. Did you mean 'diary'?"),
        (["diary", "diary"], SpecError, "--events diary diary: a listener is named twice"),
        (
            ["nowhere"],
            UsageError,
            r"^listener 'nowhere' of .*listening\.py cannot be had: cannot load 'no_such",
        ),
    ],
)
def test_who_cannot_listen_is_said_before_anything_is_trained(
    tmp_path: Path, events: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        seqbench.run(**SPEC, events=events, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_listeners_own_message_is_not_wrapped(tmp_path: Path) -> None:
    plugin = tmp_path / "needy.py"
    plugin.write_text(
        "from seqbench.api import ListenerCard, UsageError, hookimpl\n"
        "def __getattr__(name):\n    raise UsageError('install it')\n"
        "@hookimpl\ndef register_listeners(register):\n"
        "    register.listener(ListenerCard('needy', 's', f'{__name__}:Class'))\n",
        encoding="utf-8",
    )
    assert check(["needy"], [str(plugin)]) == "install it"
    assert check([], [str(plugin)]) == ""


# --- one trial ------------------------------------------------------------------------------------------


def test_a_fault_names_distribution_and_version_and_is_the_last(tmp_path: Path, example_trial: Trial) -> None:
    loaded = load([PLUGIN])
    origin = {key: Source("ears", "loud", "1.2") for key in loaded.origin}
    cards = Registry(listeners=loaded.listeners, origin=origin)
    listeners = Listeners("cpu")
    trial = replace(example_trial, events=("at-step", "gone"))
    listeners.start(cards, trial, 30, RunFolder(tmp_path))
    for step in (3, 4):
        listeners.trained(step, {"loss": 1.0})
    listeners.finished({"metrics": {}})
    gone, at_step = listeners.faults
    assert at_step == "warning: listener 'at-step' of loud 1.2 was dropped at step 3: SystemExit: bye"
    assert gone.startswith("warning: listener 'gone' of no plugin that is installed was dropped at start: UnknownName:")


def test_listeners_are_in_the_record_only_where_there_are_any(example_trial: Trial) -> None:
    assert "events" not in trial_to_dict(example_trial), "records are as they were before there were listeners"
    listening = replace(example_trial, events=("diary",))
    assert trial_from_dict(json.loads(json.dumps(trial_to_dict(listening)))) == listening
    assert trial_from_dict(trial_to_dict(example_trial)) == example_trial


# --- tensorboard ----------------------------------------------------------------------------------------


def test_tensorboard_reads_back_the_curves(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = seqbench.run(**SPEC, seeds=1, events="tensorboard", out=tmp_path).folder
    (record,) = folder.records()
    assert "events" not in record, "no fault"
    read = accumulator.EventAccumulator(str(folder.path / "events" / "tensorboard" / record["id"])).Reload()
    curve = record["curve"]
    assert set(read.Tags()["scalars"]) == {
        *(f"train/{name}" for name in ("loss", "lr", "gradient_norm", "seconds")),
        *(f"valid/{name}" for name in curve["valid"] if name not in {"step", "seconds"}),
        *(f"test/{name}" for name in record["metrics"]["test"]),
    }
    for tag, wanted in {"train/loss": curve["train"]["loss"], "valid/recall": curve["valid"]["recall"]}.items():
        points = read.Scalars(tag)
        assert [point.value for point in points] == pytest.approx(wanted, rel=1e-6), "float32 there"
        assert [point.step for point in points] == curve[tag.partition("/")[0]]["step"]
    (test,) = read.Scalars("test/recall")
    assert (test.step, test.value) == (30, pytest.approx(record["score"], rel=1e-6))


def test_without_the_extra_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for module in ("event_file", "listener"):
        monkeypatch.delitem(sys.modules, f"seqbench_tensorboard.{module}", raising=False)
    said = check(["tensorboard"], [])
    assert said.startswith("TensorBoard's event files need the package tensorboard (")
    assert said.endswith("): pip install 'seqbench[tensorboard]'.")
