"""Which cell a recurrent model is, and where its layers keep the matrices: all that streams a network without torch.

A model says so in a file that imports no torch, its card names the function (``Model.recurrence``)::

    def recurrence(options):
        return Recurrence(CELL)
"""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.backends.kernels.cells import Cell


@dataclass(frozen=True)
class Names:
    """The parameters of one layer, as its ``state_dict`` has them; the built-in layers have one of two sets.

    Attributes:
        W: ``(gates * H, D)``.
        U: ``(blocks * H, H)``.
        b_x: the bias of the input's product, ``(gates * H)``.
        b_h: the bias of the recurrent product, ``(blocks * H)``; ``""`` where there is none.
    """

    W: str = "W"
    U: str = "U"
    b_x: str = "b"
    b_h: str = ""


TORCH_NAMES = Names("rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0")
"""Of a layer that holds one of torch's recurrent modules as ``rnn``."""


@dataclass(frozen=True)
class Recurrence:
    """What every layer of a ``RecurrentCore`` computes, the options being known.

    Attributes:
        cell: the cell.
        constants: numbers that its functions get.
        names: of a layer's parameters.
    """

    cell: Cell
    constants: tuple[float, ...] = ()
    names: Names = Names()
