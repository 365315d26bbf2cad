"""``seqbench new``: a package, or a single file, with a plugin that works as it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from seqbench.api.checks import check_name
from seqbench.errors import PluginError, UsageError
from seqbench.registry import Registry

SUMMARIES = {
    "model": "A recurrent network whose units keep a learned share of their past.",
    "task": "Is the number of ones so far odd?",
}
WIDTH = 88
"""Of a line of imports, as most formatters have it."""

CODE = {"model": "torch_core.py", "task": "task.py"}


@dataclass(frozen=True)
class Names:
    """What a new plugin is called.

    Attributes:
        kind: ``"model"`` or ``"task"``.
        name: of the model or task.
    """

    kind: str
    name: str

    @property
    def distribution(self) -> str:
        """Of the package: ``seqbench-my-model``."""
        return f"seqbench-{self.name}"

    @property
    def module(self) -> str:
        """What is imported: ``seqbench_my_model``."""
        return self.distribution.replace("-", "_")

    def filled(self, template: str) -> str:
        """The text of a template with these names in it."""
        text = (files("seqbench") / "templates" / template).read_text(encoding="utf-8")
        values = {"name": self.name, "distribution": self.distribution, "module": self.module}
        return Template(text).substitute(values, summary=SUMMARIES[self.kind])


def new_package(kind: str, name: str, parent: Path, cards: Registry) -> Path:
    """Write an installable package into a new folder, and say where.

    Args:
        kind: ``"model"`` or ``"task"``.
        name: of the model or task.
        parent: the folder in which ``seqbench-<name>`` is made.
        cards: what is installed, whose names are taken.

    Raises:
        UsageError: the name cannot be used, or the folder is there already.
    """
    names = _checked(kind, name, cards)
    folder = parent / names.distribution
    if folder.exists():
        raise UsageError(f"{folder} is there already; choose another name, or another folder with --output.")
    texts = {
        "pyproject.toml": "pyproject.toml.tmpl",
        "README.md": f"{kind}/README.md.tmpl",
        f"{names.module}/__init__.py": f"{kind}/card.py.tmpl",
        f"{names.module}/{CODE[kind]}": f"{kind}/{CODE[kind]}.tmpl",
        "tests/test_conformance.py": f"{kind}/test.py.tmpl",
    }
    for path, template in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(names.filled(template), encoding="utf-8")
    return folder


def new_file(kind: str, name: str, parent: Path, cards: Registry) -> Path:
    """Write one file for ``--plugin``, and say where: the code, then the card, whose factories name the file itself.

    Args:
        kind: as ``new_package`` takes it.
        name: of the model or task.
        parent: the folder of the file.
        cards: what is installed, whose names are taken.

    Raises:
        UsageError: the name cannot be used, or the file is there already.
    """
    names = _checked(kind, name, cards)
    path = parent / f"{name.replace('-', '_')}.py"
    if path.exists():
        raise UsageError(f"{path} is there already; choose another name, or another folder with --output.")
    card, code = (names.filled(f"{kind}/{part}.tmpl") for part in ("card.py", CODE[kind]))
    factory = re.compile(rf'"{names.module}\.\w+(:\w+)"')
    card = factory.sub(r'f"{__name__}\1"', card)
    parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_joined(card, code), encoding="utf-8")
    return path


def _joined(card: str, code: str) -> str:
    """Card and code in one module: the card's description, the imports of both, the code, the card."""
    (_, card_imports, card_rest), (_, code_imports, code_rest) = _parts(card), _parts(code)
    description = card.splitlines()[0].replace(" Nothing heavy is imported here.", "")
    lines = dict.fromkeys(line for line in (*card_imports.splitlines(), *code_imports.splitlines()) if line)
    groups = [
        [line for line in lines if not re.search(r"\b(numpy|torch|seqbench)\b", line)],
        [line for line in lines if re.match(r"(import|from) (numpy|torch)\b", line)],
        _merged([line for line in lines if line.startswith("from seqbench")]),
    ]
    imports = "\n\n".join("\n".join(sorted(group, key=_modules_first)) for group in groups if group)
    return f"{description}\n\n{imports}\n\n\n{code_rest}\n\n{card_rest}"


def _parts(text: str) -> tuple[str, str, str]:
    """The docstring, the imports and what comes after them."""
    match = re.fullmatch(r'(""".*?""")\n\n((?:(?:import|from) [^\n]*\n|\n)*)(.*)', text, re.DOTALL)
    assert match is not None, "a template begins with its description and its imports"
    return match[1], match[2], match[3]


def _merged(lines: list[str]) -> list[str]:
    """Imports from one module in one line."""
    found: dict[str, set[str]] = {}
    for line in lines:
        module, _, names = line.partition(" import ")
        found.setdefault(module, set()).update(names.split(", "))
    return [_import(module, sorted(names, key=_as_sorted)) for module, names in found.items()]


def _import(module: str, names: list[str]) -> str:
    line = f"{module} import {', '.join(names)}"
    return line if len(line) <= WIDTH else "\n".join([f"{module} import (", *(f"    {n}," for n in names), ")"])


def _modules_first(line: str) -> tuple[bool, str]:
    """``import x`` stands before ``from x import y``."""
    return line.startswith("from"), line


def _as_sorted(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions: as formatters sort imports."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def _checked(kind: str, name: str, cards: Registry) -> Names:
    try:
        check_name(kind, name)
    except PluginError as error:
        raise UsageError(f"The {error}.") from error
    taken = cards.models if kind == "model" else cards.tasks
    if name in taken:
        raise UsageError(f"There is a {kind} {name!r} already, by {cards.origin[kind, name]}; choose another name.")
    return Names(kind, name)
