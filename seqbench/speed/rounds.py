"""Subjects measured in turns: each in a process of its own, one at work at a time, in another order every round.

Two processes that do the same may differ by a per cent or two for as long as they live: their memory lies elsewhere. So
each subject gets several processes, one after the other, and each of them a part of the rounds.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqbench.executors.supervise import death
from seqbench.process import Servant
from seqbench.registry import blame
from seqbench.speed.spec import Subject

Record = dict[str, Any]


class _Turn:
    """A subject, one of its processes, and its record so far."""

    def __init__(self, record: Record, servant: Servant, number: int, limit: float) -> None:
        self.record = record
        self._servant, self._number, self._limit = servant, number, limit

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
        """What the first process says is kept: only it may have had to compile."""
        answer = self.ask("prepare")
        if self.alive:
            self.record |= {**answer, **self.record}

    def sample(self, place: int) -> None:
        """Take one; ``place`` tells when, among all samples of the group."""
        answer = self.ask("sample")
        if self.alive:
            sample = {"wall": answer["wall"], "cpu": answer["cpu"], "place": place, "process": self._number}
            for name, value in sample.items():
                self.record["samples"].setdefault(name, []).append(value)

    def finish(self) -> None:
        """Of memory and threads the most that a process had."""
        answer = self.ask("finish")
        if self.alive:
            before = self.record.get("memory", {})
            memory = {name: max(value, before.get(name, 0.0)) for name, value in answer["memory"].items()}
            threads = max(answer["extra_threads"], self.record.get("extra_threads", 0))
            self.record |= {"memory": memory, "extra_threads": threads}


def record_of(subject: Subject, status: str, cause: str) -> Record:
    """The record of a subject, without figures yet."""
    trial = asdict(subject.trial)
    named = {key: trial[key] for key in ("label", "backend", "device", "threads", "width", "layers", "model_options")}
    what = {"operation": subject.operation, "length": subject.length, "batch": subject.batch}
    return {**named, **what, "status": status, "cause": cause, "samples": {}}


def measure(
    group: Sequence[Subject], rounds: int, starts: int, limit: float, logs: Path, order: random.Random
) -> list[Record]:
    """Measure the subjects of a group, interleaved.

    Args:
        group: what may be compared with one another.
        rounds: samples of each.
        starts: processes of each, one after the other, which share the rounds; no more than there are rounds.
        limit: seconds that a subject may take for getting ready, or for one sample.
        logs: folder that gets what each process prints.
        order: shuffles, once for getting ready and anew in each round.

    Returns:
        A record for each subject, in the order of ``group``.
    """
    records = {subject.name: _refusal(subject) or record_of(subject, "ok", "") for subject in group}
    place = itertools.count()
    for number, part in enumerate(shares(rounds, starts), 1):
        with ExitStack() as stack:
            turns = []
            for subject in _shuffled([s for s in group if records[s.name]["status"] == "ok"], order):
                log = logs / f"{subject.name}-{number}.log"
                servant = stack.enter_context(Servant("seqbench.speed.worker:Worker", (subject,), log))
                turn = _Turn(records[subject.name], servant, number, limit)
                turn.prepare()
                turns.append(turn)
            for _ in range(part):
                for turn in _shuffled([turn for turn in turns if turn.alive], order):
                    turn.sample(next(place))
            for turn in turns:
                if turn.alive:
                    turn.finish()
    for subject in group:
        record = records[subject.name]
        if record["status"] != "ok":
            record["cause"] = blame(subject.trial, record["cause"])
    return list(records.values())


def shares(rounds: int, starts: int) -> list[int]:
    """``10`` rounds in ``3`` parts: 4, 3, 3; no part is empty."""
    starts = min(rounds, starts)
    return [rounds // starts + (part < rounds % starts) for part in range(starts)]


def _refusal(subject: Subject) -> Record | None:
    """The record of what is known beforehand not to work."""
    if subject.trial.blocked is not None:
        return record_of(subject, subject.trial.blocked["status"], subject.trial.blocked["cause"])
    return record_of(subject, "refused", subject.refused) if subject.refused else None


def _shuffled(items: list[Any], order: random.Random) -> list[Any]:
    return order.sample(items, len(items))
