"""Stream: a network read from a file gives what torch's network gives, wherever torch is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import Exported, exported
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.api import Form, Tokens, UsageError, Vectors
from seqbench.streaming import Stream
from seqbench_models import gru, janet, lstm, rnn

SETTINGS = [(rnn.card, {"nonlinearity": "relu"}), (lstm.card, {}), (gru.card, {}), (gru.card, {"reset_after": False}),
            (janet.card, {"beta": 0.7})]  # fmt: skip
IDS = ["rnn-relu", "lstm", "gru", "gru-before", "janet"]
V = 13
TEXT = Form(Tokens(V), output=V, head="step", target="class", length=12)
VALUES = Form(Vectors(3), output=2, head="pooled", target="value", length=12)


def token_sequence(made: Exported, tokens: np.ndarray) -> np.ndarray:
    """Torch's outputs at every step: ``(B, T)`` to ``(B, T, N)``."""
    with torch.no_grad():
        return made.network(torch.from_numpy(tokens)).numpy()


def loaded(made: Exported, folder: Path, **options: Any) -> Stream:
    return Stream.load(made.write(folder / "model.npz"), **options)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Path]:
    made = exported(lstm.card, TEXT, 19, 2, torch.float32)
    return made, made.write(tmp_path_factory.mktemp("text") / "model.npz")


@pytest.mark.parametrize(("card", "options"), SETTINGS, ids=IDS)
@settings(max_examples=15, deadline=None)
@given(width=st.integers(1, 40), layers=st.integers(1, 2), size=st.integers(1, 20), data=st.data())
def test_tokens_and_vectors_equal_torch_in_float64(
    tmp_path_factory: pytest.TempPathFactory, card: Any, options: dict[str, Any], width: int, layers: int, size: int,
    data: st.DataObject,
) -> None:  # fmt: skip
    """Heads at every step, and on the sequence so far, to 1e-10."""
    pooled = data.draw(st.booleans())
    input_ = data.draw(st.sampled_from([Tokens(size), Vectors(size)]))
    form = Form(input_, output=5, head="pooled" if pooled else "step", target="class", length=12)
    made = exported(card, form, width, layers, **options)
    stream = loaded(made, tmp_path_factory.mktemp("equal"), weights="float64")
    rng, T = np.random.default_rng(size), 6
    x = rng.integers(0, size, T) if isinstance(input_, Tokens) else rng.normal(size=(T, size))
    got = np.array([stream.step(x_t) for x_t in x])
    with torch.no_grad():
        so_far = [
            made.network(torch.from_numpy(x)[None, : t + 1]) for t in range(T)
        ]  # pooled (1, N), else (1, t + 1, N)
    want = np.array([y[0].numpy() if pooled else y[0, -1].numpy() for y in so_far])  # (T, N)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-10)


def test_several_streams_are_each_their_own(text: tuple[Exported, Path]) -> None:
    made, path = text
    tokens = np.random.default_rng(0).integers(0, V, (3, 8))
    stream = Stream.load(path, batch=3)
    got = np.stack([stream.step(tokens[:, t]) for t in range(8)], axis=1)  # (B, T, N)
    np.testing.assert_allclose(got, token_sequence(made, tokens), rtol=0, atol=2e-6)
    alone = Stream.load(path)
    np.testing.assert_array_equal(got[1], [alone.step(token) for token in tokens[1]])


def test_one_stream_with_that_axis(text: tuple[Exported, Path]) -> None:
    one, none = Stream.load(text[1], batch=1), Stream.load(text[1])
    for token in (3, 1):
        np.testing.assert_array_equal(one.step([token]), none.step(token)[None])
    assert one.state.shape == (2, 2, 1, 19)


def test_several_streams_of_vectors(tmp_path: Path) -> None:
    made = exported(gru.card, VALUES, 11)
    stream, x = loaded(made, tmp_path, weights="float64", batch=2), np.random.default_rng(0).normal(size=(2, 4, 3))
    got = [stream.step(x[:, t]) for t in range(4)][-1]
    with torch.no_grad():
        np.testing.assert_allclose(got, made.network(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-12)


def test_a_state_is_where_a_sequence_goes_on(text: tuple[Exported, Path]) -> None:
    stream = Stream.load(text[1])
    first = [stream.step(token) for token in (1, 2, 3)]
    state = stream.state
    assert state.shape == (2, 2, 19)  # layers, h and c, width
    after = stream.step(4)
    stream.reset()
    np.testing.assert_array_equal(stream.step(1), first[0])
    stream.state = state
    np.testing.assert_array_equal(stream.step(4), after)
    state[:] = 7  # what was taken or given is a copy
    stream.state = state
    state[:] = 8
    assert (stream.state == 7).all()
    with pytest.raises(UsageError, match=r"a state has shape \(2, 19\); expected \(2, 2, 19\)"):
        stream.state = state[0]


def test_outputs_are_new_unless_a_place_is_given(text: tuple[Exported, Path]) -> None:
    stream, other = Stream.load(text[1]), Stream.load(text[1])
    first = stream.step(1)
    kept = first.copy()
    stream.step(2)
    np.testing.assert_array_equal(first, kept)
    place = np.empty(V, np.float32)
    assert other.step(1, place) is place
    np.testing.assert_array_equal(place, kept)


def test_inputs_of_other_kinds_are_converted(tmp_path: Path) -> None:
    made = exported(gru.card, VALUES, 11, dtype=torch.float32)
    path = made.write(tmp_path / "model.npz")
    x = np.float32([0.5, -1.0, 2.0])
    want = Stream.load(path).step(x)
    readonly = x.copy()
    readonly.flags.writeable = False
    for same in (x.astype(np.float64), x.tolist(), np.repeat(x, 2)[::2], readonly, [1 / 2, -1, 2]):
        np.testing.assert_array_equal(Stream.load(path).step(same), want)


def test_tokens_of_other_kinds_are_converted(text: tuple[Exported, Path]) -> None:
    want = Stream.load(text[1]).step(5)
    for same in (np.int32(5), np.uint8(5), np.array(5), torch.tensor(5)):
        np.testing.assert_array_equal(Stream.load(text[1]).step(same), want)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (V, "expected tokens from 0 to 12"),
        (-1, "expected tokens from 0 to 12"),
        (1.0, r"of type float; expected whole numbers, the tokens, of shape \(\)"),
        ("a", "of type str; expected whole numbers"),
        ([1], r"of type list; expected whole numbers, the tokens, of shape \(\)"),
        (np.array([1, 2]), r"a int64 array \(2,\); expected whole numbers"),
    ],
)
def test_wrong_tokens_are_refused(text: tuple[Exported, Path], x: Any, message: str) -> None:
    stream = Stream.load(text[1])
    with pytest.raises(UsageError, match=message):
        stream.step(x)
    assert not stream.state.any()


def test_wrong_vectors_and_places_are_refused(tmp_path: Path) -> None:
    stream = loaded(exported(gru.card, VALUES, 11, dtype=torch.float32), tmp_path)
    with pytest.raises(UsageError, match=r"x has shape \(2,\); expected \(3,\)"):
        stream.step(np.ones(2, np.float32))
    with pytest.raises(UsageError, match=r"x has shape \(\); expected \(3,\)"):
        stream.step(1.0)
    with pytest.raises(UsageError, match="x is of type str; expected numbers"):
        stream.step("abc")
    x = np.ones(3, np.float32)
    for wrong in (np.empty(3, np.float32), np.empty(2), np.empty(4, np.float32)[::2], [0.0, 0.0]):
        with pytest.raises(UsageError, match=r"expected a contiguous float32 array \(2,\), or None"):
            stream.step(x, wrong)  # type: ignore[arg-type]
    assert not stream.state.any()


def test_batches_of_another_size_are_refused(text: tuple[Exported, Path]) -> None:
    stream = Stream.load(text[1], batch=2)
    for wrong in ([1, 2, 3], [[1, 2]], 1):
        with pytest.raises(UsageError, match=r"of shape \(2,\)"):
            stream.step(wrong)
    with pytest.raises(UsageError, match=r"x is \[1, 13\]; expected tokens from 0 to 12"):
        stream.step([1, V])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"weights": "int8"}, "expected float32, bfloat16 or float64"), ({"batch": 0}, "batch is 0; expected at least 1")],
)
def test_wrong_arguments_are_refused(text: tuple[Exported, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Stream.load(text[1], **options)


def test_bfloat16_comes_near_and_is_not_the_same(text: tuple[Exported, Path]) -> None:
    fine, coarse = Stream.load(text[1]), Stream.load(text[1], weights="bfloat16")
    tokens = np.random.default_rng(0).integers(0, V, 64)
    a, b = (np.array([stream.step(token) for token in tokens]) for stream in (fine, coarse))
    assert 1e-5 < np.linalg.norm(a - b) / np.linalg.norm(a) < 2e-2


# --- generating -------------------------------------------------------------------------------------


def test_generates_what_the_network_is_likeliest_to_say(text: tuple[Exported, Path]) -> None:
    made, path = text
    said = Stream.load(path).generate([1, 2], 6, np.random.default_rng(0), temperature=0)
    tokens = [1, 2]
    for _ in range(6):
        tokens.append(int(token_sequence(made, np.array([tokens]))[0, -1].argmax()))
    assert said.tolist() == tokens[2:]


def test_generates_side_by_side_and_goes_on_from_where_it_is(text: tuple[Exported, Path]) -> None:
    two = Stream.load(text[1], batch=2)
    said = two.generate([[1, 2], [3, 4]], 5, np.random.default_rng(0), temperature=0)
    assert said.shape == (2, 5)
    one = Stream.load(text[1])
    np.testing.assert_array_equal(one.generate([3, 4], 3, np.random.default_rng(0), temperature=0), said[1, :3])
    np.testing.assert_array_equal(one.generate(said[1, 2:3], 2, np.random.default_rng(0), temperature=0), said[1, 3:])


def test_what_does_not_generate_says_so(text: tuple[Exported, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="The prompt is empty"):
        Stream.load(text[1]).generate([], 3, rng)
    with pytest.raises(UsageError, match="does not say what comes next"):
        loaded(exported(gru.card, VALUES), tmp_path).generate([1], 3, rng)


# --- without torch ----------------------------------------------------------------------------------

PROGRAM = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {allowed!r} | set(sys.stdlib_module_names):
            raise ImportError(f"{{name}} is not installed here")
sys.meta_path.insert(0, Nothing())
import numpy as np
from seqbench.streaming import Stream
stream = Stream.load(sys.argv[1])
np.save(sys.argv[2], [stream.step(token) for token in (3, 1, 4, 1, 5)])
stream.generate([1], 3, np.random.default_rng(0))
print("torch" in sys.modules)
"""


def test_streams_with_numba_and_numpy_alone(text: tuple[Exported, Path], tmp_path: Path) -> None:
    """pluggy too, through which the model is found; nothing else that is not Python's own may be imported."""
    made, path = text
    allowed = {"seqbench", "seqbench_models", "seqbench_tasks", "numba", "numpy", "llvmlite", "pluggy"}
    program, found = PROGRAM.format(allowed=allowed), tmp_path / "found.npy"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(found)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]
    want = token_sequence(made, np.array([[3, 1, 4, 1, 5]]))[0]
    np.testing.assert_allclose(np.load(found), want, rtol=0, atol=2e-6)
