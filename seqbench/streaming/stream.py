"""A trained network, read from a file, one step at a time."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from seqbench import registry
from seqbench.backends.kernels.streaming import Streamer
from seqbench.errors import UsageError
from seqbench.sampling import sample
from seqbench.streaming.file import Arrays, Description, read, shapes_of
from seqbench.streaming.network import recurrence_of, stack_of

if TYPE_CHECKING:
    from seqbench.backends.recurrence import Recurrence

Weights = Literal["float32", "bfloat16", "float64"]


class Stream:
    """A network and where it is in its sequence. ``Stream.load`` reads one from a file.

    Args:
        description: of the network.
        recurrence: what its layers compute.
        arrays: its arrays, as in a file.
        weights: see ``load``.
        batch: see ``load``.

    Attributes:
        description: what the network is; its ``vocabulary`` has the text of each token.

    Not for several threads at a time: give each its own.
    """

    def __init__(
        self,
        description: Description,
        recurrence: Recurrence,
        arrays: Arrays,
        weights: Weights = "float32",
        batch: int | None = None,
    ) -> None:
        self.description = description
        self._dtype = np.dtype(np.float64 if weights == "float64" else np.float32)
        stack = stack_of(description, recurrence, arrays, self._dtype)
        self._streamer = Streamer(stack, batch, narrow=weights == "bfloat16")
        self._batch, self._tokens, self._nothing = batch, stack.tokens, np.empty(0, self._dtype)
        rows = () if batch is None else (batch,)
        self._x_shape, self._y_shape = rows if stack.tokens else (*rows, stack.inputs), (*rows, stack.outputs)
        self._fast = self._fast_step()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        weights: Weights = "float32",
        batch: int | None = None,
        plugins: Sequence[str | Path] = (),
    ) -> Stream:
        """Read a file of ``seqbench export``.

        Args:
            path: of the file.
            weights: how the matrices are kept. ``"bfloat16"``: half the bytes, float32 arithmetic and state;
                ``"float64"``: float64 arithmetic too.
            batch: streams side by side; None: one, without that axis.
            plugins: Python files with the model, if it came from ``--plugin``.

        Raises:
            DataError: the file is missing, damaged or of another kind.
            UsageError: an argument does not fit, or the model's options do not fit the model that is installed.
            Refused: the installed model does not say how to stream it.
        """
        if weights not in ("float32", "bfloat16", "float64"):
            raise UsageError(f"weights is {weights!r}; expected float32, bfloat16 or float64.")
        if batch is not None and batch < 1:
            raise UsageError(f"batch is {batch}; expected at least 1, or None for one stream without that axis.")
        cards = registry.load(plugins)

        def recurrence(description: Description) -> Recurrence:
            return recurrence_of(cards, description.model, description.options)

        description, arrays = read(Path(path), lambda found: shapes_of(found, recurrence(found)))
        return cls(description, recurrence(description), arrays, weights, batch)

    # --- steps ---

    def step(self, x: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Read one token or one vector; give the outputs after it.

        Args:
            x: a token, or a vector ``(size,)``; with ``batch``, tokens ``(B,)`` or vectors ``(B, size)``.
            out: where the outputs go, contiguous and of the network's dtype; None: to a new array.

        Returns:
            ``(N,)``, or with ``batch`` ``(B, N)``: logits, or values.

        Raises:
            UsageError: ``x`` or ``out`` is of another kind or shape, or a token is not in the vocabulary.
        """
        y = np.empty(self._y_shape, self._dtype) if out is None else out
        try:
            done = self._fast(x, y)
        except TypeError:  # an array of another kind, or no whole number: the slow way converts it or says so
            done = False
        if not done:
            self._slow(x, y)
        return y

    def _fast_step(self) -> Callable[[Any, Any], bool]:
        """What makes a step where nothing needs converting; False or TypeError where something does."""
        if self._batch is not None:
            return lambda _x, _y: False
        return self._token if self._tokens else self._vector

    def _token(self, x: Any, y: np.ndarray) -> bool:
        token = operator.index(x)
        return 0 <= token < self._tokens and self._streamer.step(token, self._nothing, y)

    def _vector(self, x: Any, y: np.ndarray) -> bool:
        # The kernel would refuse numbers of another type too, but takes its time.
        return type(x) is np.ndarray and x.dtype is self._dtype and self._streamer.step(0, x, y)

    def _slow(self, x: Any, y: Any) -> None:
        """A step from whatever can be converted.

        Raises:
            UsageError: something cannot.
        """
        fits = isinstance(y, np.ndarray) and y.dtype == self._dtype and y.shape == self._y_shape
        if not (fits and y.flags.c_contiguous and y.flags.writeable):
            expected = f"a contiguous {self._dtype} array {self._y_shape}"
            raise UsageError(f"out is {_kind(y)}; expected {expected}, or None for a new array.")
        rows, vectors = np.zeros(self._batch or 1, np.int64), self._nothing
        if self._tokens:
            rows[...] = self._checked_tokens(x)
        else:
            vectors = self._checked_vectors(x).ravel()
        self._streamer.step(int(rows[0]) if self._batch is None else rows, vectors, y.ravel())

    def _checked_tokens(self, x: Any) -> np.ndarray:
        """int64 ``()`` or ``(B,)``."""
        tokens = np.asarray(x)
        if tokens.dtype.kind not in "iu" or tokens.shape != self._x_shape:
            raise UsageError(f"x is {_kind(x)}; expected whole numbers, the tokens, of shape {self._x_shape}.")
        if tokens.min() < 0 or tokens.max() >= self._tokens:
            raise UsageError(f"x is {x}; expected tokens from 0 to {self._tokens - 1}.")
        return tokens.astype(np.int64)

    def _checked_vectors(self, x: Any) -> np.ndarray:
        """``(size,)`` or ``(B, size)``, contiguous, of the network's dtype, our own."""
        try:
            vectors = np.array(x, self._dtype, order="C")
        except (TypeError, ValueError) as error:
            raise UsageError(f"x is {_kind(x)}; expected numbers of shape {self._x_shape}.") from error
        if vectors.shape != self._x_shape:
            raise UsageError(f"x has shape {vectors.shape}; expected {self._x_shape}.")
        return vectors

    # --- where it is ---

    def reset(self) -> None:
        """Go back to before the first step."""
        self._streamer.states[...] = 0

    @property
    def state(self) -> np.ndarray:
        """All that the next step depends on, a copy: ``(L, states, H)``, or with ``batch`` ``(L, states, B, H)``.

        What is assigned must have that shape; it is copied.
        """
        states = self._streamer.states
        return np.array(states[:, :, 0] if self._batch is None else states)

    @state.setter
    def state(self, value: Any) -> None:
        states = self._streamer.states
        target = states[:, :, 0] if self._batch is None else states
        if np.shape(value) != target.shape:
            raise UsageError(f"a state has shape {np.shape(value)}; expected {target.shape}, as Stream.state gives it.")
        target[...] = value

    # --- text ---

    def generate(self, prompt: Any, steps: int, rng: np.random.Generator, temperature: float = 1.0) -> np.ndarray:
        """Go on from here: read ``prompt``, then draw ``steps`` tokens, each read in its turn but the last.

        Args:
            prompt: tokens, ``(P,)`` or with ``batch`` ``(B, P)``; at least one.
            steps: how many.
            rng: draws.
            temperature: the logits are divided by it; 0 takes the likeliest token.

        Returns:
            int64 ``(steps,)``, or with ``batch`` ``(B, steps)``.

        Raises:
            UsageError: the outputs are not the next token's logits, or the prompt is empty or not tokens.
        """
        d = self.description
        if not (self._tokens == d.output and d.head == "step" and d.target == "class"):
            raise UsageError(f"{d} does not say what comes next after each token: it cannot generate.")
        columns = np.moveaxis(np.asarray(prompt), -1, 0)  # (P,) or (P, B)
        if not len(columns):
            raise UsageError("The prompt is empty; expected at least one token.")
        for tokens in columns:
            logits = self.step(tokens)  # (V,) or (B, V)
        made = np.empty((*self._y_shape[:-1], steps), np.int64)
        for t in range(steps):
            drawn = sample(np.atleast_2d(logits).astype(np.float64), rng, temperature)  # (B,)
            made[..., t] = drawn[0] if self._batch is None else drawn
            if t + 1 < steps:
                logits = self.step(made[..., t])
        return made


def _kind(value: Any) -> str:
    """For messages: what was given, in a word or two."""
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array {value.shape}"
    return f"of type {type(value).__name__}"
