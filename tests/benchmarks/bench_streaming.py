"""One step at batch 1, one Python call a step: our kernels, onnxruntime, torch; two tables of docs/performance.md.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_streaming.py [--rounds 31] [--write docs/performance.md]

The same computation for all: a vector of width H in, the next h out, the state kept. One thread, CPU time of the
process, interleaved; every sample makes thousands of steps over changing inputs. onnxruntime gets its own operator with
T = 1, its best settings, and IOBinding: the state in two sets of buffers that take turns, the input written to a bound
buffer, so that nothing is allocated. A second way, plainer, binds at each step the values that onnxruntime returned.
Ours writes to an array that it is given. Results are compared before anything is timed.

Then whole networks: character models trained for a moment, exported and streamed over their test text, in float32 and
in bfloat16, against the same network of torch going step by step.
"""

import argparse
import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from interleaved import Run, interleaved, shown, table, write_section
from onnx import TensorProto, helper, numpy_helper

import seqbench
from seqbench.api import CoreSpec
from seqbench.backends.kernels.streaming import Parameters, Stack, Streamer
from seqbench.backends.recurrence import TORCH_NAMES
from seqbench.export import export
from seqbench.registry import resolve
from seqbench.spec import Trial
from seqbench.store import RunFolder
from seqbench.streaming import Stream
from seqbench.trial import find, make_network
from seqbench_models import gru, lstm

WIDTHS = (64, 128, 256, 512)
STEPS = 256  # of a call of what is timed
CARDS = {"lstm": lstm.card, "gru": gru.card}
OPERATORS: dict[str, Any] = {"lstm": ("LSTM", [0, 3, 1, 2], {}), "gru": ("GRU", [1, 0, 2], {"linear_before_reset": 1})}
"""onnx's operator, its order of the gates as indices into torch's, its options."""


class Case:
    """One model at one width, its parameters and inputs."""

    def __init__(self, name: str, H: int) -> None:
        torch.manual_seed(0)
        self.name, self.H, options = name, H, CARDS[name].options()
        self.module = resolve(CARDS[name].cores["torch"])(CoreSpec(H, H), options).layers[0].rnn
        found = {f"rnn.{key}": p.detach().numpy() for key, p in self.module.state_dict().items()}
        self.parameters = Parameters(*(found[getattr(TORCH_NAMES, key)] for key in ("W", "U", "b_x", "b_h")))
        self.recurrence = resolve(str(CARDS[name].recurrence))(options)
        self.x = list(np.random.default_rng(0).normal(size=(STEPS, H)).astype(np.float32))

    @property
    def states(self) -> list[str]:
        return ["h", "c"][: self.recurrence.cell.states]

    def zeros(self) -> list[np.ndarray]:
        return [np.zeros((1, 1, self.H), np.float32) for _ in self.states]


# --- what is timed: all steps, and the last h ---------------------------------------------------------


def streamer_of(case: Case, narrow: bool) -> Streamer:
    return Streamer(Stack(case.recurrence.cell, (), (case.parameters,)), narrow=narrow)


def ours(case: Case, narrow: bool = False) -> Run:
    step, out = streamer_of(case, narrow).step, np.empty(case.H, np.float32)

    def run() -> np.ndarray:
        for x in case.x:
            step(0, x, out)
        return out.copy()

    return run


def session_of(case: Case) -> onnxruntime.InferenceSession:
    """One step: x, h (and c) to h_after (and c_after)."""
    operator, order, options = OPERATORS[case.name]
    H, p = case.H, case.parameters

    def gates(matrix: np.ndarray) -> np.ndarray:
        return matrix.reshape(len(order), H, -1)[order].reshape(len(order) * H, -1)

    biases = np.concatenate([gates(p.b_x[:, None]), gates(p.b_h[:, None])]).ravel()
    constants = {"W": gates(p.W), "R": gates(p.U), "B": biases}
    after = [f"{name}_after" for name in case.states]
    node: Any = helper.make_node(operator, ["x", *constants, "", *case.states], ["", *after], hidden_size=H, **options)
    inputs, outputs = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, H]) for name in names]
                       for names in (["x", *case.states], after)]  # fmt: skip
    graph = helper.make_graph(
        [node],
        "step",
        inputs,
        outputs,
        [numpy_helper.from_array(np.ascontiguousarray(a[None]), n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.enable_mem_pattern = settings.enable_cpu_mem_arena = False
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def onnx_bound(case: Case) -> Run:
    session, x, buffers = session_of(case), np.zeros((1, 1, case.H), np.float32), (case.zeros(), case.zeros())

    def binding(before: list[np.ndarray], after: list[np.ndarray]) -> Any:
        made = session.io_binding()
        bind(made.bind_input, "x", x)
        for name, a, b in zip(case.states, before, after, strict=True):
            bind(made.bind_input, name, a)
            bind(made.bind_output, f"{name}_after", b)
        return made

    there, back = binding(*buffers), binding(*buffers[::-1])
    step, flat, pairs = session.run_with_iobinding, x.reshape(-1), list(zip(case.x[::2], case.x[1::2], strict=True))

    def run() -> np.ndarray:
        for one, two in pairs:
            flat[:] = one
            step(there)
            flat[:] = two
            step(back)
        return buffers[0][0].ravel().copy()

    return run


def onnx_rebound(case: Case) -> Run:
    """The state handed on as onnxruntime's own values, which each step binds as its inputs."""
    session, after = session_of(case), [f"{name}_after" for name in case.states]
    rows, binding = [x.reshape(1, 1, -1) for x in case.x], session.io_binding()

    def run() -> np.ndarray:
        state = [onnxruntime.OrtValue.ortvalue_from_numpy(zeros) for zeros in case.zeros()]
        for x in rows:
            binding.bind_cpu_input("x", x)
            for name, value in zip(case.states, state, strict=True):
                binding.bind_ortvalue_input(name, value)
            for name in after:
                binding.bind_output(name)
            session.run_with_iobinding(binding)
            state = binding.get_outputs()
        h: np.ndarray = state[0].numpy()
        return h.ravel()

    return run


def bind(how: Callable[..., None], name: str, array: np.ndarray) -> None:
    """To the array's own memory."""
    how(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)


def onnx_plain(case: Case) -> Run:
    session, after = session_of(case), [f"{name}_after" for name in case.states]
    rows = [x.reshape(1, 1, -1) for x in case.x]

    def run() -> np.ndarray:
        state = case.zeros()
        for x in rows:
            state = session.run(after, {"x": x, **dict(zip(case.states, state, strict=True))})
        return state[0].ravel()

    return run


def torch_cell(case: Case) -> Run:
    rows, weights = [torch.from_numpy(x)[None] for x in case.x], [p.detach() for p in case.module.parameters()]
    cell: Any = torch.lstm_cell if case.name == "lstm" else torch.gru_cell

    def run() -> np.ndarray:
        h: Any = torch.zeros(1, case.H)
        c = h
        with torch.inference_mode():
            for x in rows:
                if case.name == "lstm":
                    h, c = cell(x, (h, c), *weights)
                else:
                    h = cell(x, h, *weights)
        return h.numpy().ravel()

    return run


def torch_module(case: Case) -> Run:
    rows = [torch.from_numpy(x)[None, None] for x in case.x]

    def run() -> np.ndarray:
        state = None
        with torch.inference_mode():
            for x in rows:
                y, state = case.module(x, state)
        return y.numpy().ravel()

    return run


# --- the tables ---------------------------------------------------------------------------------------


def error_of_bfloat16(case: Case) -> float:
    """Of all outputs, relative, in the norm."""
    fine, coarse = (outputs(case, narrow) for narrow in (False, True))
    return float(np.linalg.norm(coarse - fine) / np.linalg.norm(fine))


def outputs(case: Case, narrow: bool) -> np.ndarray:
    step, y = streamer_of(case, narrow).step, np.empty((STEPS, case.H), np.float32)
    for x, out in zip(case.x, y, strict=True):
        step(0, x, out)
    return y


def measured(case: Case, rounds: int) -> dict[str, np.ndarray]:
    """Microseconds a step of each."""
    runs: dict[str, Run] = {
        "float32": ours(case),
        "bfloat16": ours(case, narrow=True),
        "bound": onnx_bound(case),
        "rebound": onnx_rebound(case),
        "run": onnx_plain(case),
        "cell": torch_cell(case),
        "module": torch_module(case),
    }
    last = {name: run() for name, run in runs.items()}  # from a zero state
    for name, h in last.items():
        worst = np.linalg.norm(h - last["cell"]) / np.linalg.norm(last["cell"])
        assert worst < (2e-2 if name == "bfloat16" else 1e-5), (name, worst)
    return {name: 1e6 * seconds / STEPS for name, seconds in interleaved(runs, rounds).items()}


def row(case: Case, found: dict[str, np.ndarray]) -> list[str]:
    medians = {name: f"{np.median(times):.1f}" for name, times in found.items()}
    times = [medians[name] for name in ("float32", "bfloat16", "bound", "rebound", "run", "cell", "module")]
    ratios = [shown(found["bound"] / found[name]) for name in ("float32", "bfloat16")]
    ratios.append(shown(found["rebound"] / found["float32"]))
    gain, cost = shown(found["float32"] / found["bfloat16"]), f"{error_of_bfloat16(case):.1e}"
    return [case.name, str(case.H), *times, *ratios, gain, cost]


HEADER = [
    "model", "H", "ours, µs", "ours in bfloat16, µs", "onnxruntime bound, µs",
    "bound at each step, µs", "onnxruntime `run`, µs", "torch cell, µs", "torch module, µs", "bound / ours",
    "bound / ours in bfloat16", "bound at each step / ours", "ours / ours in bfloat16",
    "error of bfloat16",
]  # fmt: skip


# --- whole networks -----------------------------------------------------------------------------------

CHARACTERS = 20_000
TRAINED = {"task": "char-lm[sample=0]", "model": ["lstm", "gru"], "seeds": 1, "budget": "600steps", "threads": 1}


def whole_networks(rounds: int) -> list[list[str]]:
    """Bits a character of each way to keep the weights, and microseconds a character."""
    with tempfile.TemporaryDirectory() as folder:
        results = seqbench.run(**TRAINED, backend="numba", jobs=1, out=folder)
        return [
            network_row(results.folder, trial, Path(folder) / "model.npz", rounds) for trial in results.folder.trials()
        ]


def network_row(folder: RunFolder, trial: Trial, path: Path, rounds: int) -> list[str]:
    export(folder, trial.id, path, overwrite=True)
    cast = find(trial)
    task: Any = cast.task  # the character model's
    text = task.codes["test"][: CHARACTERS + 1]
    streams = {name: Stream.load(path, weights=name) for name in ("float32", "bfloat16")}
    bits = [f"{bits_of(stream, text):.5f}" for stream in streams.values()]
    runs: dict[str, Run] = {
        name: lambda stream=stream: read(stream, text[:STEPS].tolist()) for name, stream in streams.items()
    }
    network = make_network(replace(trial, backend="torch"), cast).eval()
    weights = folder.arrays(trial.id, "weights/")
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    runs["torch"] = lambda: read_by_torch(network, torch.from_numpy(text[:STEPS])[:, None])
    for stream in streams.values():
        stream.reset()
    worst = np.abs(runs["float32"]() - runs["torch"]()).max()
    assert worst < 1e-4, worst
    found = {name: 1e6 * seconds / STEPS for name, seconds in interleaved(runs, rounds).items()}
    times = [f"{np.median(found[name]):.1f}" for name in found]
    return [trial.model, str(trial.width), *bits, *times, shown(found["torch"] / found["float32"])]


def bits_of(stream: Stream, text: np.ndarray) -> float:
    """Mean cross-entropy of each next character, the state carried along."""
    total = 0.0
    for character, following in zip(text[:-1].tolist(), text[1:].tolist(), strict=True):
        logits = stream.step(character).astype(np.float64)
        total += np.logaddexp.reduce(logits) - logits[following]
    return total / (len(text) - 1) / math.log(2)


def read(stream: Stream, characters: list[int]) -> np.ndarray:
    for character in characters:
        logits = stream.step(character)
    return logits


def read_by_torch(network: Any, characters: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        state = network.initial_state(1, len(characters))
        for character in characters.unbind(0):
            logits, state = network.step(character, state)
    return logits[0].numpy()


NETWORK_HEADER = [
    "model", "H", "bits a character, float32", "bits, bfloat16", "ours, µs", "ours in bfloat16, µs", "torch, µs",
    "torch / ours",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    networks = whole_networks(chosen.rounds)
    print(table(NETWORK_HEADER, networks), flush=True)
    rows = []
    for name in CARDS:
        for H in WIDTHS:
            case = Case(name, H)
            rows.append(row(case, measured(case, chosen.rounds)))
            print(" | ".join(rows[-1]), flush=True)
    if chosen.write:
        write_section(chosen.write, "streaming", table(HEADER, rows, words=1))
        write_section(chosen.write, "streamed text", table(NETWORK_HEADER, networks, words=1))


if __name__ == "__main__":
    main()
