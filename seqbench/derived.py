"""Arrays made from data once and kept in the user's cache, under the sha256 of all that they depend on."""

from __future__ import annotations

import hashlib
import os
import uuid
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from seqbench.api.checks import check_name

if TYPE_CHECKING:
    import numpy as np

Make = Callable[[], Mapping[str, "np.ndarray"]]


def derived(folder: Path, name: str, parts: Iterable[bytes], make: Make) -> dict[str, np.ndarray]:
    """The arrays from ``folder``, or else made and kept there; see ``api.DataFiles.derived``.

    A file is written under another name and then renamed, so one that is there is whole. A damaged one is made anew; a
    folder that cannot be written to costs time, not the run.

    Raises:
        PluginError: the name is none.
    """
    check_name("derived data", name)
    path = folder / f"{name}-{_digest(parts)[:32]}.npz"
    found = _read(path)
    if found is None:
        found = dict(make())
        _write(path, found)
    return found


def _digest(parts: Iterable[bytes]) -> str:
    """The sha256 of the parts, each with its length, so that ``ab, c`` and ``a, bc`` differ."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def _read(path: Path) -> dict[str, np.ndarray] | None:
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # np.load leaves damaged files open
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    import numpy as np

    own = path.with_suffix(f".{uuid.uuid4().hex[:8]}.tmp")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with own.open("xb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            own.replace(path)
        finally:
            own.unlink(missing_ok=True)
