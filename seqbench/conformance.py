"""The proofs that a model keeps to the interface: for the built-in models and for anyone's.

In a plugin's own tests::

    import pytest
    from seqbench import conformance
    from my_plugin import card

    @pytest.mark.parametrize("options", conformance.cases(card), ids=str)
    def test_card(options):
        conformance.check_all(card, options)

Every proof runs in float64 on a small core, so that a difference is a fault and not rounding. One that fails raises
``ConformanceError`` with what was expected, what came, and what usually causes it.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import gradcheck
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seqbench.api import CoreSpec, Model, State
from seqbench.errors import SeqbenchError
from seqbench.registry import resolve
from seqbench.states import leaves, map_leaves

TOLERANCE = 1e-9
"""Largest error accepted in float64, relative to the largest value expected (or to 1, if that is larger)."""

D, LAYERS, TRAIN_LENGTH = 5, 2, 16
"""Input width, layers and training length of the cores that are tested."""

Lengths = tuple[int, ...]


class ConformanceError(SeqbenchError):
    """A model does not do what its card or the interface promises."""


# --- what is tested -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """One model in one setting.

    Attributes:
        card: the model's card.
        options: an instance of ``card.options``.
        causal: the direction asked of the core (``CoreSpec.causal``).
        backend: a key of ``card.cores``.
    """

    card: Model
    options: Any
    causal: bool = True
    backend: str = "torch"

    def __str__(self) -> str:
        direction = "causal" if self.causal else "bidirectional"
        return f"{self.card.name} ({self.backend}, {direction}, {self.options})"

    @property
    def width(self) -> int:
        """A small legal width, other than ``D``."""
        multiple = self.card.width_multiple(self.options)
        return multiple * -(-6 // multiple)

    @property
    def has_state(self) -> bool:
        """Whether the core promises a state and single steps here."""
        return self.causal and "step" in self.card.can

    def core(self, seed: int = 0, dropout: float = 0.0) -> Any:
        """A float64 core in training mode (where a dependence on the batch shows), its parameters from ``seed``."""
        spec = CoreSpec(D, self.width, LAYERS, self.causal, dropout, TRAIN_LENGTH)
        with _seeded(seed):
            return resolve(self.card.cores[self.backend])(spec, self.options).double()


def cases(card: Model) -> list[Any]:
    """The default options, and every legal setting that differs from them in one option."""
    found = [card.options()]
    for f in dataclasses.fields(card.options):
        for value in _others(f):
            try:
                found.append(card.options(**{f.name: value}))
            except (SeqbenchError, ValueError):
                continue
    return found


def _others(f: dataclasses.Field[Any]) -> list[Any]:
    """Values of an option other than its default: all choices, or one number."""
    default: Any = f.default
    if f.metadata["choices"] is not None:
        return [value for value in f.metadata["choices"] if value != default]
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, str):
        return []
    low, high = f.metadata["low"], f.metadata["high"]
    if low is not None and low != default:
        return [type(default)(low)]
    further = default + (7 if isinstance(default, int) else 0.5)
    return [further if high is None or further <= high else type(default)(high)]


def subjects(card: Model, options: Any = None, backend: str = "torch") -> list[Subject]:
    """One subject for each direction that the card declares.

    Raises:
        ConformanceError: it declares none.
    """
    chosen = card.options() if options is None else options
    names = {"causal": True, "bidirectional": False}
    found = [Subject(card, chosen, causal, backend) for name, causal in names.items() if name in card.can]
    if not found:
        raise ConformanceError(f"{card.name}: expected 'causal' or 'bidirectional' among can, got {sorted(card.can)}")
    return found


def check_all(card: Model, options: Any = None, backend: str = "torch") -> None:
    """Run every proof that applies to what the card declares.

    Raises:
        ConformanceError: the first proof that fails.
    """
    for subject in subjects(card, options, backend):
        for check in checks(subject):
            _run_check(check, subject)


def _run_check(check: Callable[[Subject], None], subject: Subject) -> None:
    """Run one proof; a core that raises has failed it."""
    try:
        check(subject)
    except ConformanceError:
        raise
    except Exception as error:
        raised = f"{type(error).__name__}: {error}"
        cause = "the core does not keep to the interface"
        raise _error(subject, check.__name__, "no exception", raised, cause) from error


def checks(subject: Subject) -> list[Callable[[Subject], None]]:
    """The proofs that apply to a subject."""
    direction = check_causality if subject.causal else check_both_directions
    return [
        check_no_global_state,  # before another proof lets the core change something
        check_shapes,
        check_short,
        check_zero_beyond_lengths,
        check_padding,
        direction,
        *([check_state] if subject.has_state else []),
        check_gradients,
        check_state_dict,
        check_determinism,
        check_flops,
    ]


# --- the proofs -----------------------------------------------------------------------------------


def check_shapes(subject: Subject) -> None:
    """Shapes and types of what comes out; no state in, no state out."""
    B, T = 3, 7
    core, x = subject.core(), _inputs(B, T)
    y, state = core(x)
    _equal(subject, "shape of y", tuple(y.shape), (B, T, core.output_size), "output_size is the width of y")
    _equal(subject, "dtype of y", y.dtype, x.dtype, "a tensor is made with torch's default dtype; use x.new_zeros")
    _equal(subject, "state of a call without state", state, None, "a state is returned although none came in")
    _equal(subject, "shape of summary", tuple(core.summary(y, None).shape), (B, core.output_size), "")
    longest = core.max_length
    _equal(subject, "max_length", longest is None or longest >= TRAIN_LENGTH, True, "shorter than spec.train_length")


def check_short(subject: Subject) -> None:
    """A batch of one sequence of one step works and equals the first step of a longer one, where causal."""
    core, x = subject.core(), _inputs(2, 6)
    y, _ = core(x[:1, :1])
    _equal(subject, "shape of y for B = T = 1", tuple(y.shape), (1, 1, core.output_size), "an axis is squeezed away")
    if subject.causal:
        _close(subject, "y for B = T = 1", y, core(x)[0][:1, :1], "the first step reads the length of the sequence")


def check_zero_beyond_lengths(subject: Subject) -> None:
    """``y`` is exactly 0 beyond ``lengths``, and nothing there has a gradient."""
    lengths = (4, 7, 1)
    core, x = subject.core(), _inputs(3, 7).requires_grad_()
    y, _ = core(x, None, torch.tensor(lengths))
    (dx,) = torch.autograd.grad((y * _normal(y.shape, 1)).sum(), x)
    beyond = _beyond(lengths, 7)
    zero = torch.zeros(())
    _close(subject, "y beyond lengths", y[beyond], zero, "the output is not masked with lengths", tolerance=0.0)
    _close(subject, "gradient of x beyond lengths", dx[beyond], zero, "padding is read by a valid step", tolerance=0.0)


def check_padding(subject: Subject) -> None:
    """Each row of a ragged batch gives what it gives alone: values, summary and parameter gradients.

    The padding holds large numbers. The core is in training mode, where batch statistics would be used.
    """
    lengths = (4, 7, 1)
    core, x = subject.core(), _inputs(3, 7)
    x[_beyond(lengths, 7)] = 1e3
    cause = "padding or another row enters: batch statistics, an unmasked mean or attention, a reversal of padded rows"
    parameters = list(core.parameters())
    y, together = _row_outputs(core, x, torch.tensor(lengths))
    alone = torch.zeros_like(together)
    for row, length in enumerate(lengths):
        y_row, summary = _row_outputs(core, x[row : row + 1, :length], None)
        _close(subject, f"y of row {row} in a batch, against alone", y[row, :length], y_row[0], cause)
        _close(subject, f"summary of row {row} in a batch, against alone", together[row], summary[0], cause)
        alone[row] = summary[0]
    got, want = (_gradients(s.pow(2).sum(), parameters) for s in (together, alone))
    for (name, _), g, w in zip(core.named_parameters(), got, want, strict=True):
        _close(subject, f"gradient of {name} in a batch, against row by row", g, w, cause)


def check_causality(subject: Subject) -> None:
    """What comes later changes nothing before it: by values and by gradients."""
    T = 8
    core, x = subject.core(), _inputs(2, T).requires_grad_()
    y, _ = core(x)
    cause = "the core looks ahead: padding on the wrong side, a missing mask, a backward direction"
    for t in (0, T // 2, T - 2):
        changed = torch.cat([x[:, : t + 1], _inputs(2, T - t - 1, seed=t + 9)], dim=1)
        _close(subject, f"y up to step {t} with another future", core(changed)[0][:, : t + 1], y[:, : t + 1], cause)
        (dx,) = torch.autograd.grad(y[:, t].sum(), x, retain_graph=True)
        _close(subject, f"gradient of y at step {t} in x after it", dx[:, t + 1 :], torch.zeros(()), cause)


def check_both_directions(subject: Subject) -> None:
    """With ``causal=False`` the first output depends on the last input and the last on the first."""
    core, x = subject.core(), _inputs(2, 5).requires_grad_()
    y, _ = core(x)
    for at, seen in ((0, -1), (-1, 0)):
        (dx,) = torch.autograd.grad(y[:, at].pow(2).sum(), x, retain_graph=True)
        depends = bool(dx[:, seen].abs().max() > 0)
        _equal(subject, f"y[{at}] depends on x[{seen}]", depends, True, "the core ignores spec.causal=False")


def check_state(subject: Subject) -> None:
    """Whole sequence = chunks = single steps, whatever the lengths of the chunks, row by row."""
    B, T = 3, 9
    core, x = subject.core(), _inputs(B, T)
    whole, _ = core(x)
    _check_state_form(subject, core, B, T)
    for splits in ([(4,) * B, (5,) * B], [(2, 1, 4), (3, 2, 1), (1, 4, 2)], [(1,) * B, (3, 5, 1), (2, 2, 6)]):
        _check_chunks(subject, core, x, whole, splits)
    _check_steps(subject, core, x, whole)
    _check_reordering(subject, core, x, whole)


def check_gradients(subject: Subject) -> None:
    """The derivatives in ``x``, the state and every parameter equal finite differences."""
    B, T = 2, 5
    core, lengths = subject.core(), torch.tensor([5, 3])
    x, state = _inputs(B, T).requires_grad_(), None
    if subject.has_state:
        _, state = core(_inputs(B, 2, seed=3), core.initial_state(B, T + 2))
    state = map_leaves(lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), state)
    learned = [leaf for leaf in [x, *leaves(state), *core.parameters()] if leaf.requires_grad]

    def outputs(*_: Tensor) -> tuple[Tensor, ...]:
        y, after = core(x, state, lengths)
        return (y, *(leaf for leaf in leaves(after) if leaf.requires_grad))

    try:
        with _seeded(0):
            gradcheck(outputs, learned, fast_mode=True)
    except RuntimeError as error:
        message = " ".join(str(error).split())[:400]
        cause = "a hand-written backward is wrong, or tensors inside a tuple were handed to an autograd.Function"
        raise _error(subject, "gradients", "those of finite differences", message, cause) from error


def check_parameter_count(core: Any, expected: int) -> None:
    """The core has as many trainable parameters as its formula says."""
    got = sum(p.numel() for p in core.parameters() if p.requires_grad)
    _equal(type(core).__name__, "trainable parameters", got, expected, "a bias too many or too few, or a shared matrix")


def check_state_dict(subject: Subject) -> None:
    """A saved and loaded core gives the same outputs, whole and step by step, even if it has run before."""
    B, T = 2, 4
    saved, other, x = subject.core(seed=0).eval(), subject.core(seed=1).eval(), _inputs(B, T)
    _run(subject, other, x)  # whatever the core keeps from a run must not outlive the loading
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    cause = "something that counts is not a parameter or buffer, or a value computed from the parameters is kept"
    for name, got in _run(subject, other, x).items():
        _close(subject, f"{name} after loading the state_dict", got, _run(subject, saved, x)[name], cause)


def check_determinism(subject: Subject) -> None:
    """The same seed gives the same parameters, another seed others; the same input the same output; dropout ends."""
    x = _inputs(2, 6)
    first, again, other = (list(subject.core(seed).parameters()) for seed in (0, 0, 1))
    cause = "parameters must come from torch's global generator and from nothing else"
    for a, b in zip(first, again, strict=True):
        _close(subject, "parameters built twice from one seed", b, a, cause, tolerance=0.0)
    differ = any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    _equal(subject, "another seed gives other parameters", differ or not first, True, cause)
    core = subject.core(dropout=0.5).eval()
    cause = "dropout or noise is active in evaluation mode, or something is kept from call to call"
    _close(subject, "a second call in evaluation mode", core(x)[0], core(x)[0], cause, tolerance=0.0)
    _close(subject, "evaluation mode with dropout", core(x)[0], subject.core().eval()(x)[0], cause)


def check_no_global_state(subject: Subject) -> None:
    """Building and running a core leaves torch's settings as they were, and running draws no random number."""
    before = _global_settings()
    core = subject.core()
    random = torch.random.get_rng_state()
    _run(subject, core.eval(), _inputs(2, 4))
    cause = "the core changes torch for everyone; leave threads, dtypes and flags to the harness"
    _equal(subject, "torch's global settings", _global_settings(), before, cause)
    same = torch.equal(random, torch.random.get_rng_state())
    _equal(subject, "the random generator is untouched in evaluation mode", same, True, cause)


def check_flops(subject: Subject) -> None:
    """``flops(B, T)`` is what torch counts in the matrix products of a forward pass.

    Counted over ``T`` single steps where the state is of a fixed size, since fused recurrent kernels hide their
    products from the counter; otherwise over a whole call in float64.
    """
    for B, T in ((1, 3), (2, 8)):
        core = subject.core().eval()
        if subject.has_state and subject.card.state_is_summary:
            state = core.initial_state(B, T)
            counted = T * _counted_flops(core.step, _inputs(B, 1)[:, 0], state)
        else:
            counted = _counted_flops(core, _inputs(B, T))
        cause = "flops counts 2 for each multiply-add of matrix products and convolutions, in all layers and directions"
        _equal(subject, f"flops(B={B}, T={T})", core.flops(B, T), counted, cause)


def check_oracle(
    core: Any,
    oracle: Callable[..., Any],
    inputs: Sequence[Any],
    parameters: Mapping[str, Tensor] | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """A core and an independent implementation agree: outputs, and gradients in inputs and parameters.

    Args:
        core: the core under test, called as ``core(*inputs)``.
        oracle: called in the same way; its outputs are compared leaf by leaf.
        inputs: ``x``, ``state``, ``lengths`` or a part of it.
        parameters: for each name of ``core.named_parameters()`` the oracle's tensor of the same role; None where the
            oracle computes from the core's own parameters.
        tolerance: as ``TOLERANCE``.
    """
    inputs = map_leaves(lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), tuple(inputs))
    own = dict(core.named_parameters())
    theirs = own if parameters is None else dict(parameters)
    _equal(type(core).__name__, "parameters mapped", sorted(theirs), sorted(own), "the test's mapping is incomplete")
    given = [leaf for leaf in leaves(inputs) if leaf.requires_grad]
    names = [*(f"input {n}" for n in range(len(given))), *own]
    results = []
    for call, learned in ((core, own), (oracle, theirs)):
        outputs = [leaf for leaf in leaves(call(*inputs)) if leaf.is_floating_point()]
        loss = sum((y * _normal(y.shape, n).to(y)).sum() for n, y in enumerate(outputs))
        results.append((outputs, _gradients(loss, [*given, *(learned[name] for name in own)])))
    (got, got_gradients), (want, want_gradients) = results
    who, cause = type(core).__name__, "the definition differs: gate order, sign, bias, mask, or layout of a matrix"
    for n, (g, w) in enumerate(zip(got, want, strict=True)):
        _close(who, f"output {n} against the oracle", g, w, cause, tolerance)
    for name, g, w in zip(names, got_gradients, want_gradients, strict=True):
        _close(who, f"gradient of {name} against the oracle", g, w, cause, tolerance)


# --- parts of check_state -------------------------------------------------------------------------


def _check_state_form(subject: Subject, core: Any, B: int, T: int) -> None:
    state = core.initial_state(B, T)
    for leaf in leaves(state):
        _equal(subject, "first axis of every leaf of the state", leaf.shape[:1], (B,), "the batch comes first")
    if subject.card.state_is_summary:
        sizes = [[leaf.shape for leaf in leaves(core.initial_state(B, n))] for n in (T, 10 * T)]
        _equal(subject, "size of the state for another capacity", sizes[1], sizes[0], "state_is_summary is wrong")


def _check_chunks(subject: Subject, core: Any, x: Tensor, whole: Tensor, splits: Sequence[Lengths]) -> None:
    """Feed each row its own pieces; row ``b`` of chunk ``n`` has ``splits[n][b]`` steps."""
    B = x.shape[0]
    state, done = core.initial_state(B, x.shape[1]), [0] * B
    for lengths in splits:
        T = max(lengths)
        chunk = torch.full((B, T, D), 1e3, dtype=x.dtype)
        for row, n in enumerate(lengths):
            chunk[row, :n] = x[row, done[row] : done[row] + n]
        ragged = min(lengths) < T
        before = map_leaves(Tensor.clone, state)
        y, after = core(chunk, state, torch.tensor(lengths) if ragged else None)
        cause = "a call must leave the state that it is given as it is; only step may consume it"
        _same_tree(subject, "the state given to a call, afterwards", state, before, cause)
        for row, n in enumerate(lengths):
            cause = "the state is not carried on, or not from the last valid step of each row"
            what = f"row {row}, steps {done[row]}.. in chunks {list(splits)}, against the whole sequence"
            _close(subject, what, y[row, :n], whole[row, done[row] : done[row] + n], cause)
            done[row] += n
        state = after


def _check_steps(subject: Subject, core: Any, x: Tensor, whole: Tensor) -> None:
    """Single steps, from the start and after a chunk."""
    B, T, _ = x.shape
    for chunk in (0, 3):
        state = core.initial_state(B, T)
        if chunk:
            _, state = core(x[:, :chunk], state)
        state = map_leaves(Tensor.detach, state)
        for t in range(chunk, T):
            y_t, state = core.step(x[:, t], state)
            what = f"step {t} after a chunk of {chunk}, against the whole sequence"
            _close(subject, what, y_t, whole[:, t], "step computes something else, or loses the state")
            _equal(subject, "step has a gradient", y_t.requires_grad, False, "decorate step with torch.no_grad()")


def _check_reordering(subject: Subject, core: Any, x: Tensor, whole: Tensor) -> None:
    """Rows of the state can be reordered, as beam search does, with no model code."""
    order, half = torch.tensor([2, 0, 0]), 4
    _, state = core(x[:, :half], core.initial_state(*x.shape[:2]))
    y, _ = core(x[order, half:], map_leaves(lambda leaf: leaf[order], state))
    _close(subject, "y after reordering the rows of the state", y, whole[order, half:], "a leaf mixes rows")


# --- helpers --------------------------------------------------------------------------------------


def _inputs(B: int, T: int, seed: int = 0) -> Tensor:
    """``x (B, T, D)``."""
    return _normal((B, T, D), seed)


def _normal(shape: Sequence[int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


def _beyond(lengths: Lengths, T: int) -> Tensor:
    return torch.arange(T) >= torch.tensor(lengths).unsqueeze(1)  # (B, T)


def _row_outputs(core: Any, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    y, _ = core(x, None, lengths)
    return y, core.summary(y, lengths)


def _run(subject: Subject, core: Any, x: Tensor) -> dict[str, Tensor]:
    """All ways to run a core, without gradients."""
    with torch.no_grad():
        found = {"y": core(x)[0]}
        if subject.has_state:
            state: State = core.initial_state(*x.shape[:2])
            found["step"], _ = core.step(x[:, 0], state)
    return found


def _gradients(loss: Any, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True, materialize_grads=True)


def _counted_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """What torch counts; the plain attention kernel, the only one whose products it can see on every device."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function(*arguments)
    return int(counter.get_total_flops())


def _global_settings() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "cudnn benchmark": torch.backends.cudnn.benchmark,
        "anomaly detection": torch.is_anomaly_enabled(),
    }


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch's global generator from ``seed``; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _error(who: object, what: str, expected: object, got: object, cause: str) -> ConformanceError:
    hint = f" Usual cause: {cause}." if cause else ""
    return ConformanceError(f"{who}: {what}: expected {expected}, got {got}.{hint}")


def _equal(who: object, what: str, got: object, want: object, cause: str) -> None:
    if got != want:
        raise _error(who, what, want, got, cause)


def _close(who: object, what: str, got: Tensor, want: Tensor, cause: str, tolerance: float = TOLERANCE) -> None:
    """Compare values; ``want`` may be a single number."""
    if want.dim() and got.shape != want.shape:
        raise _error(who, what, f"shape {tuple(want.shape)}", f"shape {tuple(got.shape)}", cause)
    if not got.numel():
        return
    error = (got - want).detach().abs().nan_to_num(nan=float("inf"))
    allowed = tolerance * max(1.0, float(want.detach().abs().max()))
    worst = float(error.max())
    if not worst <= allowed:
        where = tuple(int(n) for n in torch.unravel_index(error.argmax(), error.shape))
        raise _error(who, what, f"equal within {allowed:.1e}", f"max abs error {worst:.1e} at {where}", cause)


def _same_tree(who: object, what: str, got: State, want: State, cause: str) -> None:
    for g, w in zip(leaves(got), leaves(want), strict=True):
        _close(who, what, g.to(torch.float64), w.to(torch.float64), cause, tolerance=0.0)
