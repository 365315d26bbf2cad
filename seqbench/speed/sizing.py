"""The part of planning that needs torch: runs in a child process."""

from __future__ import annotations

from collections.abc import Sequence

from seqbench.errors import DataError, UsageError
from seqbench.plan import Row
from seqbench.sizing import Scene, cards_of_rows, choose_device, describe_torch, scene_of, size_on
from seqbench.speed.spec import PLAIN_FORM, SpeedAnswer, at_length


def size_networks(
    rows: Sequence[Row], plugins: Sequence[str], data_dir: str | None, device: str, longest: int
) -> SpeedAnswer:
    """Solve the size of each row's network for sequences of the greatest length; all rows are on one task, or none."""
    try:
        chosen = choose_device(device)
        if not rows:
            return SpeedAnswer("", chosen, (), describe_torch(chosen))
        cards = cards_of_rows(rows, plugins)
        form = scene_of(rows[0], cards, data_dir).form if rows[0].task else PLAIN_FORM
        if isinstance(form, Exception):
            raise UsageError(f"Task {rows[0].task_label} cannot be prepared: {type(form).__name__}: {form}")
        form = at_length(form, longest)
        sizes = tuple(size_on(chosen, row, cards, Scene(form)) for row in rows)
    except (UsageError, DataError) as error:
        return SpeedAnswer(error=str(error))
    return SpeedAnswer("", chosen, sizes, describe_torch(chosen), form)
