"""How functions are compiled: parts of others, and those that one source makes many of, kept on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core.compiler_lock import global_compiler_lock

from seqbench.backends.kernels.jit import cached, compiled, compiled_as, named

MAKER = """
import sys
import numpy as np
from seqbench.backends.kernels.jit import cached

def adder(n):
    @cached(f"adder of {n}")
    def add(x):
        return x + np.full(2, n)
    return add

all_of_them = []
for n in map(float, sys.argv[1:]):
    add = adder(n)
    all_of_them.append(add)
    sums = list(add(np.zeros(2)))
    assert sums == [n, n], sums
    print("read" if add.stats.cache_hits else "compiled")
"""


def test_functions_of_one_source_that_each_have_a_process_of_their_own_can_all_be_read_by_a_third(
    tmp_path: Path,
) -> None:
    """What each process compiles first used to have one name in memory: LSTM yesterday, GRU today, both tomorrow."""
    script = tmp_path / "maker.py"
    script.write_text(MAKER, encoding="utf-8")

    def run(*numbers: str) -> list[str]:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, str(script), *numbers], env=environment, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        return done.stdout.split()

    assert run("1") == ["compiled"]
    assert run("1", "2") == ["read", "compiled"]
    assert run("1", "2") == ["read", "read"]


def test_what_could_not_be_found_on_disk_is_refused() -> None:
    one = compiled(lambda: 1)
    with pytest.raises(TypeError, match="add_one closes over one, a compiled function"):

        @cached("a")
        def add_one(x: int) -> int:
            return x + int(one())


def test_a_function_takes_a_name_with_its_key_and_stays_what_it_is() -> None:
    base = 3

    def add(x: int, y: int = 4) -> int:
        """A sum."""
        return x + y + base

    copy = named(add, "a/b c-1")
    assert copy.__qualname__ == f"{add.__qualname__}.a_b_c-1"
    assert (copy.__module__, copy.__doc__, copy(1), copy(1, 2)) == (add.__module__, add.__doc__, 8, 6)
    assert add.__qualname__.endswith("add")


@pytest.mark.parametrize("decorator", [cached, compiled_as])
def test_two_keys_are_two_functions(decorator: object) -> None:
    assert callable(decorator)

    def one() -> int:
        return 1

    names = {decorator(key)(one).py_func.__qualname__ for key in ("a", "b")}
    assert len(names) == 2


@compiled
def root(x):
    if x < 0:
        raise ValueError("no root of a negative number", 2)
    return x**0.5


@numba.njit
def sum_of_roots(x, y):
    return root(x) + root(y)


def test_a_part_does_what_it_says_also_where_it_raises() -> None:
    assert sum_of_roots(9.0, 4.0) == 5.0
    with pytest.raises(ValueError, match="no root") as error:
        sum_of_roots(9.0, -4.0)
    assert error.value.args == ("no root of a negative number", 2)


def test_a_part_made_anew_must_be_named() -> None:
    """Read from two files, two such parts of one name were one: the second did what the first does."""

    def made(n: int) -> object:
        @compiled
        def times(x):
            return n * x

        return times

    with pytest.raises(TypeError, match=r"times is made anew.*compiled_as"):
        made(2)


def test_a_part_cannot_be_called_from_python() -> None:
    """It used to end the interpreter."""
    for _ in range(2):
        with pytest.raises(TypeError):
            root(4.0)
        assert sum_of_roots(4.0, 4.0) == 4.0


def test_a_part_has_no_machine_code_of_its_own() -> None:
    """That of who calls it is all that runs."""
    root.compile((numba.float32,))
    (part,) = (result for types, result in root.overloads.items() if types == (numba.float32,))
    with global_compiler_lock:
        assert not part.library.get_pointer_to_function(part.fndesc.mangled_name)
