"""Subjects measured in turns: each in a process of its own, one at work at a time, in another order every round."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqbench.executors.supervise import death
from seqbench.process import Servant
from seqbench.speed.spec import Subject

Record = dict[str, Any]


class _Turn:
    """A subject, its process and its record so far."""

    def __init__(self, subject: Subject, servant: Servant, limit: float) -> None:
        self.record: Record = record_of(subject, "ok", "")
        self._servant, self._limit = servant, limit

    @property
    def alive(self) -> bool:
        return bool(self.record["status"] == "ok")

    def ask(self, question: str) -> Record:
        """The answer; what went wrong instead becomes the record's status and cause."""
        outcome = self._servant.ask(question, self._limit)
        if outcome.kind == "returned":
            answer: Record = outcome.answer
        else:
            answer = death(outcome, self._limit, "leave out the longest --lengths")
        if answer["status"] != "ok":
            self.record |= answer
        return answer

    def prepare(self) -> None:
        self.record |= self.ask("prepare")

    def sample(self, place: int) -> None:
        """Take one; ``place`` tells when, among all samples of the group."""
        answer = self.ask("sample")
        if self.alive:
            for name, value in {"wall": answer["wall"], "cpu": answer["cpu"], "place": place}.items():
                self.record["samples"].setdefault(name, []).append(value)

    def finish(self) -> None:
        self.record |= self.ask("finish")


def record_of(subject: Subject, status: str, cause: str) -> Record:
    """The record of a subject, without figures yet."""
    trial = asdict(subject.trial)
    named = {key: trial[key] for key in ("label", "backend", "device", "threads", "width", "layers", "model_options")}
    what = {"operation": subject.operation, "length": subject.length, "batch": subject.batch}
    return {**named, **what, "status": status, "cause": cause, "samples": {}}


def measure(group: Sequence[Subject], rounds: int, limit: float, logs: Path, order: random.Random) -> list[Record]:
    """Measure the subjects of a group, interleaved.

    Args:
        group: what may be compared with one another.
        rounds: samples of each.
        limit: seconds that a subject may take for getting ready, or for one sample.
        logs: folder that gets what each process prints.
        order: shuffles, once for getting ready and anew in each round.

    Returns:
        A record for each subject, in the order of ``group``.
    """
    records = {subject.name: _refusal(subject) for subject in group}
    with ExitStack() as stack:
        turns = []
        for subject in _shuffled([s for s in group if records[s.name] is None], order):
            log = logs / f"{subject.name}.log"
            servant = stack.enter_context(Servant("seqbench.speed.worker:Worker", (subject,), log))
            turn = _Turn(subject, servant, limit)
            turn.prepare()
            records[subject.name] = turn.record
            turns.append(turn)
        place = 0
        for _ in range(rounds):
            for turn in _shuffled([turn for turn in turns if turn.alive], order):
                turn.sample(place)
                place += 1
        for turn in turns:
            if turn.alive:
                turn.finish()
    return [record for record in records.values() if record is not None]


def _refusal(subject: Subject) -> Record | None:
    """The record of what is known beforehand not to work."""
    if subject.trial.blocked is not None:
        return record_of(subject, subject.trial.blocked["status"], subject.trial.blocked["cause"])
    return record_of(subject, "refused", subject.refused) if subject.refused else None


def _shuffled(items: list[Any], order: random.Random) -> list[Any]:
    return order.sample(items, len(items))
