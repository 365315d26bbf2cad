"""Ways to run trials. Each calls ``run_trial_supervised`` for every trial; it is all that an executor needs of us."""

from __future__ import annotations

from seqbench.executors.supervise import run_trial_supervised

__all__ = ["run_trial_supervised"]
