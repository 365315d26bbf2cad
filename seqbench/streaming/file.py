"""The file of an exported network: what is in it, how it is written, and how it is read wherever it comes from.

One ``.npz``, stored plainly and without pickle: ``description``, a JSON text, and arrays of float32 or float64::

    input.weight    (V, H), an embedding of tokens; or (H, size), of vectors, with input.bias (H,)
    layers.0.W      (gates * H, H)          the input's product          layers.0.b_x  (gates * H,)
    layers.0.U      (blocks * H, H)         the recurrent product        layers.0.b_h  (blocks * H,), if it has a bias
    layers.1.W      ...
    head.weight     (N, H)                                               head.bias     (N,)

A file names its model and the model's options, never code: what the layers compute is the installed model's affair.
Nothing is read before its size has been compared with what the description says and with what is there.
"""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from seqbench.backends.recurrence import Recurrence
from seqbench.errors import DataError, SeqbenchError

FORMAT, VERSION = "seqbench-stream", 1
DESCRIPTION = "description"

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Description:
    """What an exported network is.

    Attributes:
        trial: id of the trial that trained it.
        task: name of the task.
        dataset: name of the dataset.
        model: name of the model.
        options: every option of the model.
        width: ``H``.
        layers: ``L``.
        input: ``"tokens"`` or ``"vectors"``.
        input_size: the size ``V`` of the vocabulary, or of the vectors.
        head: ``"step"``, outputs for every step, or ``"pooled"``, an output for the sequence as far as it was read.
        output: ``N``, classes or numbers.
        target: ``"class"``, the outputs are logits, or ``"value"``.
        vocabulary: the text of each token; None where tokens are no text, or vectors come in.
    """

    trial: str
    task: str
    dataset: str
    model: str
    options: Mapping[str, Any]
    width: int
    layers: int
    input: str
    input_size: int
    head: str
    output: int
    target: str
    vocabulary: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: one is not of the form above.
        """
        for name in ("trial", "task", "dataset", "model"):
            _expect(name, isinstance(getattr(self, name), str), "text")
        _expect("options", isinstance(self.options, Mapping), "names with values")
        for name in ("width", "layers", "input_size", "output"):
            value = getattr(self, name)
            _expect(
                name, isinstance(value, int) and not isinstance(value, bool) and value >= 1, "a whole number above 0"
            )
        _expect("input", self.input in ("tokens", "vectors"), "tokens or vectors")
        _expect("head", self.head in ("step", "pooled"), "step or pooled")
        _expect("target", self.target in ("class", "value"), "class or value")
        if self.vocabulary is not None:
            words = isinstance(self.vocabulary, tuple) and all(isinstance(word, str) for word in self.vocabulary)
            fits = words and self.input == "tokens" and len(self.vocabulary) == self.input_size
            _expect("vocabulary", fits, "a text for each of the tokens")

    def __str__(self) -> str:
        return f"{self.model} on {self.task}/{self.dataset}"


def _expect(name: str, fine: bool, expected: str) -> None:
    if not fine:
        raise ValueError(f"its {name} is not {expected}")


def to_json(description: Description) -> str:
    """The text in the file."""
    return json.dumps({"format": FORMAT, "version": VERSION, **dataclasses.asdict(description)}, allow_nan=False)


def from_json(text: str) -> Description:
    """The inverse of ``to_json``.

    Raises:
        ValueError: the text is something else.
    """
    data = json.loads(text)
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ValueError("its description is of another format")
    version = data.pop("version", None)
    if version != VERSION:
        raise ValueError(f"it has version {version!r}, this seqbench reads version {VERSION}")
    known = {field.name for field in dataclasses.fields(Description)}
    if data.keys() != known:
        raise ValueError(f"its description differs in {', '.join(sorted(map(str, data.keys() ^ known)))}")
    words = data["vocabulary"]
    return Description(**{**data, "vocabulary": tuple(words) if isinstance(words, list) else words})


def shapes_of(description: Description, recurrence: Recurrence) -> dict[str, tuple[int, ...]]:
    """The arrays that a network of this description has."""
    H, size, cell = description.width, description.input_size, recurrence.cell
    gates, blocks = cell.gates * H, len(cell.recurrent) * H
    tokens = description.input == "tokens"
    shapes: dict[str, tuple[int, ...]] = {"input.weight": (size, H)} if tokens else {
        "input.weight": (H, size), "input.bias": (H,)
    }  # fmt: skip
    for layer in range(description.layers):
        shapes |= {f"layers.{layer}.W": (gates, H), f"layers.{layer}.U": (blocks, H), f"layers.{layer}.b_x": (gates,)}
        if recurrence.names.b_h:
            shapes[f"layers.{layer}.b_h"] = (blocks,)
    return shapes | {"head.weight": (description.output, H), "head.bias": (description.output,)}


def write(file: IO[bytes], description: Description, arrays: Arrays) -> None:
    """Write the description and the arrays."""
    np.savez(file, **{DESCRIPTION: np.array(to_json(description))}, **arrays)  # type: ignore[arg-type]


# --- reading --------------------------------------------------------------------------------------


def read(path: Path, shapes: Callable[[Description], Shapes]) -> tuple[Description, Arrays]:
    """The description, and the arrays that ``shapes`` expects of it.

    Raises:
        DataError: the file is missing, damaged or of another kind.
        SeqbenchError: whatever ``shapes`` raises.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _expect_plain(archive, path.stat().st_size)
            description = from_json(_text(archive))
            if description.layers > len(archive.namelist()):
                raise ValueError(f"it has fewer arrays than {description.layers} layers")
            expected = shapes(description)
            _same_names(archive, expected)
            return description, {name: _numbers(archive, name, shape) for name, shape in expected.items()}
    except SeqbenchError:
        raise
    except OSError as error:
        raise DataError(
            f"Cannot read {path}: {error.strerror or error}; name a file that seqbench export wrote."
        ) from error
    except Exception as error:  # a file from outside can break the readers of zip, npy and JSON in any way
        cause = str(error).splitlines()[0] if isinstance(error, ValueError) and str(error) else type(error).__name__
        raise DataError(f"{path} is not a whole file of seqbench export: {cause}; export the trial again.") from error


def _expect_plain(archive: zipfile.ZipFile, size: int) -> None:
    """All that is there together is no larger than the file: nothing grows when it is read."""
    entries = archive.infolist()
    stored = all(entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1 for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > size:
        raise ValueError("its arrays are not stored plainly")


def _same_names(archive: zipfile.ZipFile, expected: Shapes) -> None:
    found = sorted(name.removesuffix(".npy") for name in archive.namelist())
    if found != sorted([DESCRIPTION, *expected]):
        differing = sorted({*found} ^ {DESCRIPTION, *expected}) or ["an array that is there twice"]
        raise ValueError(f"its arrays are not those of its model: {', '.join(differing[:3])}")


def _text(archive: zipfile.ZipFile) -> str:
    shape, dtype, data = _entry(archive, DESCRIPTION)
    if dtype.kind != "U" or shape != ():
        raise ValueError("its description is no text")
    return str(np.frombuffer(data, dtype)[0])


def _numbers(archive: zipfile.ZipFile, name: str, expected: tuple[int, ...]) -> np.ndarray:
    shape, dtype, data = _entry(archive, name)
    if shape != expected or dtype not in (np.float32, np.float64):
        raise ValueError(f"{name} is {dtype} {shape}; expected float32 or float64 {expected}")
    return np.frombuffer(data, dtype).reshape(shape)


def _entry(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any], bytes]:
    """Shape, type and bytes of an array."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} is an array of another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if fortran or dtype.hasobject or math.prod(shape) * dtype.itemsize > info.file_size:
            raise ValueError(f"{name} is {dtype} {shape}, in {info.file_size} bytes")
        data = file.read()  # to the end, where its checksum is compared
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {len(data)} bytes; {dtype} {shape} needs {math.prod(shape) * dtype.itemsize}")
    return shape, dtype, data
