"""All that a plugin may import: the cards, the interface of a core, a decoder and a task.

Importing this loads neither torch nor numpy, so that a card costs nothing to load.

Shape letters, used everywhere: ``B`` batch, ``T`` time (``S`` of a source, ``U`` of a target), ``D`` input width of a
core, ``H`` hidden width, ``M`` width of a memory, ``V`` vocabulary, ``N`` heads, ``K`` kernel size, ``L`` layers.
"""

from __future__ import annotations

import warnings
from typing import Any

import pluggy

from seqbench.api.checks import API_VERSION, RESERVED_OPTIONS
from seqbench.api.commands import CommandCard
from seqbench.api.data import DataFile, DataFiles, Dataset, DatasetCard, Defaults
from seqbench.api.executors import Executor, ExecutorCard, Observer
from seqbench.api.forms import Batch, Decoded, DecoderForm, Form, Prediction, Predictor, Tokens, Vectors
from seqbench.api.listeners import Listener, ListenerCard, TrialStart
from seqbench.api.models import Core, CoreSpec, Decoder, Memory, Model, NoOptions, State, option, recurrent_parameters
from seqbench.api.register import Register
from seqbench.api.report import Block, Section, SectionCard, TrialView
from seqbench.api.tasks import Metric, Reference, Task, TaskCard
from seqbench.errors import DataError, PluginError, Refused, SeqbenchError, UsageError

__all__ = [
    "API_VERSION",
    "RESERVED_OPTIONS",
    "Batch",
    "Block",
    "CommandCard",
    "Core",
    "CoreSpec",
    "DataError",
    "DataFile",
    "DataFiles",
    "Dataset",
    "DatasetCard",
    "Decoded",
    "Decoder",
    "DecoderForm",
    "Defaults",
    "Executor",
    "ExecutorCard",
    "Form",
    "Listener",
    "ListenerCard",
    "Memory",
    "Metric",
    "Model",
    "NoOptions",
    "Observer",
    "PluginError",
    "Prediction",
    "Predictor",
    "Reference",
    "Refused",
    "Register",
    "Section",
    "SectionCard",
    "SeqbenchError",
    "State",
    "Task",
    "TaskCard",
    "Tokens",
    "TrialStart",
    "TrialView",
    "UsageError",
    "Vectors",
    "hookimpl",
    "option",
    "recurrent_parameters",
]

hookimpl = pluggy.HookimplMarker("seqbench")

RENAMED: dict[str, str] = {}
"""Names that will go, and what to use instead: they stay for at least one version of the second number."""


def __getattr__(name: str) -> Any:
    """What had this name before, with a warning to whoever asks for it."""
    if name not in RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = RENAMED[name]
    warnings.warn(f"seqbench.api.{name} will go; use seqbench.api.{new}", DeprecationWarning, stacklevel=2)
    return globals()[new]
