"""The hooks: every way in which a plugin can extend seqbench."""

from __future__ import annotations

import pluggy

from seqbench.api import Register

hookspec = pluggy.HookspecMarker("seqbench")


@hookspec
def register_models(register: Register) -> None:
    """Add models: call ``register.model(card)`` for each."""


@hookspec
def register_tasks(register: Register) -> None:
    """Add tasks: call ``register.task(card)`` for each."""


@hookspec
def register_sections(register: Register) -> None:
    """Add report sections: call ``register.section(card)`` for each."""


@hookspec
def register_datasets(register: Register) -> None:
    """Add datasets to tasks: call ``register.dataset(card)`` for each."""


@hookspec
def register_listeners(register: Register) -> None:
    """Add listeners to training events: call ``register.listener(card)`` for each."""


@hookspec
def register_executors(register: Register) -> None:
    """Add ways to run trials: call ``register.executor(card)`` for each."""


@hookspec
def register_commands(register: Register) -> None:
    """Add subcommands to ``seqbench``: call ``register.command(card)`` for each."""
