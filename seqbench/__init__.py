"""seqbench: a plugin-based comparison benchmark harness for sequence models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqbench.results import Results

__version__ = "0.1.0"
__all__ = ["__version__", "run"]


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
