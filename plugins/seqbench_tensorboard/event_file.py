"""An event file of TensorBoard, with the names that we give to what is in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqbench.api import UsageError

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise UsageError(
        f"TensorBoard's event files need the package tensorboard ({error}): pip install 'seqbench[tensorboard]'."
    ) from error


class EventFile:
    """Of one trial."""

    def __init__(self, folder: Path) -> None:
        self._writer: Any = SummaryWriter(str(folder))

    def trial(self, trial: Mapping[str, Any]) -> None:
        """What the trial is, as text."""
        lines = json.dumps(trial, indent=2, ensure_ascii=False).splitlines()
        self._writer.add_text("trial", "\n".join(f"    {line}" for line in lines))  # Markdown: code

    def scalars(self, group: str, values: Mapping[str, float | None], step: int, wall: float | None = None) -> None:
        """The points ``group/name`` at ``step``, those that are numbers; ``wall``: seconds since 1970, None: now."""
        for name, value in values.items():
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(f"{group}/{name}", value, step, wall)

    def flush(self) -> None:
        """For whoever looks on while it trains."""
        self._writer.flush()

    def close(self) -> None:
        """Nothing more will come."""
        self._writer.close()
