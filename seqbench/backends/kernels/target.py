"""What the machine's vector unit is like: the width of a vector, and how many fit into registers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba


class Tiles(NamedTuple):
    """Of a matrix product: what is summed up in registers at a time.

    Attributes:
        rows: numbers of them, from many to 1.
        vectors: of columns, in the widest tile: that times the first of ``rows`` accumulators, a row of one operand
            and a number of the other fit into the registers.
    """

    rows: tuple[int, int, int]
    vectors: int


@dataclass(frozen=True)
class Target:
    """A vector unit.

    Attributes:
        vector_bytes: of one register.
        wide: tiles for a matrix that a loop over time uses again and again: 2 to 6 % faster there than tall ones.
        tall: tiles that read the packed matrix half as often: up to 6 % faster in the layers of a Transformer.
    """

    vector_bytes: int
    wide: Tiles
    tall: Tiles

    def lanes(self, itemsize: int) -> int:
        """Numbers of that many bytes in a vector."""
        return self.vector_bytes // itemsize


def target_of(features: str, machine: str) -> Target:
    """The vector unit of a processor with these LLVM features, ``"+avx2,+fma"``; wider ones include narrower ones."""
    of_32, of_16 = Tiles((8, 4, 1), 2), Tiles((6, 2, 1), 2)  # registers
    there = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if "avx512f" in there:
        return Target(64, Tiles((4, 2, 1), 4), of_32)
    if {"avx2", "fma"} <= there:
        return Target(32, of_16, of_16)
    if machine.startswith(("aarch64", "arm64")):
        return Target(16, of_32, of_32)
    return Target(16, of_16, of_16)


def _features() -> str:
    """Those that numba compiles for: the machine's, unless ``NUMBA_CPU_NAME`` or ``NUMBA_CPU_FEATURES`` say more."""
    settings: Any = numba.config
    if settings.CPU_FEATURES is not None:
        return str(settings.CPU_FEATURES)
    if settings.CPU_NAME not in (None, llvm.get_host_cpu_name()):
        return ""  # of another processor by name nothing is known here
    return str(llvm.get_host_cpu_features().flatten())


HOST = target_of(_features(), llvm.get_default_triple())
