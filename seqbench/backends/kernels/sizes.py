"""Whether arrays fit one another: compiled functions would read, and write, whatever lies behind them."""

from __future__ import annotations


def check_input(found: int, expected: int) -> None:
    """Whether the input has as many numbers a step as the parameters are for.

    Raises:
        ValueError: it has not.
    """
    if found != expected:
        raise ValueError(f"the input has {found} numbers a step; expected {expected}")


def check_sequences(found: int, expected: int) -> None:
    """Whether a state is of as many sequences as the input.

    Raises:
        ValueError: it is not.
    """
    if found != expected:
        raise ValueError(f"the state is of {found} sequences; expected {expected}, as the input")
