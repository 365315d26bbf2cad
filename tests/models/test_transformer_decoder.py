"""The Transformer's encoder and decoder against ``torch.nn.Transformer``, and the decoder's caches against itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seqbench.api import CoreSpec, Memory
from seqbench_models.transformer import Options
from seqbench_models.transformer.torch_core import Core, Decoder

H, N, L, FEED_FORWARD = 8, 2, 2, 20
TOLERANCE = 1e-10


def pair(norm: str = "pre", **options: Any) -> tuple[Core, Decoder]:
    """Our encoder and decoder, float64, biases and norms away from their initial zeros and ones."""
    torch.manual_seed(3)
    chosen = Options(heads=N, norm=norm, feed_forward=FEED_FORWARD, **options)
    encoder = Core(CoreSpec(H, H, L, causal=False, train_length=32), chosen).double()
    decoder = Decoder(CoreSpec(H, H, L, memory_size=H, train_length=32), chosen).double()
    for module in (encoder, decoder):
        for p in module.parameters():
            nn.init.normal_(p, std=0.4)
    return encoder, decoder


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def memory_of(outputs: Tensor, lengths: Tensor | None) -> Memory:
    return Memory(outputs, lengths, outputs[:, 0])


def run(encoder: Core, decoder: Decoder, x: Tensor, y_in: Tensor, lengths: Tensor) -> Tensor:
    memory = memory_of(encoder(x, None, lengths)[0], lengths)
    return decoder(y_in, decoder.start(memory, 0))[0]


# --- against torch ------------------------------------------------------------------------------------


def torchs(norm: str) -> nn.Transformer:
    """nn.Transformer ends both stacks with a norm in either order; post-norm has none in the paper, nor in ours."""
    pre, sizes = norm == "pre", {"d_model": H, "nhead": N, "dim_feedforward": FEED_FORWARD, "dropout": 0.0}
    theirs = nn.Transformer(
        **sizes, num_encoder_layers=L, num_decoder_layers=L, batch_first=True, norm_first=pre, dtype=torch.float64
    )
    if not pre:
        theirs.encoder.norm = theirs.decoder.norm = None
    return theirs


def pairs_of(ours: Any, theirs: Any) -> list[tuple[Tensor, Tensor]]:
    """Parameters that mean the same, ours first; the packed ``in_proj`` of a cross-attention in two parts."""
    found = []
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        norms = [(a.norm_attention, b.norm1), (a.norm_feed_forward, b.norm3 if a.cross else b.norm2)]
        linears = [(a.out, b.self_attn.out_proj), (a.hidden, b.linear1), (a.back, b.linear2)]
        found += [(a.qkv.weight, b.self_attn.in_proj_weight), (a.qkv.bias, b.self_attn.in_proj_bias)]
        if a.cross:
            norms.append((a.norm_cross, b.norm2))
            linears.append((a.cross.out, b.multihead_attn.out_proj))
        found += [
            (p, q)
            for mine, other in norms + linears
            for p, q in zip(mine.parameters(), other.parameters(), strict=True)
        ]
    if theirs.norm is not None:
        found += list(zip(ours.norm.parameters(), theirs.norm.parameters(), strict=True))
    return found


def crosses_of(ours: Any, theirs: Any) -> list[tuple[list[Tensor], Tensor]]:
    """``([query, key and value], in_proj)`` of each cross-attention, weights and biases."""
    found = []
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        found.append(([a.cross.query.weight, a.cross.key_value.weight], b.multihead_attn.in_proj_weight))
        found.append(([a.cross.query.bias, a.cross.key_value.bias], b.multihead_attn.in_proj_bias))
    return found


def close(got: Tensor, want: Tensor) -> None:
    got, want = got.detach(), want.detach()
    assert float((got - want).abs().max()) <= TOLERANCE * max(1.0, float(want.abs().max()))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # of an inference path that is not taken here
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_equals_torchs_encoder_decoder_with_our_weights_in_values_and_every_gradient(norm: str) -> None:
    encoder, decoder = pair(norm, positions="none")
    theirs = torchs(norm)
    with torch.no_grad():
        for mine, other in pairs_of(encoder, theirs.encoder) + pairs_of(decoder, theirs.decoder):
            other.copy_(mine)
        for parts, packed in crosses_of(decoder, theirs.decoder):
            packed.copy_(torch.cat(parts))
    lengths, target_lengths = torch.tensor([7, 3, 5]), torch.tensor([4, 6, 1])
    x, y_in = normal(3, 7, H).requires_grad_(), normal(3, 6, H, seed=1).requires_grad_()
    beyond = torch.arange(7) >= lengths[:, None]
    kept = (torch.arange(6) < target_lengths[:, None])[..., None]
    got = run(encoder, decoder, x, y_in, lengths)
    causal = torch.ones(6, 6, dtype=torch.bool).triu(1)
    want = theirs(x, y_in, tgt_mask=causal, src_key_padding_mask=beyond, memory_key_padding_mask=beyond)
    close(got, want)
    both = []
    for out in (got, want):
        for p in [*encoder.parameters(), *decoder.parameters(), *theirs.parameters(), x, y_in]:
            p.grad = None
        (out.tanh() * normal(*out.shape, seed=2) * kept).sum().backward()
        both.append((x.grad, y_in.grad))
    for mine, other in zip(*both, strict=True):
        close(mine, other)
    want_parameters = [q.grad for _, q in pairs_of(encoder, theirs.encoder) + pairs_of(decoder, theirs.decoder)]
    want_parameters += [packed.grad for _, packed in crosses_of(decoder, theirs.decoder)]
    for p in [*encoder.parameters(), *decoder.parameters()]:
        p.grad = None
    (run(encoder, decoder, x, y_in, lengths).tanh() * normal(*got.shape, seed=2) * kept).sum().backward()
    mine_all = [p.grad for p, _ in pairs_of(encoder, theirs.encoder) + pairs_of(decoder, theirs.decoder)]
    mine_all += [torch.cat([part.grad for part in parts]) for parts, _ in crosses_of(decoder, theirs.decoder)]
    assert len(mine_all) == len(want_parameters) > 50
    for mine, other in zip(mine_all, want_parameters, strict=True):
        close(mine, other)


# --- against itself -----------------------------------------------------------------------------------

SETTINGS = [{}, {"norm": "post"}, {"positions": "learned"}, {"positions": "none"}, {"embedding_scale": True}]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_a_whole_target_is_chunks_is_steps(options: dict[str, Any]) -> None:
    _, decoder = pair(**options)
    B, U, lengths = 3, 9, torch.tensor([2, 6, 4])
    memory, x = memory_of(normal(B, 6, H), lengths), normal(B, U, H, seed=1)
    whole, none = decoder(x, decoder.start(memory, 0))
    assert none is None
    state, done = decoder.start(memory, U), []
    for part in x.split([2, 1, 6], dim=1):
        y, state = decoder(part, state)
        done.append(y)
    close(torch.cat(done, 1), whole)
    state = decoder.start(memory, U)
    for t in range(U):
        y_t, state = decoder.step(x[:, t], state)
        close(y_t, whole[:, t])


def test_the_future_of_the_target_changes_nothing_before_it() -> None:
    _, decoder = pair()
    memory, x = memory_of(normal(2, 5, H), None), normal(2, 6, H, seed=1)
    other = torch.cat([x[:, :3], normal(2, 3, H, seed=5)], 1)
    first, second = (decoder(v, decoder.start(memory, 0))[0] for v in (x, other))
    close(second[:, :3], first[:, :3])
    assert float((second - first).detach()[:, 3:].abs().max()) > 1e-3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 6)), min_size=1, max_size=4))
def test_padding_and_neighbours_do_not_matter(lengths: list[tuple[int, int]]) -> None:
    encoder, decoder = pair()
    S, U = max(s for s, _ in lengths), max(u for _, u in lengths)
    x, y_in = normal(len(lengths), S, H) * 30, normal(len(lengths), U, H, seed=1)
    together = run(encoder, decoder, x, y_in, torch.tensor([s for s, _ in lengths]))
    for row, (s, u) in enumerate(lengths):
        alone = run(encoder, decoder, x[row : row + 1, :s], y_in[row : row + 1, :u], torch.tensor([s]))
        close(together[row, :u], alone[0])


def test_the_alignment_is_the_last_layers_attention_as_torch_computes_it() -> None:
    _, decoder = pair()
    lengths = torch.tensor([2, 6, 4])
    memory, x = memory_of(normal(3, 6, H), lengths), normal(3, 5, H, seed=1)
    found = decoder.explain(x, decoder.start(memory, 0))["alignment"]
    close(found.sum(-1), torch.ones(3, 5).double())
    assert not found.detach().masked_select((torch.arange(6) >= lengths[:, None])[:, None]).any()
    last = decoder.layers[-1]
    theirs = nn.MultiheadAttention(H, N, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([last.cross.query.weight, last.cross.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([last.cross.query.bias, last.cross.key_value.bias]))
    seen: list[Tensor] = []
    watch = last.norm_cross.register_forward_hook(lambda _m, _i, out: seen.append(out))
    decoder(x, decoder.start(memory, 0))
    watch.remove()
    beyond = torch.arange(6) >= lengths[:, None]
    _, want = theirs(seen[0], memory.outputs, memory.outputs, key_padding_mask=beyond)
    close(found, want)


def test_gradients_of_inputs_and_memory_are_those_of_finite_differences() -> None:
    _, decoder = pair()
    lengths = torch.tensor([3, 2])

    def outputs(x: Tensor, m: Tensor) -> Tensor:
        return decoder(x, decoder.start(memory_of(m, lengths), 0))[0]

    given_ = (normal(2, 3, H).requires_grad_(), normal(2, 3, H, seed=1).requires_grad_())
    torch.autograd.gradcheck(outputs, given_, fast_mode=True)


def test_flops_are_what_torch_counts() -> None:
    _, decoder = pair()
    B, U, S = 2, 5, 7
    memory, x = memory_of(normal(B, S, H), None), normal(B, U, H)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        decoder(x, decoder.start(memory, 0))
    assert decoder.flops(B, U, S) == counter.get_total_flops()
