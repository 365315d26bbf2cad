"""The process of a subject: builds its network, then takes a sample each time it is told to, and else waits."""

from __future__ import annotations

from typing import Any

import psutil

from seqbench.assemble import count
from seqbench.measure.clock import Stopwatch
from seqbench.measure.memory import PeakMemory, keep_freed_memory
from seqbench.measure.sampling import Sampler
from seqbench.options import build_options
from seqbench.speed.operations import operation, random_batch, tokens_of
from seqbench.speed.spec import Subject
from seqbench.trial import assert_threads, cards_of, failure, network_of, prepare_process

SHORT = 2
"""Steps of the call that comes first, at batch 1: it loads and compiles, and what it holds is no call's memory."""


class Worker:
    """Answers ``"prepare"``, then any number of ``"sample"``, then ``"finish"``.

    Each answer is plain data that is read without torch; the one to an exception has ``status`` and ``cause``.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._process = psutil.Process()
        self._threads_before = self._process.num_threads()

    def __call__(self, question: str) -> dict[str, Any]:
        """Do what is asked."""
        try:
            answer: dict[str, Any] = {"prepare": self._prepare, "sample": self._sample, "finish": self._finish}[
                question
            ]()
        except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything; the others go on
            record = failure(self._subject.trial, error)
            return {"status": record["status"], "cause": record["cause"]}
        return {"status": "ok", **answer}

    def _prepare(self) -> dict[str, Any]:
        """Build, warm up and calibrate; nothing here is in a sample."""
        subject, trial = self._subject, self._subject.trial
        device = prepare_process(trial)
        keep_freed_memory()
        card = cards_of(trial).model(trial.model)
        options = build_options(card.options, trial.model_options, f"model {card.name!r}")
        self._peak = PeakMemory(device)
        with Stopwatch(device) as building:
            network = network_of(trial, card, options, subject.form).to(device)
            on = operation(subject.operation, network, trial.training)
        with Stopwatch(device) as first:
            on(random_batch(subject.form, 1, SHORT))()
        self._peak_of_first = self._peak.mib()
        self._calls = PeakMemory(device)
        batch = random_batch(subject.form, subject.batch, subject.length)
        self._sampler = Sampler(on(batch), device)
        assert_threads(trial)
        return {
            "build_seconds": building.seconds,
            "first_call_seconds": first.seconds + self._sampler.first,
            "calls": self._sampler.calls,
            "tokens": tokens_of(subject.operation, batch),
            "parameters": {"network": count(network), "core": count(*network.core_modules)},
            "forward_flops_per_token": network.flops_per_token(subject.length),
        }

    def _sample(self) -> dict[str, Any]:
        sample = self._sampler.sample()
        return {"wall": sample.wall, "cpu": sample.cpu}

    def _finish(self) -> dict[str, Any]:
        assert_threads(self._subject.trial)
        own = self._subject.trial.threads - 1  # beside the main thread
        extra = self._process.num_threads() - self._threads_before - own
        peak = {"peak_mib": max(self._peak_of_first, self._peak.mib()), "call_mib": self._calls.mib()}
        return {"memory": peak, "extra_threads": max(0, extra)}
