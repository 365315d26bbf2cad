"""Files of exported networks: whole ones are read, all others get one line, and nothing in them is run."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import Exported, exported
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.api import DataError, Form, SeqbenchError, Tokens, Vectors
from seqbench.streaming import Stream
from seqbench.streaming.file import Description, from_json, shapes_of, to_json
from seqbench.streaming.network import recurrence_of
from seqbench_models import lstm

FORM = Form(Tokens(5), output=5, head="step", target="class", length=12)


@pytest.fixture(scope="module")
def made() -> Exported:
    return exported(lstm.card, FORM, 4, dtype=torch.float32)


@pytest.fixture
def content(made: Exported) -> dict[str, np.ndarray]:
    """What lies in a whole file."""
    return {"description": np.array(to_json(made.description)), **made.arrays}


def refused(path: Path, kind: type[SeqbenchError] = DataError) -> str:
    """The one line."""
    with pytest.raises(kind) as caught:
        Stream.load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def store(folder: Path, content: dict[str, Any], write: Callable[..., None] = np.savez) -> Path:
    path = folder / "model.npz"
    write(path, **content)
    return path


def test_a_whole_file_is_plain_numpy(made: Exported, tmp_path: Path) -> None:
    path = made.write(tmp_path / "model.npz")
    with np.load(path, allow_pickle=False) as file:
        said = json.loads(str(file["description"]))
        assert (said["format"], said["version"], said["model"]) == ("seqbench-stream", 1, "lstm")
        assert file["layers.0.W"].shape == (16, 4)
    stream = Stream.load(path)
    assert stream.description == made.description
    assert str(stream.description) == "lstm on made-up/embedded"


def test_a_description_survives_json(made: Exported) -> None:
    words = ("a", "\0", "\ud7ff\U0001f600", '"', "")
    d = dataclasses.replace(made.description, vocabulary=words)
    assert from_json(to_json(d)) == d
    d = dataclasses.replace(d, input="vectors", vocabulary=None)
    assert from_json(to_json(d)) == d


def test_what_is_no_such_file(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    assert "Cannot read" in refused(tmp_path / "none.npz")
    assert "Cannot read" in refused(tmp_path)
    for number, data in enumerate((b"", b"PK", b"not a zip", b"\x93NUMPY" + bytes(100))):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(data)
        assert "is not a whole file of seqbench export" in refused(path)
    assert "export the trial again" in refused(store(tmp_path, {"a": np.zeros(3)}))


DESCRIPTIONS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda d: d | {"format": "other"}, "another format"),
    (lambda d: [d], "another format"),
    (lambda d: d | {"version": 2}, "it has version 2, this seqbench reads version 1"),
    (lambda d: d | {"more": 1}, "its description differs in more"),
    (lambda d: {k: v for k, v in d.items() if k != "width"}, "its description differs in width"),
    (lambda d: d | {"width": "4"}, "its width is not a whole number above 0"),
    (lambda d: d | {"width": 4.0}, "its width is not a whole number above 0"),
    (lambda d: d | {"layers": True}, "its layers is not a whole number above 0"),
    (lambda d: d | {"layers": 0}, "its layers is not a whole number above 0"),
    (lambda d: d | {"output": -3}, "its output is not a whole number above 0"),
    (lambda d: d | {"model": ["lstm"]}, "its model is not text"),
    (lambda d: d | {"options": [1]}, "its options is not names with values"),
    (lambda d: d | {"input": "sound"}, "its input is not tokens or vectors"),
    (lambda d: d | {"head": "decoder"}, "its head is not step or pooled"),
    (lambda d: d | {"target": None}, "its target is not class or value"),
    (lambda d: d | {"vocabulary": ["a"]}, "its vocabulary is not a text for each of the tokens"),
    (lambda d: d | {"vocabulary": "abcde"}, "its vocabulary is not a text for each of the tokens"),
    (lambda d: d | {"vocabulary": [1, 2, 3, 4, 5]}, "its vocabulary is not a text for each of the tokens"),
    (lambda d: d | {"width": 10**9}, r"input\.weight is float32 \(5, 4\); expected float.* \(5, 1000000000\)"),
    (lambda d: d | {"layers": 10**9}, "it has fewer arrays than 1000000000 layers"),
    (lambda d: d | {"layers": 2}, r"its arrays are not those of its model: layers\.1\.U, layers\.1\.W"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), DESCRIPTIONS)
def test_wrong_descriptions(
    change: Callable[[dict[str, Any]], Any], message: str, content: dict[str, np.ndarray], tmp_path: Path
) -> None:
    changed = change(json.loads(str(content["description"])))
    with pytest.raises(DataError, match=message):
        Stream.load(store(tmp_path, content | {"description": np.array(json.dumps(changed))}))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"width": 1' + "0" * 5000 + "}", "NaN"])
def test_descriptions_that_are_no_json(text: str, content: dict[str, np.ndarray], tmp_path: Path) -> None:
    refused(store(tmp_path, content | {"description": np.array(text)}))


@pytest.mark.parametrize("description", [np.zeros(3), np.array([b"{}"]), np.array(["{}", "{}"]), np.array(1)])
def test_descriptions_that_are_no_text(description: np.ndarray, content: dict[str, np.ndarray], tmp_path: Path) -> None:
    assert "its description is no text" in refused(store(tmp_path, content | {"description": description}))


ARRAYS: list[tuple[str, Callable[[np.ndarray], np.ndarray], str]] = [
    ("layers.0.W", lambda a: a[:, :-1], r"layers\.0\.W is float32 \(16, 3\); expected float32 or float64 \(16, 4\)"),
    ("layers.0.U", lambda a: a.T.copy(), r"layers\.0\.U is float32 \(4, 16\)"),
    ("head.bias", lambda a: a.astype(np.float16), r"head\.bias is float16 \(5,\); expected float32 or float64"),
    ("head.bias", lambda a: a.astype(">f4"), r"head\.bias is >f4"),
    ("head.bias", lambda a: a.astype(np.int64), r"head\.bias is int64"),
    ("head.weight", np.asfortranarray, r"head\.weight is float32 \(5, 4\), in \d+ bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), ARRAYS)
def test_wrong_arrays(
    name: str, change: Callable[[np.ndarray], np.ndarray], message: str, content: dict[str, np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        Stream.load(store(tmp_path, content | {name: change(content[name])}))


def test_arrays_too_many_and_too_few(content: dict[str, np.ndarray], tmp_path: Path) -> None:
    assert "are not those of its model: more" in refused(store(tmp_path, content | {"more": np.zeros(2)}))
    content.pop("head.bias")
    assert "are not those of its model: head.bias" in refused(store(tmp_path, content))


class Trap:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_not_opened(content: dict[str, np.ndarray], tmp_path: Path) -> None:
    trap = np.array([Trap(tmp_path / "sprung")] * 5, object)
    refused(store(tmp_path, content | {"head.bias": trap}))
    refused(store(tmp_path, content | {"description": trap[0:1].reshape(())}))
    assert not (tmp_path / "sprung").exists()


def test_a_compressed_file_is_not_unpacked(content: dict[str, np.ndarray], tmp_path: Path) -> None:
    """A small file must not become a large one in memory, nor one array many."""
    assert "its arrays are not stored plainly" in refused(store(tmp_path, content, np.savez_compressed))
    path = store(tmp_path, content)
    with zipfile.ZipFile(path, "a") as archive:
        for n in range(50):  # entries that all lie where the first one does
            archive.filelist.append(copy.copy(archive.filelist[0]))
            archive.filelist[-1].filename = f"{n}.npy"
        archive._didModify = True  # type: ignore[attr-defined] - so that they are written
    assert "its arrays are not stored plainly" in refused(path)


def test_a_header_that_promises_more_than_is_there(content: dict[str, np.ndarray], tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    path = store(tmp_path, {name: array for name, array in content.items() if name != "head.bias"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("head.bias.npy", header.getvalue() + bytes(20))
    assert "head.bias is float32 (1099511627776,), in " in refused(path)


def test_models_and_options_are_the_installed_ones(content: dict[str, np.ndarray], tmp_path: Path) -> None:
    said = json.loads(str(content["description"]))

    def load(**changes: Any) -> str:
        text = np.array(json.dumps(said | changes))
        return refused(store(tmp_path, content | {"description": text}), SeqbenchError)

    assert "There is no model 'ltsm'. Did you mean 'lstm'?" in load(model="ltsm")
    assert "There is no model 'os:system'" in load(model="os:system")
    assert "There is no option of model 'lstm': 'beta'" in load(options={"beta": 1.0})
    assert "'forget_bias' of model 'lstm' is 'x'; expected a number" in load(options={"forget_bias": "x"})
    message = load(model="tcn", options={})
    assert (
        "tcn cannot be streamed without torch: its card names no recurrence. These can: rnn, lstm, gru, janet"
        in message
    )


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_noticed_wherever_it_is(tmp_path_factory: pytest.TempPathFactory, made: Exported, data: Any) -> None:
    """A byte changed or the end cut off: one line, unless the byte says nothing (a date, say)."""
    path = made.write(tmp_path_factory.mktemp("damage") / "model.npz")
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[at] ^= data.draw(st.integers(1, 255))
    else:
        del whole[at:]
    path.write_bytes(whole)
    try:
        stream = Stream.load(path)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - what loads is as it was, below
    else:
        assert stream.description == made.description
        want = exported(lstm.card, FORM, 4, dtype=torch.float32).network(torch.tensor([[1]]))[0, 0]
        np.testing.assert_allclose(stream.step(1), want.detach().numpy(), rtol=0, atol=1e-6)


def test_sizes_follow_from_description_and_model(cards: Any) -> None:
    recurrence = recurrence_of(cards, "gru", {"reset_after": False})
    d = Description("t", "adding", "embedded", "gru", {}, 6, 2, "vectors", 3, "pooled", 1, "value")
    shapes = shapes_of(d, recurrence)
    assert shapes["input.weight"] == (6, 3)
    assert shapes["layers.1.U"] == (18, 6)
    assert "layers.0.b_h" not in shapes
    made = exported(cards.model("gru"), Form(Vectors(3), 1, "pooled", "value", 12), 6, 2, reset_after=False)
    assert {name: array.shape for name, array in made.arrays.items()} == shapes
