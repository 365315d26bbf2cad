"""A run's folder: one file per trial, written atomically, so that whatever is there is whole.

::

    results/<run>/
      run.json               spec, trials, environment: written once, before the first trial
      spec.toml              the same run again: seqbench run results/<run>/spec.toml
      trials/<id>.json       the record of a finished trial, whatever its end; it and run.json carry a checksum
      steps/<row>.json       the number of steps that a budget in seconds came to, the same for all seeds of a row
      artifacts/<id>.npz     the task's arrays ("task/<name>") and, where tokens are text, that of each ("form/symbols",
                             JSON): with the records, all that a report needs
      weights/<id>.npz       the best weights ("weights/<name>"); may be deleted to save space
      logs/<id>.log          what the trial printed
      events/<listener>/<id>/  what a listener to training events (``--events``) wrote
      speed/                 what ``seqbench speed RUN`` measured
      results.csv  summary.csv  report.html  figures/   exports, made anew from the records
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from seqbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    import numpy as np

    from seqbench.spec import Trial

FORMAT = 1
ARCHIVES = ("artifacts", "weights")
"""The folders of a trial's arrays; those whose name begins with ``weights/`` lie in the second."""
CHECKSUM = "checksum"
_SAFE = re.compile(r"[A-Za-z0-9=._-]+")


def strict(value: Any) -> Any:
    """Plain data for strict JSON: nan and infinities become None, tuples lists, numpy scalars numbers."""
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that a reader sees the old one or the new one, whole, even after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, data: Any) -> None:
    """Strict JSON, atomically."""
    text = json.dumps(strict(data), indent=1, allow_nan=False, ensure_ascii=False)
    write_text(path, text)


def checksum(data: Mapping[str, Any]) -> str:
    """Of what ``write_run`` and ``write_record`` store: the sha256 of all of it but the field ``checksum``.

    It is taken over canonical JSON (keys sorted, no spaces, ASCII alone). It guards against accident and casual
    editing, not against an attacker: who edits a number can compute it anew, and only a replay finds that.
    """
    rest = strict({key: value for key, value in data.items() if key != CHECKSUM})
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def is_as_written(data: Mapping[str, Any]) -> bool:
    """Whether a record, or a run.json, has the checksum of its content."""
    return data.get(CHECKSUM) == checksum(data)


def _write_sealed(path: Path, data: Mapping[str, Any]) -> None:
    write_json(path, {**data, CHECKSUM: checksum(data)})


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, atomically, line ends as they are; what it cannot say (file names in other bytes) as an escape."""
    write_atomically(path, lambda file: _write_bytes(file, text.encode("utf-8", "backslashreplace")))


def _write_bytes(file: IO[bytes], data: bytes) -> None:
    file.write(data)


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, out: Path, name: str) -> RunFolder:
        """A new folder ``out/name`` (``name-2``, ... where it is taken): results are never overwritten.

        Raises:
            UsageError: ``out`` cannot be written to.
        """
        number = 1
        while True:
            path = out / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not path.is_dir():
                    raise UsageError(f"Cannot make a run folder in {out}: a file is in the way.") from None
                number += 1
            except OSError as error:
                raise UsageError(
                    f"Cannot make the run folder {path}: {error.strerror}; choose another --out."
                ) from error
            else:
                return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run.

        Raises:
            UsageError: there is no run there, or another version of seqbench wrote it.
        """
        folder = cls(path)
        try:
            data = folder.run()
            found = data.get("format")
        except (OSError, ValueError, AttributeError) as error:
            speeds = (path / "speed.json").exists()
            why = "it is a folder of seqbench speed" if speeds else "its run.json cannot be read"
            raise UsageError(f"There is no run in {path}: {why}.") from error
        if found != FORMAT:
            raise UsageError(f"{path} has format {found}; this seqbench reads format {FORMAT}.")
        if not (isinstance(data.get("spec"), dict) and isinstance(data.get("trials"), list) and data["trials"]):
            raise UsageError(f"The run.json in {path} names no spec or no trials: it is damaged.")
        return folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second program from running the same trials; freed when this program ends, however it ends.

        Raises:
            UsageError: another program is running them.
        """
        if os.name != "posix":
            yield
            return
        import fcntl

        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(f"Another seqbench is running the trials of {self.path}; wait for its end.") from error
            yield

    def listener_folder(self, listener: str, trial_id: str) -> Path:
        """A new folder for the files of a listener; what an interrupted trial left there is removed."""
        folder = self._file(f"events/{listener}", trial_id, "")
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        return folder

    def write_run(self, data: Mapping[str, Any]) -> None:
        """Store what the run is."""
        _write_sealed(self.path / "run.json", {"format": FORMAT, **data})

    def run(self) -> dict[str, Any]:
        """What the run is: ``spec``, ``trials`` (in order), ``environment``, ``created``, ``data``, ``warnings``."""
        data: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return data

    def _file(self, kind: str, trial_id: str, suffix: str) -> Path:
        if not _SAFE.fullmatch(trial_id) or trial_id.startswith("."):
            raise UsageError(f"{trial_id!r} is not the id of a trial.")
        return self.path / kind / f"{trial_id}{suffix}"

    def log_path(self, trial_id: str) -> Path:
        """Where the trial's output goes."""
        return self._file("logs", trial_id, ".log")

    def write_record(self, trial_id: str, record: Mapping[str, Any]) -> None:
        """The trial is finished."""
        _write_sealed(self._file("trials", trial_id, ".json"), {"format": FORMAT, "id": trial_id, **record})

    def record(self, trial_id: str) -> dict[str, Any] | None:
        """The record of a finished trial, or None.

        Raises:
            UsageError: something that is no record lies in its place.
        """
        path = self._file("trials", trial_id, ".json")
        if not path.exists():
            return None
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            _ = data["status"]
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"The record {path} is damaged; remove it and finish the run with --resume.") from error
        return data

    def records(self, trials: Iterable[Trial] | None = None) -> list[dict[str, Any]]:
        """The records of finished trials, in the plan's order.

        Args:
            trials: of these, in their order; None: of all.
        """
        planned = self.trials() if trials is None else trials
        return [record for trial in planned if (record := self.record(trial.id)) is not None]

    def trials(self) -> list[Trial]:
        """All planned trials, in order.

        Raises:
            UsageError: run.json holds something else.
        """
        from seqbench.spec import trial_from_dict

        try:
            trials = [trial_from_dict(trial) for trial in self.run()["trials"]]
            _ = [trial.id for trial in trials]
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise UsageError(f"The trials in {self.path / 'run.json'} cannot be read: it is damaged.") from error
        return trials

    def find(self, name: str, purpose: str | None = None) -> Trial:
        """The planned trial of that id, of that beginning of an id, or of that label.

        Args:
            name: as the user gave it.
            purpose: of the trials that are meant, ``score`` or ``tuning``; None: all.

        Raises:
            UnknownName: none is.
            UsageError: several are.
        """
        trials = [trial for trial in self.trials() if purpose in {None, trial.purpose}]
        exact = [trial for trial in trials if trial.id == name]
        found = exact or [trial for trial in trials if trial.id.startswith(name) or trial.label == name]
        if not found:
            raise UnknownName("trial", name, [trial.id for trial in trials])
        if len(found) > 1:
            ids = ", ".join(trial.id for trial in found)
            raise UsageError(f"{name!r} could be {len(found)} trials; name one: {ids}.")
        return found[0]

    def recorded(self) -> set[str]:
        """The ids of all records that are there, those of trials that nobody planned too."""
        return {path.stem for path in (self.path / "trials").glob("[!.]*.json")}

    def agree_on_steps(self, row_id: str, steps: int) -> int:
        """Remember what a budget in seconds came to for a row; who comes second takes the first one's number."""
        path = self._file("steps", row_id, ".json")
        own = path.with_suffix(f".{uuid.uuid4().hex[:8]}.tmp")
        write_json(own, steps)
        try:
            own.rename(path) if os.name == "nt" else path.hardlink_to(own)
        except FileExistsError:
            pass
        finally:
            own.unlink(missing_ok=True)
        agreed = self.steps(row_id)
        return steps if agreed is None else agreed

    def steps(self, row_id: str) -> int | None:
        """What a row's budget in seconds came to, or None."""
        path = self._file("steps", row_id, ".json")
        return int(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def write_arrays(self, trial_id: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store named arrays, without pickle, each in its archive.

        Raises:
            ValueError: an array holds Python objects.
        """
        import numpy as np

        for name, array in arrays.items():  # numpy 2.0 has no allow_pickle here: it would store it as an array
            if np.asarray(array).dtype.hasobject:
                raise ValueError(f"array {name!r} holds Python objects; store numbers or text")
        for archive in ARCHIVES:
            own: dict[str, Any] = {name: array for name, array in arrays.items() if _archive_of(name) == archive}
            write_atomically(self._file(archive, trial_id, ".npz"), partial(_write_arrays, own))

    def digests(self, trial_id: str) -> dict[str, str | None]:
        """The sha256 of each of a trial's archives, by its folder; None where there is none."""
        return {archive: _sha256(self._file(archive, trial_id, ".npz")) for archive in ARCHIVES}

    def arrays(self, trial_id: str, prefix: str = "") -> dict[str, np.ndarray]:
        """The stored arrays whose name begins with ``prefix``, without it; none where nothing was stored."""
        import numpy as np

        found: dict[str, np.ndarray] = {}
        for archive in (_archive_of(prefix),) if prefix else ARCHIVES:
            path = self._file(archive, trial_id, ".npz")
            if path.exists():
                with np.load(path, allow_pickle=False) as file:
                    found |= {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}
        return found


def _archive_of(name: str) -> str:
    return "weights" if name.startswith("weights/") else "artifacts"


def _write_arrays(arrays: Mapping[str, Any], file: IO[bytes]) -> None:
    import numpy as np

    np.savez_compressed(file, **arrays)


def _sha256(path: Path) -> str | None:
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
