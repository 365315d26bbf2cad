"""A stack of residual blocks, from numpy arrays to numpy arrays: the fast kernels and the plain ones.

The buffers are described in ``convolution``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from seqbench.backends.kernels import convolution, plain_convolution
from seqbench.backends.kernels.jit import cached, cached_parallel, made_from, prange, source_digest
from seqbench.backends.kernels.recurrent import aligned, parts_of
from seqbench.backends.kernels.target import HOST

Array = Any


@dataclass(frozen=True)
class Filter:
    """Of one convolution.

    Attributes:
        V: ``(H, D, K)``: the filter, or its direction.
        g: ``(H,)``, its norms; empty: ``V`` is the filter.
        b: ``(H,)``, the bias.
    """

    V: Array
    g: Array
    b: Array


@dataclass(frozen=True)
class Block:
    """The parameters of a block.

    Attributes:
        filters: of both convolutions and, where the widths differ, of the 1x1 convolution beside them.
        dilation: of both convolutions.
    """

    filters: tuple[Filter, ...]
    dilation: int

    @property
    def sizes(self) -> tuple[int, int]:
        """``(D, H)``."""
        H, D, _ = self.filters[0].V.shape
        return D, H

    @property
    def taps(self) -> tuple[int, int]:
        """``(K, dilation)``."""
        return self.filters[0].V.shape[2], self.dilation

    @property
    def reach(self) -> int:
        """``P``, how many steps a convolution looks back."""
        return (self.taps[0] - 1) * self.dilation


@dataclass(frozen=True)
class Before:
    """A state, and how many steps follow it.

    Attributes:
        past: ``(B, S)``, for each convolution a ring of its last ``P`` inputs, one ring after the other.
        position: ``(B,)``, steps written: the next goes to ``position mod P`` of each ring, where the oldest is.
        lengths: ``(B,)``, valid steps of this call.
    """

    past: Array
    position: Array
    lengths: Array

    def oldest_first(self, P: int) -> Array:
        """``(B, P)``, the order of a ring."""
        return (self.position[:, None] + np.arange(P)) % P

    def last(self, P: int) -> Array:
        """``(P, B)``, the ``P`` steps up to each length, among ``P`` steps of the past and those of this call."""
        return np.arange(P)[:, None] + self.lengths


@dataclass(frozen=True)
class Kept:
    """What a forward pass leaves for the backward pass: of every block ``h`` and ``f``; ``x``, and at last ``y``."""

    x: list[Array]
    h: list[Array]
    f: list[Array]


@dataclass(frozen=True)
class Gradients:
    """Of a stack.

    Attributes:
        x: ``(T, B, D)``.
        blocks: of the filters of each block.
        past: ``(B, S)``, in the order of the ring; None where no state came in.
    """

    x: Array
    blocks: list[tuple[Filter, ...]]
    past: Array | None


@dataclass(frozen=True)
class Fast:
    """The compiled functions."""

    pack: Callable[..., Any]
    forward: Callable[..., Any]
    forward_parallel: Callable[..., Any]
    backward: Callable[..., Any]
    backward_parallel: Callable[..., Any]
    filter_gradients: Callable[..., Any]


@cache
def fast() -> Fast:
    """Compiled at their first call, or read from the cache."""
    version = source_digest()

    @cached
    def pack(V, g, transposed, packed):
        made_from(version)
        convolution.pack_filter(V, g, transposed, packed)

    @cached
    def forward(x, h, f, y, T, weights, biases, masks, taps, sizes, training):
        made_from(version)
        convolution.forward_rows(x, h, f, y, T, weights, biases, masks, taps, sizes, 0, x.shape[1], training)

    @cached_parallel
    def forward_parallel(x, h, f, y, T, weights, biases, masks, taps, sizes, training, parts):
        made_from(version)
        for part in prange(parts):
            first, last = convolution.rows_of(x, part, parts)
            convolution.forward_rows(x, h, f, y, T, weights, biases, masks, taps, sizes, first, last, training)

    @cached
    def backward(x, y, d_y, f, h, d_h, d_x, T, weights, scale, taps, sizes, d_taps, d_biases):
        made_from(version)
        convolution.backward_rows(y, d_y, f, h, d_h, d_x, T, weights, scale, taps, sizes, 0, x.shape[1])
        convolution.parameter_gradients(x, d_y, f, h, d_h, T, taps, sizes, d_taps, 0, 1)
        convolution.bias_gradients(d_y, f, d_h, T, d_taps, d_biases)

    @cached_parallel
    def backward_parallel(x, y, d_y, f, h, d_h, d_x, T, weights, scale, taps, sizes, d_taps, d_biases, parts):
        made_from(version)
        for part in prange(parts):
            first, last = convolution.rows_of(x, part, parts)
            convolution.backward_rows(y, d_y, f, h, d_h, d_x, T, weights, scale, taps, sizes, first, last)
        for part in prange(parts):
            convolution.parameter_gradients(x, d_y, f, h, d_h, T, taps, sizes, d_taps, part, parts)
        convolution.bias_gradients(d_y, f, d_h, T, d_taps, d_biases)

    @cached
    def filter_gradients(V, g, d_taps, d_V, d_g):
        made_from(version)
        convolution.filter_gradients(V, g, d_taps, d_V, d_g)

    return Fast(pack, forward, forward_parallel, backward, backward_parallel, filter_gradients)


@cache
def slow() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Forward, backward, and the taps of a filter, in plain loops."""
    version = source_digest()

    @cached
    def forward(x, h, f, y, W, biases, masks, dilation, T):
        made_from(version)
        plain_convolution.plain_forward(x, h, f, y, W, biases, masks, dilation, T)

    @cached
    def backward(x, y, d_y, f, h, d_h, d_x, T, W, scale, dilation, d_W, d_biases):
        made_from(version)
        plain_convolution.plain_backward(x, y, d_y, f, h, d_h, d_x, T, W, scale, dilation, d_W, d_biases)

    @cached
    def taps(V, g, W):
        made_from(version)
        convolution.filter_taps(V, g, W)

    return forward, backward, taps


class Kernels:
    """A stack of blocks, run by the fast kernels or the plain ones.

    Args:
        plain: run plain loops.
    """

    def __init__(self, plain: bool = False) -> None:
        self.plain = plain

    def padded(self, n: int, dtype: Any) -> int:
        """``n`` rounded up to whole vectors; plain loops need no padding."""
        lanes = 1 if self.plain else HOST.lanes(np.dtype(dtype).itemsize)
        return -(-n // lanes) * lanes

    # --- forward ----------------------------------------------------------------------------------

    def forward(
        self, x: Array, blocks: Sequence[Block], masks: Sequence[Array], before: Before | None, training: bool,
        threads: int = 1,
    ) -> Kept:  # fmt: skip
        """All steps.

        Args:
            x: ``(T, B, D)``.
            blocks: their parameters, contiguous, of the same dtype.
            masks: two a block, ``(T, B, H)``, 0 or ``1 / (1 - p)``; empty: no dropout.
            before: a state, or None: nothing before the first step.
            training: keep what the backward pass needs.
            threads: parts of the batch that run at the same time.
        """
        T, B, _ = x.shape
        kept = Kept(self._inputs(x, blocks, before is not None), [], [])
        rings = _rings(blocks)
        for n, block in enumerate(blocks):
            D, H = block.sizes
            P = block.reach if before else 0
            h = self._steps(P + T, B, H, x.dtype)
            if before:
                _take_past(before, rings[2 * n], P, kept.x[n], D)
                _take_past(before, rings[2 * n + 1], P, h, H)
            f = self._steps(T, B, H, x.dtype)
            parts = parts_of(B, threads)
            self._run_forward(block, kept.x[n], h, f, kept.x[n + 1], T, masks[2 * n : 2 * n + 2], training, parts)
            kept.h.append(h)
            kept.f.append(f)
        return kept

    def _inputs(self, x: Array, blocks: Sequence[Block], with_past: bool) -> list[Array]:
        """Every block's input, and the last output; ``x`` is there."""
        T, B, D = x.shape
        widths = [D] + [block.sizes[1] for block in blocks]
        pasts = [block.reach if with_past else 0 for block in blocks] + [0]
        found = [self._steps(P + T, B, C, x.dtype) for P, C in zip(pasts, widths, strict=True)]
        found[0][pasts[0] :, :, :D] = x
        return found

    def _steps(self, steps: int, B: int, C: int, dtype: Any, zero: bool = False) -> Array:
        """A buffer ``(steps, B, Cp)``; the channels beyond ``C`` are zero."""
        Cp = self.padded(C, dtype)
        return aligned((steps, B, Cp), dtype, zero or Cp != C)

    def _run_forward(
        self, block: Block, x: Array, h: Array, f: Array, y: Array, T: int, masks: Sequence[Array], training: bool,
        parts: int,
    ) -> None:  # fmt: skip
        masks = tuple(self._mask(mask, x.dtype) for mask in (*masks, *(2 - len(masks)) * [None]))
        biases = tuple(self._padded_bias(filter_, x.dtype) for filter_ in block.filters)
        if self.plain:
            slow()[0](x, h, f, y, self._taps(block, x.dtype), _three(biases), masks, block.dilation, T)
            return
        arguments = (x, h, f, y, T, self._packed(block, False, x.dtype), _three(biases), masks, block.taps, block.sizes)
        if parts == 1:
            fast().forward(*arguments, training)
        else:
            fast().forward_parallel(*arguments, training, parts)

    def _mask(self, mask: Array | None, dtype: Any) -> Array:
        if mask is None:
            return np.empty((0, 0, 0), dtype)
        T, B, H = mask.shape
        padded = self._steps(T, B, H, dtype)
        padded[:, :, :H] = mask
        return padded

    def _padded_bias(self, filter_: Filter, dtype: Any) -> Array:
        H = filter_.b.size
        bias = aligned((self.padded(H, dtype),), dtype, zero=True)
        bias[:H] = filter_.b
        return bias

    def _taps(self, block: Block, dtype: Any) -> tuple[Array, ...]:
        """For plain loops: ``(K, H, D)`` of each filter."""
        found = []
        for filter_ in block.filters:
            H, D, K = filter_.V.shape
            found.append(np.empty((K, H, D), dtype))
            slow()[2](filter_.V, filter_.g, found[-1])
        return _three(found, 3)

    def _packed(self, block: Block, transposed: bool, dtype: Any) -> tuple[Array, ...]:
        """For the fast kernels: of each filter all taps, packed."""
        found = []
        for filter_ in block.filters:
            H, D, K = filter_.V.shape
            size = H * self.padded(D, dtype) if transposed else D * self.padded(H, dtype)
            found.append(aligned((K * size,), dtype))
            fast().pack(filter_.V, filter_.g, transposed, found[-1])
        return _three(found)

    # --- backward ---------------------------------------------------------------------------------

    def backward(
        self, kept: Kept, blocks: Sequence[Block], d_y: Array, scale: float, before: Before | None,
        d_after: Array | None, threads: int = 1,
    ) -> Gradients:  # fmt: skip
        """Every gradient; what was kept is used up.

        Args:
            kept: of ``forward`` with ``training``.
            blocks: their parameters.
            d_y: ``(T, B, H)``.
            scale: ``1 / (1 - p)`` of the dropout.
            before: as in ``forward``.
            d_after: ``(B, S)``, the gradient of what ``after`` gave, or None for zeros.
            threads: as in ``forward``.
        """
        T, B, H = d_y.shape
        dtype, rings = d_y.dtype, _rings(blocks)
        d_past = None if before is None else np.zeros_like(before.past)
        d_out = self._steps(T, B, H, dtype)
        d_out[:, :, :H] = d_y
        found: list[tuple[Filter, ...]] = []
        for n in range(len(blocks) - 1, -1, -1):
            block = blocks[n]
            D, H = block.sizes
            d_h = self._steps(kept.h[n].shape[0], B, H, dtype, zero=True)
            d_x = self._steps(kept.x[n].shape[0], B, D, dtype, zero=True)
            if before is not None and d_after is not None:
                _add_last(before, d_after, rings[2 * n], block.reach, d_x, D)
                _add_last(before, d_after, rings[2 * n + 1], block.reach, d_h, H)
            arrays = (kept.x[n], kept.x[n + 1], d_out, kept.f[n], kept.h[n], d_h, d_x, T)
            found.append(self._run_backward(block, arrays, scale, parts_of(B, threads)))
            if before is not None and d_past is not None:
                _give_past(before, d_past, rings[2 * n], block.reach, d_x, D)
                _give_past(before, d_past, rings[2 * n + 1], block.reach, d_h, H)
            d_out = d_x
        D = blocks[0].sizes[0]
        return Gradients(d_out[d_out.shape[0] - T :, :, :D], found[::-1], d_past)

    def _run_backward(
        self, block: Block, arrays: tuple[Any, ...], scale: float, parts: int
    ) -> tuple[Filter, ...]:
        dtype = arrays[0].dtype
        d_taps, d_biases = [], []
        for filter_ in block.filters:
            H, D, K = filter_.V.shape
            Hp, Dp = self.padded(H, dtype), self.padded(D, dtype)
            d_taps.append(aligned((K, Hp, Dp), dtype, zero=True))
            d_biases.append(aligned((Hp,), dtype, zero=True))
        sums = (_three(d_taps, 3), _three(d_biases))
        scale = dtype.type(scale)
        if self.plain:
            slow()[1](*arrays, self._taps(block, dtype), scale, block.dilation, *sums)
        elif parts == 1:
            fast().backward(*arrays, self._packed(block, True, dtype), scale, block.taps, block.sizes, *sums)
        else:
            weights = self._packed(block, True, dtype)
            fast().backward_parallel(*arrays, weights, scale, block.taps, block.sizes, *sums, parts)
        return tuple(_filter_gradient(f, *d) for f, *d in zip(block.filters, d_taps, d_biases, strict=True))


def _filter_gradient(filter_: Filter, d_taps: Array, d_bias: Array) -> Filter:
    d_V, d_g = np.empty_like(filter_.V), np.empty_like(filter_.g)
    fast().filter_gradients(filter_.V, filter_.g, d_taps, d_V, d_g)
    return Filter(d_V, d_g, d_bias[: filter_.b.size])


def _three(arrays: Sequence[Array], axes: int = 1) -> tuple[Array, ...]:
    """With an empty one in the place of a 1x1 convolution that is not there."""
    empty = np.empty((0,) * axes, arrays[0].dtype)
    return (*arrays, empty)[:3]


# --- the past of a convolution's input ------------------------------------------------------------


def state_size(blocks: Sequence[Block]) -> int:
    """``S``: of all rings together."""
    return _rings(blocks)[-1]


def after(kept: Kept, blocks: Sequence[Block], before: Before) -> Array:
    """``(B, S)``: every ring after each row's last valid step, the oldest input first."""
    rings, B = _rings(blocks), before.past.shape[0]
    found = np.empty_like(before.past)
    for n, block in enumerate(blocks):
        for ring, buffer, C in ((2 * n, kept.x[n], block.sizes[0]), (2 * n + 1, kept.h[n], block.sizes[1])):
            last = buffer[before.last(block.reach), np.arange(B)]  # (P, B, Cp)
            _ring(found, rings[ring], block.reach, C)[:] = last[:, :, :C].transpose(1, 0, 2)
    return found


def _rings(blocks: Sequence[Block]) -> list[int]:
    """Where the ring of each convolution begins, two a block, and where the last one ends."""
    places = [0]
    for block in blocks:
        places += [places[-1] + block.reach * block.sizes[0]]
        places += [places[-1] + block.reach * block.sizes[1]]
    return places


def _ring(past: Array, at: int, P: int, C: int) -> Array:
    """One ring, ``(B, P, C)``."""
    return past[:, at : at + P * C].reshape(-1, P, C)


def _take_past(before: Before, at: int, P: int, x: Array, C: int) -> None:
    """The first ``P`` steps of ``x (P + T, B, Cp)`` from a ring."""
    rows = np.arange(x.shape[1])[:, None]
    x[:P, :, :C] = _ring(before.past, at, P, C)[rows, before.oldest_first(P)].transpose(1, 0, 2)


def _give_past(before: Before, d_past: Array, at: int, P: int, d_x: Array, C: int) -> None:
    """The gradient of a ring from the first ``P`` steps of ``d_x``."""
    rows = np.arange(d_x.shape[1])[:, None]
    _ring(d_past, at, P, C)[rows, before.oldest_first(P)] = d_x[:P, :, :C].transpose(1, 0, 2)


def _add_last(before: Before, d_after: Array, at: int, P: int, d_x: Array, C: int) -> None:
    """The gradient of the steps that ``after`` took."""
    rows = np.arange(d_x.shape[1])
    d_x[before.last(P), rows, :C] += _ring(d_after, at, P, C).transpose(1, 0, 2)
