"""Finding and fetching the files of a dataset: sha256 before use, nothing downloaded silently.

Where a file is looked for, in this order; the first place that has it counts:

1. the folder given (``--data-dir``),
2. the folder in the environment variable ``SEQBENCH_DATA``,
3. the user's cache (``SEQBENCH_CACHE``, else the platform's usual place).

A download goes to the folder given, else to the cache. ``SEQBENCH_OFFLINE=1`` forbids downloads.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, Any, Literal

from seqbench.derived import derived
from seqbench.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from seqbench.api import DataFile, Dataset

__all__ = ["Files", "Status", "data_folder", "fetch", "locate", "obtain", "status"]

FOLDER, CACHE, OFFLINE = "SEQBENCH_DATA", "SEQBENCH_CACHE", "SEQBENCH_OFFLINE"
RETRIES = 2
TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""

Step = Callable[[int], None]
"""Told the number of bytes that have just arrived."""


@dataclass(frozen=True)
class Files:
    """Where the files of a dataset lie, each checked against its sha256, and the cache (an ``api.DataFiles``)."""

    paths: dict[str, Path]
    provide: Callable[[Files], Any] | None = None

    def content(self) -> Any:
        """What the dataset's plugin makes of the files; see ``api.DataFiles``.

        Raises:
            DataError: no plugin brought this dataset to the task.
        """
        if self.provide is None:
            raise DataError("The task itself reads or makes this dataset: no plugin's function gives its content.")
        return self.provide(self)

    def path(self, name: str) -> Path:
        """The local path of the file that the dataset calls ``name``.

        Raises:
            DataError: the dataset declares no such file.
        """
        if name not in self.paths:
            raise DataError(f"The dataset has no file {name!r}; it declares {', '.join(self.paths) or 'none'}.")
        return self.paths[name]

    def derived(
        self, name: str, parts: Iterable[bytes], make: Callable[[], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Arrays made once and kept beside the downloads; see ``api.DataFiles``."""
        return derived(cache_folder() / "derived", name, parts, make)


@dataclass(frozen=True)
class Status:
    """The state of a dataset on this machine, for ``seqbench data list``.

    Attributes:
        state: ``embedded`` needs no files; ``damaged``: a file is there but is not the right one.
        folder: where the first file lies, if the dataset is present.
        note: what is wrong, if anything.
    """

    state: Literal["embedded", "present", "missing", "damaged"]
    folder: Path | None = None
    note: str = ""


# --- where ----------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where downloads and derived data are kept."""
    own = os.environ.get(CACHE)
    if own:
        return Path(own)
    import platformdirs

    return Path(platformdirs.user_cache_dir("seqbench", appauthor=False))


def data_folder() -> Path:
    """Where downloads are kept when no folder is given."""
    return cache_folder() / "data"


def _folders(data_dir: Path | None) -> list[Path]:
    """The places to look, best first; one that the user named must exist."""
    named = [(data_dir, "--data-dir")] if data_dir else []
    if os.environ.get(FOLDER):
        named.append((Path(os.environ[FOLDER]), FOLDER))
    for folder, origin in named:
        if not folder.is_dir():
            what = "not a folder" if folder.exists() else "not there"
            raise DataError(f"The data folder {folder} ({origin}) is {what}; name an existing folder or leave it out.")
    return [*(folder for folder, _ in named), data_folder()]


def _checked(file: DataFile) -> DataFile:
    """The declaration, if it is fit for use: a plugin wrote it.

    Raises:
        DataError: its path leaves the data folder, or its sha256 or size is none.
    """
    parts = PurePosixPath(file.path).parts
    windows = PureWindowsPath(file.path)
    leaves = not parts or "\\" in file.path or ".." in parts or parts[0] == "/" or windows.drive or windows.root
    if leaves or not file.path.isprintable():
        raise DataError(f"The data file path {file.path!r} leaves the data folder; it must be relative, without '..'.")
    if not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
        raise DataError(f"The sha256 of {file.path} must be 64 lower-case hexadecimal digits, not {file.sha256!r}.")
    if file.size < 0:
        raise DataError(f"The size of {file.path} must be a number of bytes, not {file.size}.")
    return file


def _find(file: DataFile, folders: list[Path]) -> Path | None:
    """The first place that has the file, verified; None if no place has it."""
    for folder in folders:
        path = folder / file.path
        if os.path.lexists(path):
            _verify(path, file)
            return path
    return None


def _verify(path: Path, file: DataFile) -> None:
    """Check what lies at ``path`` against the declaration.

    Raises:
        DataError: it is no file, cannot be read, or is not the file declared.
    """
    remedy = f"remove it, then get the right one from {file.url} (sha256 {file.sha256})"
    if not path.is_file():
        raise DataError(f"The data file {path} is not a regular file; {remedy}.")
    try:
        size = path.stat().st_size
        found = _sha256(path) if size == file.size else ""  # a wrong size settles it: no need to read on
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(f"The data file {path} cannot be read ({why}); make it readable.") from error
    if size != file.size:
        raise DataError(f"The data file {path} has {size} bytes, expected {file.size}; {remedy}.")
    if found != file.sha256:
        raise DataError(f"The data file {path} is not the one expected (its sha256 is {found}); {remedy}.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _survey(dataset: Dataset, data_dir: Path | None) -> tuple[dict[str, Path], list[DataFile]]:
    """What is there, verified, and what is missing."""
    found: dict[str, Path] = {}
    missing: list[DataFile] = []
    folders = _folders(data_dir) if dataset.files else []
    for file in map(_checked, dataset.files):
        path = _find(file, folders)
        if path is None:
            missing.append(file)
        else:
            found[file.path] = path
    return found, missing


def _missing(dataset: Dataset, file: DataFile, data_dir: Path | None, why: str = "") -> DataError:
    """The error that tells how to come by a file."""
    place = (data_dir or Path(os.environ.get(FOLDER) or data_folder())) / file.path
    return DataError(
        f"The file {file.path} of dataset {dataset.name!r} {why or 'is missing'}: "
        f"run `seqbench data fetch {dataset.name}`, or download {file.url} (sha256 {file.sha256}) to {place}"
    )


# --- the four questions ---------------------------------------------------------------------------


def locate(dataset: Dataset, data_dir: Path | None = None) -> Files:
    """The files of a dataset, without touching the network.

    Raises:
        DataError: a file is missing or damaged; the message says how to get it.
    """
    found, missing = _survey(dataset, data_dir)
    if missing:
        raise _missing(dataset, missing[0], data_dir)
    return Files(found)


def obtain(dataset: Dataset, data_dir: Path | None = None) -> Files:
    """The files of a dataset for a run: what is missing is downloaded, with a visible line.

    Raises:
        DataError: a file is missing and cannot or may not be downloaded, or is damaged.
    """
    found, missing = _survey(dataset, data_dir)
    return _download_all(dataset, found, missing, data_dir, progress=True) if missing else Files(found)


def fetch(dataset: Dataset, data_dir: Path | None = None, *, progress: bool = True) -> Files:
    """Download what is missing, to ``data_dir`` (made if need be), else to the cache.

    A damaged file in the cache is replaced; in a folder that the user named it is reported and left alone.

    Args:
        dataset: what to fetch; an embedded one needs nothing.
        data_dir: where to look first and to download to.
        progress: say on the terminal what is going on.

    Raises:
        DataError: a file cannot be had.
    """
    target = data_dir or data_folder()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(f"The data folder {target} cannot be made ({why}); name another with --data-dir.") from error
    for file in map(_checked, dataset.files):
        _drop_damaged(data_folder() / file.path, file)
    found, missing = _survey(dataset, data_dir)
    return _download_all(dataset, found, missing, data_dir, progress=progress)


def status(dataset: Dataset, data_dir: Path | None = None) -> Status:
    """Whether the dataset is on this machine."""
    if not dataset.files:
        return Status("embedded")
    try:
        found, missing = _survey(dataset, data_dir)
    except DataError as error:
        return Status("damaged", note=str(error))
    if missing:
        return Status("missing", note=f"{len(missing)} of {len(dataset.files)} files")
    return Status("present", folder=found[dataset.files[0].path].parent)


# --- downloading ----------------------------------------------------------------------------------


def _drop_damaged(path: Path, file: DataFile) -> None:
    """Remove a damaged file from the cache; whatever else is wrong there is left to ``_find`` to report."""
    if path.is_file() and not path.is_symlink():
        try:
            _verify(path, file)
        except DataError:
            path.unlink(missing_ok=True)


def _download_all(
    dataset: Dataset, found: dict[str, Path], missing: list[DataFile], data_dir: Path | None, *, progress: bool
) -> Files:
    target = data_dir or data_folder()
    for file in missing:
        if os.environ.get(OFFLINE, "0") not in ("", "0"):
            raise _missing(dataset, file, data_dir, f"is missing and {OFFLINE} forbids downloads")
        try:
            with _shown(file, target, progress) as step:
                found[file.path] = _download(file, target, step)
        except _DOWNLOAD_ERRORS as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise _missing(dataset, file, data_dir, f"could not be downloaded ({reason})") from error
        _verify(found[file.path], file)
    return Files({file.path: found[file.path] for file in dataset.files})


class _TooLargeError(Exception):
    """More bytes arrive than the file has."""


# requests' errors are OSErrors; pooch says ValueError to a wrong hash, requests to an address it cannot read.
_DOWNLOAD_ERRORS = (OSError, ValueError, _TooLargeError)


class _Sink:
    """A file being written that counts what arrives and refuses more than was declared."""

    def __init__(self, file: IO[bytes], limit: int, step: Step) -> None:
        self._file, self._left, self._limit, self._step = file, limit, limit, step

    def write(self, chunk: bytes) -> int:
        self._left -= len(chunk)
        if self._left < 0:
            raise _TooLargeError(f"the server sends more than the {self._limit} bytes expected")
        self._step(len(chunk))
        return self._file.write(chunk)

    def flush(self) -> None:
        self._file.flush()


def _download(file: DataFile, target: Path, step: Step) -> Path:
    """Download one file below ``target``: to a temporary name first, moved only if its sha256 is right."""
    import pooch

    pooch.get_logger().setLevel("ERROR")  # what there is to say, we say ourselves

    def limited(url: str, path: str, keeper: pooch.Pooch) -> None:
        with ExitStack() as stack:

            def close_at_the_end(answer: Any, **_: object) -> None:
                """Pooch leaves a refused answer open: closing it ends the transfer at once."""
                stack.callback(answer.close)

            request = pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=1 << 16, hooks={"response": close_at_the_end})
            out = stack.enter_context(Path(path).open("wb"))
            request(url, _Sink(out, file.size, step), keeper)

    keeper = pooch.create(
        target, base_url="", registry={file.path: f"sha256:{file.sha256}"}, urls={file.path: file.url},
        retry_if_failed=RETRIES,
    )  # fmt: skip
    return Path(keeper.fetch(file.path, downloader=limited))


@contextmanager
def _shown(file: DataFile, target: Path, progress: bool) -> Iterator[Step]:
    """One line that says what is downloaded where; on a terminal, a bar that moves."""
    if not progress:
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    console = Console(file=sys.stderr)
    line = f"Downloading {file.url} ({file.size:,} bytes) to {target / file.path}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield _silent
        return
    with Progress(BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(file.path, total=file.size)
        yield lambda size: bar.update(task, advance=size)


def _silent(_size: int) -> None:
    """Show nothing."""
