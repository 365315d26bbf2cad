"""The proofs about one model or task, in the child process that ``seqbench check`` starts for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqbench import registry
from seqbench.check import Failure, Subject
from seqbench.conformance.comparing import ConformanceError
from seqbench.conformance.proofs import Proof, proofs
from seqbench.conformance.task_proofs import TaskProof, task_proofs
from seqbench.measure.clock import Stopwatch


def prove(subject: Subject, names: Sequence[str], files: Sequence[str]) -> tuple[int, tuple[Failure, ...], float]:
    """How many proofs were run, those that fail, each told once for all settings that it fails in, and the seconds.

    Args:
        subject: the model on a backend, or the task.
        names: of the proofs to run; none: all that apply.
        files: plugin files.
    """
    torch.set_num_threads(1)  # the cores are tiny
    cards = registry.load(files)
    todo: Sequence[Proof | TaskProof]
    if subject.kind == "task":
        todo = task_proofs(cards.task(subject.name))
    else:
        todo = proofs(cards.model(subject.name), [subject.backend])
    chosen = [proof for proof in todo if not names or proof.name in names]
    failed: dict[str, list[str]] = {}
    with Stopwatch() as watch:
        for proof in chosen:
            try:
                proof()
            except ConformanceError as error:
                failed.setdefault(proof.name, []).append(" ".join(str(error).split()))
    failures = tuple(Failure(name, messages[0], len(messages)) for name, messages in failed.items())
    return len(chosen), failures, watch.seconds
