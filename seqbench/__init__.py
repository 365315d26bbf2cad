"""seqbench: a plugin-based comparison benchmark harness for sequence models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqbench.results import Results
    from seqbench.speed.run import Speeds

__version__ = "0.1.0"
__all__ = ["__version__", "measure_speed", "run"]


def run(**options: Any) -> Results:
    """Run a comparison: ``seqbench.run(task="copy", models=["lstm", "tcn"], seeds=3)``.

    Args:
        **options: what ``seqbench run`` takes, by the same names (``seqbench.spec.RunSpec`` lists them).

    Returns:
        The results: ``.frame`` (pandas, one row a trial), ``.summary``, ``.write_report()``.

    Raises:
        seqbench.errors.UsageError: an option is not what it should be.
    """
    from seqbench.pipeline import run_from_python

    return run_from_python(options)


def measure_speed(**options: Any) -> Speeds:
    """Measure time and memory apart from training: ``seqbench.measure_speed(models=["lstm", "tcn"], lengths=[64])``.

    Args:
        **options: what ``seqbench speed`` takes, by the same names.

    Returns:
        The figures: ``.frame`` (pandas, one row a model, operation, length and batch), ``.path`` of their folder.

    Raises:
        seqbench.errors.UsageError: an option is not what it should be.
    """
    from seqbench.speed.run import run_from_python

    return run_from_python(options)
