"""Layer normalisation of rows, ``(x - mean) / sqrt(variance + EPSILON) * w + b``, forward and backward.

Rows are ``Hp`` elements, the width ``H`` rounded up to whole vectors; beyond ``H`` what comes in must be 0 (but for
gradients) and what goes out is 0, since ``w`` and ``b`` are. ``statistics (R, 2)``, flat, keeps mean and 1 / deviation.
"""

from __future__ import annotations

import math

from seqbench.backends.kernels.gemm import lanes_of
from seqbench.backends.kernels.jit import compiled
from seqbench.backends.kernels.plain_transformer import EPSILON
from seqbench.backends.kernels.vector import first_lanes, load, spread, store, total


@compiled
def normalise(x, x_at, rows, H, w, b, statistics, first, y, y_at):
    """``rows`` rows of ``x`` from ``x_at`` on to ``y``; their statistics from row ``first`` on."""
    Hp, lanes = w.size, lanes_of(x)
    for r in range(rows):
        at, to = x_at + r * Hp, y_at + r * Hp
        mean, inverse = _statistics(x, at, H, Hp, lanes)
        statistics[2 * (first + r)], statistics[2 * (first + r) + 1] = mean, inverse
        for n in range(0, Hp, lanes):
            store(y, to + n, (load(x, at + n) - mean) * inverse * load(w, n) + load(b, n))


@compiled
def _statistics(x, at, H, Hp, lanes):
    """Mean and 1 / deviation of one row, the latter in a second pass, which loses nothing."""
    added = load(x, at)
    for n in range(lanes, Hp, lanes):
        added = added + load(x, at + n)
    mean = total(added) / H
    squares = spread(added, 0.0)
    for n in range(0, Hp, lanes):
        away = first_lanes(load(x, at + n) - mean, H - n, 0.0)
        squares = squares + away * away
    return mean, 1 / math.sqrt(total(squares) / H + EPSILON)


@compiled
def normalise_again(x, x_at, rows, w, b, statistics, first, y, y_at):
    """What ``normalise`` gave, from its statistics."""
    Hp, lanes = w.size, lanes_of(x)
    for r in range(rows):
        mean, inverse = statistics[2 * (first + r)], statistics[2 * (first + r) + 1]
        for n in range(0, Hp, lanes):
            store(y, y_at + r * Hp + n, (load(x, x_at + r * Hp + n) - mean) * inverse * load(w, n) + load(b, n))


@compiled
def normalise_back(d, d_at, x, x_at, rows, H, w, statistics, first, other, other_at, add, dx, dx_at, dw, db):
    """``dx`` (plus ``other``, with ``add``) and the sums ``dw += ``, ``db += `` of ``rows`` rows.

    With ``x^`` the normalised row and ``g = d w``: ``dx = (g - mean(g) - x^ mean(g x^)) / deviation``.
    """
    Hp, lanes = w.size, lanes_of(x)
    _parameters_back(d, d_at, x, x_at, rows, statistics, first, dw, db)  # before dx, which may lie where d is
    for r in range(rows):
        at, source, to = d_at + r * Hp, x_at + r * Hp, dx_at + r * Hp
        mean, inverse = statistics[2 * (first + r)], statistics[2 * (first + r) + 1]
        added = spread(load(x, source), 0.0)
        with_x = added
        for n in range(0, Hp, lanes):
            normal = (load(x, source + n) - mean) * inverse
            g = load(d, at + n) * load(w, n)
            added = added + g
            with_x = with_x + g * normal
        shift, slope = total(added) / H, total(with_x) / H
        for n in range(0, Hp, lanes):
            normal = (load(x, source + n) - mean) * inverse
            value = (load(d, at + n) * load(w, n) - shift - normal * slope) * inverse
            if add:
                value = value + load(other, other_at + r * Hp + n)
            store(dx, to + n, value)


@compiled
def _parameters_back(d, d_at, x, x_at, rows, statistics, first, dw, db):
    """Sums over rows, of each column in turn, so that they stay in registers."""
    Hp, lanes = dw.size, lanes_of(x)
    for n in range(0, Hp, lanes):
        sum_w = spread(load(dw, n), 0.0)
        sum_b = sum_w
        for r in range(rows):
            mean, inverse = statistics[2 * (first + r)], statistics[2 * (first + r) + 1]
            value = load(d, d_at + r * Hp + n)
            sum_w = sum_w + value * ((load(x, x_at + r * Hp + n) - mean) * inverse)
            sum_b = sum_b + value
        store(dw, n, load(dw, n) + sum_w)
        store(db, n, load(db, n) + sum_b)
