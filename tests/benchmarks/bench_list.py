"""How long ``seqbench list`` takes with many plugins: ``python tests/benchmarks/bench_list.py``.

Each plugin is a distribution of its own with a card of its own, in a folder that is put on the path. The two commands
are timed in turns, each in a fresh interpreter.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUGINS, ROUNDS = 200, 15
CARD = """
from dataclasses import dataclass
from seqbench.api import Model, hookimpl, option

@dataclass(frozen=True)
class Options:
    size: int = option(3, "how large", low=1)

@hookimpl
def register_models(register):
    cores = {{"torch": "stranger_{n}.core:Core"}}
    register.model(Model("stranger-{n}", "A stranger's model.", "none", cores, options=Options))
"""


def main() -> None:
    """Print median and quartiles, without plugins and with them."""
    with tempfile.TemporaryDirectory() as folder:
        for n in range(PLUGINS):
            package, info = Path(folder) / f"stranger_{n}", Path(folder) / f"stranger_{n}-1.0.dist-info"
            package.mkdir()
            (package / "__init__.py").write_text(CARD.format(n=n), encoding="utf-8")
            info.mkdir()
            metadata = f"Metadata-Version: 2.1\nName: stranger-{n}\nVersion: 1.0\n"
            (info / "METADATA").write_text(metadata, encoding="utf-8")
            (info / "entry_points.txt").write_text(f"[seqbench]\nmine = stranger_{n}\n", encoding="utf-8")
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        cases = {"no stranger": {}, f"{PLUGINS} plugins": {"PYTHONPATH": path}}
        usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        times: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(ROUNDS + 1):  # the first compiles the modules
            for name, extra in cases.items():
                times[name].append(seconds({**usual, **extra}, PLUGINS * bool(extra)))
    for name, found in times.items():
        low, middle, high = (1000 * q for q in statistics.quantiles(found[1:], n=4))
        print(f"{name:<12} {middle:5.0f} ms [{low:.0f}, {high:.0f}]")


def seconds(environment: dict[str, str], plugins: int) -> float:
    """One run of the command, which must have found all of them."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "seqbench", "list"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    took = time.perf_counter() - start
    assert done.stdout.count("A stranger's model.") == plugins
    return took


if __name__ == "__main__":
    main()
