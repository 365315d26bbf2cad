"""States are trees of tuples whose leaves are tensors: walking and mapping them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def leaves(tree: Any) -> Iterator[Tensor]:
    """The tensors of a tree of tuples, left to right."""
    if isinstance(tree, tuple | list):
        for branch in tree:
            yield from leaves(branch)
    elif tree is not None:
        yield tree


def map_leaves(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """The same tree with ``function`` of every tensor."""
    if isinstance(tree, tuple):
        return tuple(map_leaves(function, branch) for branch in tree)
    return None if tree is None else function(tree)
