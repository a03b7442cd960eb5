"""Which Keras an old program was written for, told by the names that it uses.

Keras 1 knew none of Keras 2's new names, while Keras 2 took most of Keras 1's, with a warning. So one name that only
Keras 2 has decides; then one that only Keras 1 has. Looked at are the script and the modules beside it that it imports.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from fitstream.errors import PlanError
from fitstream.legacy.renames import Renames

__all__ = ["Verdict", "detect", "parse", "python2"]

_MOST_FILES = 200
_WRITTEN_FOR_2 = re.compile(
    r"""^\s*(print|exec)\s+[^\s=(.\[]|^\s*raise\s+[\w.]+\s*,|^\s*except\s+[\w.]+\s*,|\bur['"]|<>|\d[lL]\b|`"""
)


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found.

    Attributes:
        keras: 1 or 2; None where nothing tells.
        reason: What told it: "train.py:12 uses nb_epoch=".
        tensorflow: Whether all of the Keras that the program uses is `tensorflow.keras`.
    """

    keras: int | None
    reason: str
    tensorflow: bool


def detect(script: Path, renames: Renames) -> Verdict:
    """Look at a program.

    Raises:
        PlanError: If the script can't be read, or was written for Python 2.
        SyntaxError: If it isn't Python at all.
    """
    found: dict[int, str] = {}
    roots: set[str] = set()
    for file, tree in _files(script):
        names = _names(tree)
        roots |= {name.split(".")[0] for name in names.values() if _is_keras(name)}
        roots |= {"tf" for use, _ in _uses(tree, names) if use.startswith("module tensorflow.keras")}
        for use, line in _uses(tree, names):
            for version, evidence in renames.evidence.items():
                kind, _, name = use.partition(" ")
                known = {
                    "module": evidence.modules,
                    "name": evidence.names,
                    "keyword": evidence.keywords,
                    "call": evidence.calls,
                }[kind]
                if name in known or (kind == "module" and any(name.startswith(f"{one}.") for one in known)):
                    shown = name.replace(".", "(", 1) + "=)" if kind == "call" else name
                    shown += "=" if kind == "keyword" else ""
                    found.setdefault(version, f"{file.name}:{line} uses {shown}")
    keras = 2 if 2 in found else 1 if 1 in found else None
    reason = found.get(keras, "") if keras else f"nothing in {script.name} tells Keras 1 from Keras 2"
    return Verdict(keras, reason, bool(roots) and "keras" not in roots)


def parse(file: Path) -> ast.Module:
    """The syntax tree of a program's file.

    Raises:
        PlanError: If it can't be read, or was written for Python 2.
        SyntaxError: If it isn't Python at all.
    """
    try:
        source = file.read_bytes()
    except OSError as error:
        raise PlanError(f"{file} can't be read: {error.strerror}.") from error
    try:
        return ast.parse(source, str(file))
    except SyntaxError as error:
        told = python2(error)
        if told is None:
            raise
        raise told from None


def python2(error: SyntaxError) -> PlanError | None:
    """The error to raise instead of a SyntaxError that comes from Python 2; None if it doesn't."""
    text = error.text or ""
    said = ("Missing parentheses in call to", "multiple exception types", "leading zeros in decimal")
    if not (error.msg.startswith(said) or _WRITTEN_FOR_2.search(text)):
        return None
    return PlanError(
        f"{error.filename}:{error.lineno}: this was written for Python 2: {text.strip()!r}. Turn it into Python 3 "
        f"with 2to3, which comes with Python up to 3.12: 2to3 -w {error.filename}"
    )


def _files(script: Path) -> Iterator[tuple[Path, ast.Module]]:
    """The script, and the modules beside it that it imports, each once."""
    waiting, seen = [script], {script.resolve()}
    while waiting:
        file = waiting.pop(0)
        try:
            tree = parse(file)
        except (PlanError, SyntaxError):
            if file == script:
                raise
            continue  # it may never be imported; if it is, Python says what is wrong
        yield file, tree
        for module in _imported(tree):
            base = script.parent.joinpath(*module.split("."))
            for beside in (base.with_suffix(".py"), base / "__init__.py"):
                if beside.is_file() and beside.resolve() not in seen and len(seen) < _MOST_FILES:
                    seen.add(beside.resolve())
                    waiting.append(beside)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from [module] if module else []
            yield from (f"{module}.{alias.name}".lstrip(".") for alias in node.names)


def _is_keras(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] == "keras" or (
        module.startswith("tensorflow.") and "keras" in module.split(".")
    )


def _names(tree: ast.Module) -> dict[str, str]:
    """Local names that come out of Keras or TensorFlow, and what they stand for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in ("keras", "tensorflow"):
                    top = alias.name.split(".")[0]
                    names[alias.asname or top] = alias.name if alias.asname or _is_keras(alias.name) else top
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("keras", "tensorflow"):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _uses(tree: ast.Module, names: dict[str, str]) -> Iterator[tuple[str, int]]:
    """What a file uses, as "module a.b", "name X", "keyword k" and "call F.k", with its lines, in their order."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(f"module {alias.name}", node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found += [(f"module {node.module}", node.lineno)]
            found += [(f"module {node.module}.{alias.name}", node.lineno) for alias in node.names]
            if _is_keras(node.module):
                prefix = _prefix(node.module)
                found += [(f"name {prefix}{alias.name}", node.lineno) for alias in node.names]
        elif isinstance(node, ast.Attribute):
            dotted = _dotted(node)
            start = names.get(dotted.split(".")[0])
            if start is not None:
                whole = ".".join([start, *dotted.split(".")[1:]])
                found += [(f"module {whole}", node.lineno), (f"name {_prefix(whole)}{node.attr}", node.lineno)]
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = names.get(name, name).rpartition(".")[2]
            for keyword in node.keywords:
                if keyword.arg:
                    found += [(f"keyword {keyword.arg}", keyword.value.lineno)]
                    found += [(f"call {name}.{keyword.arg}", keyword.value.lineno)]
    yield from sorted(found, key=lambda use: use[1])


def _prefix(path: str) -> str:
    # The backend has functions of its own that are called like layers of Keras 2.
    return "K." if "backend" in path.split(".") else ""


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
