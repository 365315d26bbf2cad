"""Listeners: one that writes down what it is told, one that meddles with all it can reach, and faulty ones."""

from __future__ import annotations

import json
import random
import sys

import torch

from seqbench.api import Listener, ListenerCard, hookimpl


class Diary(Listener):
    """What it is told, one JSON line each."""

    def __init__(self, start):
        self.path = start.folder / "diary.jsonl"
        self._write("started", start.steps, {"label": start.label, "seed": start.seed, "trial": start.trial})

    def _write(self, what, step, said):
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, step, said]) + "\n")

    def trained(self, step, values):
        self._write("trained", step, values)

    def validated(self, step, metrics):
        self._write("validated", step, metrics)

    def finished(self, record):
        self._write("finished", record.get("steps"), record)


class Meddler(Listener):
    """Draws random numbers, and changes what it is given."""

    def __init__(self, start):
        self._meddle(start.trial)

    def _meddle(self, given):
        torch.rand(7)
        torch.manual_seed(1)
        random.random()
        given.clear()

    def trained(self, step, values):
        self._meddle(values)

    def validated(self, step, metrics):
        self._meddle(metrics)

    def finished(self, record):
        self._meddle(record["metrics"])
        self._meddle(record)


class Mute(Listener):
    """Overrides nothing."""

    def __init__(self, start):
        pass


class AtStart(Listener):
    def __init__(self, start):
        raise ValueError("a planted fault\nof two lines")


class AtStep(Mute):
    def trained(self, step, values):
        sys.exit("bye")


class AtValidation(Mute):
    def validated(self, step, metrics):
        raise KeyError("mse")


class AtEnd(Mute):
    def finished(self, record):
        raise RuntimeError("the disk is full")


class NoListener:
    def __init__(self, start):
        pass


@hookimpl
def register_listeners(register):
    for made in (Diary, Meddler, Mute, AtStart, AtStep, AtValidation, AtEnd, NoListener):
        name = "".join(f"-{c.lower()}" if c.isupper() else c for c in made.__name__).strip("-")
        register.listener(ListenerCard(name, f"{made.__name__}.", f"{__name__}:{made.__name__}"))
    register.listener(ListenerCard("nowhere", "Its module is not there.", "no_such_package:Class"))
