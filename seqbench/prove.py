"""The proofs of one job, in the child process that ``seqbench check`` starts for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqbench import registry
from seqbench.check import Failure, Job, Verdict
from seqbench.conformance.comparing import ConformanceError
from seqbench.conformance.proofs import Proof, proofs
from seqbench.conformance.task_proofs import TaskProof, task_proofs
from seqbench.measure.clock import Stopwatch


def prove(job: Job, names: Sequence[str], files: Sequence[str]) -> Verdict:
    """Run the proofs of a job; one that fails in several settings is told once.

    Args:
        job: the model on a backend, or the task.
        names: of the proofs to run; none: all that apply.
        files: plugin files.
    """
    torch.set_num_threads(1)  # the cores are tiny
    failed: dict[str, list[str]] = {}
    with Stopwatch() as watch:
        try:
            todo = _proofs_of(job, files)
        except ConformanceError as error:  # the card declares nothing that could be proved
            todo, failed["card"] = [], [str(error)]
        chosen = [proof for proof in todo if not names or proof.name in names]
        for proof in chosen:
            try:
                proof()
            except ConformanceError as error:
                failed.setdefault(proof.name, []).append(" ".join(str(error).split()))
    failures = tuple(Failure(name, messages[0], len(messages)) for name, messages in failed.items())
    return Verdict(job, len(chosen), failures, watch.seconds, frozenset(proof.name for proof in todo))


def _proofs_of(job: Job, files: Sequence[str]) -> Sequence[Proof | TaskProof]:
    """All that apply; of the strangers' plugins its own alone is loaded, as in a trial."""
    cards = registry.load(files, only=[job.source.key])
    if job.kind == "task":
        return task_proofs(cards.task(job.name))
    return proofs(cards.model(job.name), [job.backend])
