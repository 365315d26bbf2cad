"""Executors: another way to run trials gives the same records; faults are said to be whose they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import seqbench
from seqbench import registry
from seqbench.api import Observer
from seqbench.errors import PluginError, UnknownName, UsageError
from seqbench.executors.chosen import chosen
from seqbench.executors.local import Silent
from seqbench.pipeline import make_plan, resume, start
from seqbench.registry import Registry, Source
from seqbench.spec import RunSpec, Trial
from seqbench.store import RunFolder

PLUGIN = Path(__file__).parent / "plugins" / "backwards.py"
SPEC: dict[str, Any] = {
    "task": ("copy[T=5]",), "model": ("rnn", "gru"), "params": "1500", "budget": "3steps", "seeds": "2",
    "plugin": (str(PLUGIN),),
}  # fmt: skip


@pytest.fixture(scope="module")
def found() -> Registry:
    """As if a distribution had brought the plugin."""
    loaded = registry.load([PLUGIN])
    for name in set(loaded.executors) - {"local"}:
        loaded.origin["executor", name] = Source("plug", "cluster", "1.2")
    return loaded


class Diary(Silent):
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def started(self, trial: Trial) -> None:
        self.told.append(("started", trial.id))

    def finished(self, trial: Trial, record: dict[str, Any]) -> None:
        self.told.append((record["status"], trial.id))


def records(folder: RunFolder) -> dict[str, Any]:
    """All of the records but clocks, memory and what is about the file."""
    kept = {}
    for record in folder.records():
        for part in ("speed", "memory", "checksum"):
            record.pop(part)
        for curve in record["curve"].values():
            curve.pop("seconds")
        kept[record["id"]] = json.dumps(record, sort_keys=True)
    return kept


def test_another_order_gives_the_same_records(tmp_path: Path, found: Registry) -> None:
    diary = Diary()

    def watch(trials: Any, folder: RunFolder) -> Observer:
        return diary

    plans = [make_plan(RunSpec(**SPEC, executor=name, out=str(tmp_path)), found) for name in ("local", "backwards")]
    forwards, backwards = start(plans[0], found), start(plans[1], found, watch)
    ids = [trial.id for trial in plans[1].trials]
    assert len(ids) == 4
    assert diary.told == [(what, id_) for id_ in reversed(ids) for what in ("started", "ok")]
    assert forwards.ok
    assert backwards.ok
    assert records(forwards.folder) == records(backwards.folder)
    assert 'executor = "backwards"' in (backwards.path / "spec.toml").read_text(encoding="utf-8")
    (backwards.path / "trials" / f"{ids[1]}.json").unlink()
    assert resume(backwards.path, found, watch).ok
    assert diary.told[8:] == [("started", ids[1]), ("ok", ids[1])], "resumed by the same executor"


def test_what_an_executor_leaves_out_is_not_run(tmp_path: Path) -> None:
    results = seqbench.run(**{**SPEC, "seeds": 1}, executor="lazy", out=tmp_path)
    assert not results.ok
    assert set(results.frame["status"]) == {"not_run"}


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("locale", UnknownName, r"There is no executor 'locale'\. Did you mean 'local'\?"),
        ("nowhere", PluginError, r"^executor 'nowhere' of cluster 1\.2: cannot load 'no_such_package:run'"),
    ],
)
def test_an_executor_that_is_not_there(found: Registry, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_plan(RunSpec(**SPEC, executor=name), found)


def test_faults_of_an_executor_name_its_distribution(tmp_path: Path, found: Registry) -> None:
    arguments: Any = ([], RunFolder(tmp_path), 1, 1.0, Silent())
    with pytest.raises(UsageError, match=r"^The cluster cannot be reached; try again\.$"):
        chosen("absent", found)(*arguments)
    with pytest.raises(PluginError) as caught:
        chosen("broken", found)(*arguments)
    assert str(caught.value) == (
        "executor 'broken' of cluster 1.2 failed: KeyError: 'a planted fault'; finished trials are safe, "
        f"go on with: seqbench run --resume {tmp_path}"
    )


def test_an_interrupt_passes(tmp_path: Path, found: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "resolve", lambda factory: interrupted)
    with pytest.raises(KeyboardInterrupt):
        chosen("local", found)([], RunFolder(tmp_path), 1, 1.0, Silent())


def test_without_the_harness_own_plugin_a_hint_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_PLUGINS", "seqbench:models")
    with pytest.raises(UnknownName, match=r"There is no executor 'local'.*\(SEQBENCH_PLUGINS is 'seqbench:models'\)"):
        registry.load().executor("local")
