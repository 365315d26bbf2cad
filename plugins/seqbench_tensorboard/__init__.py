"""TensorBoard: the curves of a run as event files. Importing this loads neither torch nor tensorboard."""

from __future__ import annotations

from seqbench.api import CommandCard, ListenerCard, Register, hookimpl

__all__ = ["register_commands", "register_listeners"]


@hookimpl
def register_listeners(register: Register) -> None:
    """Add the listener."""
    register.listener(
        ListenerCard(
            name="tensorboard",
            summary="Event files for TensorBoard, below events/tensorboard in the run's folder.",
            factory="seqbench_tensorboard.listener:TensorBoard",
        )
    )


@hookimpl
def register_commands(register: Register) -> None:
    """Add the command that does the same for a run that has ended."""
    register.command(
        CommandCard(
            name="tensorboard",
            summary="Write the curves of a run as TensorBoard's event files.",
            factory="seqbench_tensorboard.command:tensorboard",
        )
    )
