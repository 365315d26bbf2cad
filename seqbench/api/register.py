"""What a registering hook is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from seqbench.api.commands import CommandCard
    from seqbench.api.data import DatasetCard
    from seqbench.api.executors import ExecutorCard
    from seqbench.api.listeners import ListenerCard
    from seqbench.api.models import Model
    from seqbench.api.report import SectionCard
    from seqbench.api.tasks import TaskCard


class Register(Protocol):
    """What a registering hook is given."""

    def model(self, card: Model) -> None:
        """Add a model."""

    def task(self, card: TaskCard) -> None:
        """Add a task."""

    def section(self, card: SectionCard) -> None:
        """Add a section to the report."""

    def dataset(self, card: DatasetCard) -> None:
        """Add a dataset to a task."""

    def listener(self, card: ListenerCard) -> None:
        """Add a listener to training events."""

    def executor(self, card: ExecutorCard) -> None:
        """Add a way to run trials."""

    def command(self, card: CommandCard) -> None:
        """Add a subcommand to ``seqbench``."""
