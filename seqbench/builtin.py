"""What the harness itself registers, by the door that a stranger's plugin uses."""

from __future__ import annotations

from seqbench.api import ExecutorCard, Register, hookimpl

__all__ = ["register_executors"]


@hookimpl
def register_executors(register: Register) -> None:
    """Add the executor that is used where none is named."""
    register.executor(
        ExecutorCard("local", "Trials on this machine, several at a time.", "seqbench.executors.local:run_local")
    )
