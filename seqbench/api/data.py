"""Data: the files of a dataset, and where a task finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from seqbench.api.checks import check, check_api, check_factory, check_name

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


@dataclass(frozen=True)
class DataFile:
    """One file of a dataset.

    Attributes:
        path: its place below the data folder, ``"shakespeare/input.txt"``.
        url: where it can be downloaded.
        sha256: of the file as downloaded.
        size: in bytes.
    """

    path: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Defaults:
    """The protocol where the user says nothing; the same for every model.

    Attributes:
        parameters: trainable parameters of the whole network.
        steps: training steps.
        batch: sequences in a training batch.
        lr: peak learning rate.
        dropout: probability of dropping a unit, in training.
    """

    parameters: int = 50_000
    steps: int = 1000
    batch: int = 32
    lr: float = 3e-3
    dropout: float = 0.0


@dataclass(frozen=True)
class Dataset:
    """Data that a task can run on: embedded (no files; made by the task's own code) or downloaded.

    Attributes:
        name: what ``--dataset`` takes.
        summary: one sentence, the split included.
        files: what must be there before the task can be prepared.
        licence: the terms as the origin states them.
        defaults: the protocol on this dataset, where it is not the task's.
    """

    name: str
    summary: str
    files: tuple[DataFile, ...] = ()
    licence: str = ""
    defaults: Defaults | None = None


@dataclass(frozen=True)
class DatasetCard:
    """The card of a dataset for a task that is there already, of the same plugin or of another.

    Attributes:
        task: its name.
        dataset: what ``--dataset`` takes, its files and terms; it stands behind the task's own.
        factory: ``"package.module:function"``, called as ``function(files: DataFiles) -> content`` in each process that
            prepares the task; what form the content has the task's card says (``TaskCard.takes``), and so does
            ``seqbench info TASK``. It must give the same every time.
        api: the ``API_VERSION`` that the card was written for; empty: not stated.
    """

    task: str
    dataset: Dataset
    factory: str
    api: str = ""

    def __post_init__(self) -> None:
        """Check the card.

        Raises:
            PluginError: a field is not of the form above.
        """
        kind = type(self.dataset).__name__
        check(isinstance(self.dataset, Dataset), f"a dataset for task {self.task!r} must be a Dataset, got {kind}")
        check_name("dataset", self.dataset.name)
        check_api(f"dataset {self.name!r}", self.api)
        check_factory(f"dataset {self.name!r}", self.factory)

    @property
    def name(self) -> str:
        """``"char-lm/shakespeare"``."""
        return f"{self.task}/{self.dataset.name}"


class DataFiles(Protocol):
    """For ``Task.prepare``: where the files lie, checked against their sha256, and what is made from them."""

    def content(self) -> Any:
        """What the plugin gives that brought the dataset by a ``DatasetCard``, in the form that the task takes.

        Raises:
            DataError: no card brought it: the task itself reads or makes it.
            PluginError: that plugin's code raised something.
        """

    def path(self, name: str) -> Path:
        """The local path of ``DataFile.path == name``."""

    def derived(
        self, name: str, parts: Iterable[bytes], make: Callable[[], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Arrays that are costly to make, made once and kept in the user's cache.

        Args:
            name: lower case, words joined by ``-``; the beginning of the file's name.
            parts: all that the arrays depend on: the content they are made from, settings, versions. The sha256 of the
                parts names the file, so other content never meets an old file.
            make: gives the arrays (numbers or text, no objects). Called where the cache does not have them.
        """
