"""What is checked of a card when it is made."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from seqbench.errors import PluginError

API_VERSION = "1.0"
"""Of ``seqbench.api``. The second number grows with what is added, the first with what is taken away or changed."""

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MODULE = re.compile(r"[A-Za-z_][\w.]*")
FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def check(fine: bool, message: str) -> None:
    """Raise ``PluginError(message)`` unless ``fine``."""
    if not fine:
        raise PluginError(message)


def check_name(kind: str, name: str) -> None:
    """A card's name is one that the command line takes."""
    fine = NAME.fullmatch(name) is not None
    check(fine, f"{kind} name {name!r} must be lower case letters and digits, words joined by '-' (say 'my-lstm')")


def check_factory(owner: str, factory: str) -> None:
    """A factory reads ``package.module:name``."""
    check(FACTORY.fullmatch(factory) is not None, f"{owner}: factory {factory!r} must read 'package.module:name'")


def check_module(owner: str, module: str) -> None:
    """A module reads ``package.module``."""
    check(MODULE.fullmatch(module) is not None, f"{owner}: {module!r} must read 'package.module'")


def check_api(owner: str, stated: str) -> None:
    """A card that states the version it was written for gets that one, or a later one with the same first number."""
    if not stated:
        return
    fine = re.fullmatch(r"[0-9]+\.[0-9]+", stated) is not None
    check(fine, f"{owner}: api={stated!r} must read like {API_VERSION!r}; leave it out to state nothing")
    (major, minor), (ours, least) = (map(int, version.split(".")) for version in (stated, API_VERSION))
    needs = f"{owner} is written for version {stated} of seqbench.api, and this is {API_VERSION}"
    check(major <= ours and (major < ours or minor <= least), f"{needs}: install a newer seqbench")
    check(major == ours, f"{needs}: install a newer version of the plugin, or an older seqbench")


def check_card(kind: str, card: Any) -> str:
    """What every card has: a name, a version of the interface, most of them a factory. How messages name the card."""
    check_name(kind, card.name)
    owner = f"{kind} {card.name!r}"
    check_api(owner, card.api)
    if hasattr(card, "factory"):
        check_factory(owner, card.factory)
    return owner


RESERVED_OPTIONS = frozenset({"width", "layers", "dropout"})
"""Options that every model has, because the harness puts them into ``CoreSpec``."""


def check_options(owner: str, options: type[Any]) -> None:
    """The options are a frozen dataclass of ``option(...)`` fields with plain defaults."""
    fine = dataclasses.is_dataclass(options) and options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    check(fine, f"{owner}: options must be a frozen dataclass of option(...) fields")
    for f in dataclasses.fields(options):
        check("help" in f.metadata, f"{owner}: option {f.name!r} must be made with option(default, help)")
        check(isinstance(f.default, bool | int | float | str), f"{owner}: option {f.name!r} needs a plain default")
        check(f.name not in RESERVED_OPTIONS, f"{owner}: option {f.name!r} is the harness's own (CoreSpec)")
        if isinstance(f.default, float):
            check(math.isfinite(f.default), f"{owner}: option {f.name!r} has the default {f.default}")
    try:
        options()
    except Exception as error:
        raise PluginError(f"{owner}: its options refuse their own defaults: {type(error).__name__}: {error}") from error
