"""Values made from parameters and kept until one of these changes."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any

from torch import Tensor


class Derived:
    """One such value.

    Changes are seen by the version that torch counts for every tensor, and by its address, which alone ``Module.to``
    changes. Other writes through ``.data`` leave no trace, so ``forget`` on every change of mode.
    """

    def __init__(self) -> None:
        self._value: Any = None
        self._parameters: list[Tensor] = []
        self._marks: list[tuple[int, int]] = []

    def __reduce__(self) -> Any:
        """A copy makes its own: the value may hold addresses of the parameters."""
        return Derived, ()

    def get(self, parameters: list[Tensor], make: Callable[[], Any]) -> Any:
        """What was kept, or ``make()`` if a parameter is another one, or changed, since."""
        marks = [(p._version, p.data_ptr()) for p in parameters]  # noqa: SLF001 - counts in-place changes
        same = marks == self._marks and all(map(is_, parameters, self._parameters))
        if self._value is None or not same:
            self._value, self._parameters, self._marks = make(), parameters, marks
        return self._value

    def forget(self) -> None:
        """Make it anew the next time."""
        self._value = None
