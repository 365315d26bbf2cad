"""What the machine's vector unit is like: the width of a vector, and how many fit into registers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numba


@dataclass(frozen=True)
class Target:
    """A vector unit.

    Attributes:
        vector_bytes: of one register.
        tile_rows: numbers of rows, from many to 1, of the tiles of a matrix product: the first times two vectors
            of accumulators, two vectors of one operand and one of the other fit into the registers.
    """

    vector_bytes: int
    tile_rows: tuple[int, ...]

    def lanes(self, itemsize: int) -> int:
        """Numbers of that many bytes in a vector."""
        return self.vector_bytes // itemsize


def target_of(features: str, machine: str) -> Target:
    """The vector unit of a processor with these LLVM features, ``"+avx2,+fma"``; wider ones include narrower ones."""
    there = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if "avx512f" in there:
        return Target(64, (8, 4, 1))  # 32 registers
    if {"avx2", "fma"} <= there:
        return Target(32, (6, 2, 1))  # 16 registers
    if machine.startswith(("aarch64", "arm64")):
        return Target(16, (8, 4, 1))  # 32 registers
    return Target(16, (6, 2, 1))


def _features() -> str:
    """Those that numba compiles for: the machine's, unless ``NUMBA_CPU_NAME`` or ``NUMBA_CPU_FEATURES`` say more."""
    settings: Any = numba.config
    if settings.CPU_FEATURES is not None:
        return str(settings.CPU_FEATURES)
    if settings.CPU_NAME not in (None, llvm.get_host_cpu_name()):
        return ""  # of another processor by name nothing is known here
    return str(llvm.get_host_cpu_features().flatten())


HOST = target_of(_features(), llvm.get_default_triple())
