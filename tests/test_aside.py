"""Standard output set aside: what others write in the meantime is on standard error, and then all is as it was."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from seqbench.aside import output_aside


def test_what_python_and_programs_write_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    print("before", end="", flush=False)  # noqa: T201 - what is watched
    with output_aside():
        print("from python")  # noqa: T201
        subprocess.run(["echo", "from a program"], check=True)
        os.write(1, b"to the descriptor\n")
    print(" after")  # noqa: T201
    out, error = capfd.readouterr()
    assert out == "before after\n"
    assert sorted(error.splitlines()) == ["from a program", "from python", "to the descriptor"]


def test_an_error_goes_on_and_output_is_back(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with pytest.raises(ZeroDivisionError), output_aside():
        raise ZeroDivisionError
    assert sys.stdout is before
    os.write(1, b"here")
    assert capfd.readouterr().out == "here"


def test_a_process_without_output() -> None:
    code = "import os, sys; os.close(1); sys.stdout = None\nfrom seqbench.aside import output_aside\n"
    code += "with output_aside():\n    print('heard')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "heard\n")
