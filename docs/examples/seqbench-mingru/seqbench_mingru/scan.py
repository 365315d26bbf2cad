"""All steps of ``h_t = a_t * h_{t-1} + b_t`` at once."""

from __future__ import annotations

import torch
from torch import Tensor


def scan(a: Tensor, b: Tensor) -> Tensor:
    """Solve ``h_t = a_t * h_{t-1} + b_t`` from ``h_{-1} = 0``, with ``a``, ``b`` and ``h`` all ``(B, T, H)``.

    Two steps make one, ``h_{t+1} = (a_{t+1} a_t) h_{t-1} + (a_{t+1} b_t + b_{t+1})``: so the states at odd places
    follow from a scan of half the length, and those at even places from their neighbours, in one step. That is
    ``O(T)`` work in ``2 log2 T`` rounds (Blelloch 1990, "Prefix sums and their applications").

    It only multiplies and adds, so with ``a`` in ``[0, 1]`` nothing can overflow, and a product that becomes 0 is a
    past that is forgotten. The paper's form, ``exp(A_t + logcumsumexp(ln b - A)_t)`` with ``A`` the running sum of
    ``ln a``, wants ``b > 0`` and adds and takes away numbers as large as ``A``, which grows with ``T``: the README has
    what that costs in float32.
    """
    T = a.shape[1]
    if T == 1:
        return b
    pairs = T // 2
    a_even, a_odd = a[:, 0 : 2 * pairs : 2], a[:, 1::2]  # (B, pairs, H)
    odd = scan(a_odd * a_even, torch.addcmul(b[:, 1::2], a_odd, b[:, 0 : 2 * pairs : 2]))  # (B, pairs, H)
    later = torch.addcmul(b[:, 2::2], a[:, 2::2], odd[:, : (T - 1) // 2])  # places 2, 4, ...
    even = torch.cat([b[:, :1], later], dim=1)  # (B, T - pairs, H)
    joined = torch.stack([even[:, :pairs], odd], dim=2).flatten(1, 2)  # (B, 2 pairs, H)
    return torch.cat([joined, even[:, pairs:]], dim=1)  # (B, T, H)
