"""The table of renames, `renames.toml`, read: what old programs call things and what Keras 3 calls them.

The table is data, and this file only gives it types. What acts on it: `old_modules` (import paths), `old_names` (names
in modules), `translating` (arguments) and `detecting` (which Keras a program was written for).
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

__all__ = ["Call", "Evidence", "Renames", "read_renames"]


@final
@dataclass(frozen=True, slots=True)
class Call:
    """What the arguments of one class or function become. See the table for what each part means."""

    rename: Mapping[str, str] = field(default_factory=dict)
    join: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    gone: Mapping[str, str] = field(default_factory=dict)
    always: Mapping[str, Any] = field(default_factory=dict)
    default: Mapping[str, Any] = field(default_factory=dict)
    default1: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    keras1: tuple[str, ...] = ()
    keras2: tuple[str, ...] = ()
    sides: int = 0
    sequence: str = ""


@final
@dataclass(frozen=True, slots=True)
class Evidence:
    """Names that one version of Keras has: keywords, `call.keyword` pairs, names out of Keras, and modules."""

    keywords: frozenset[str]
    calls: frozenset[str]
    names: frozenset[str]
    modules: frozenset[str]


@final
@dataclass(frozen=True, slots=True)
class Renames:
    """The whole table.

    Attributes:
        modules: Old import paths, and where the names that they held are looked for.
        names: For each module of Keras, old names and what they are now: a name there, or "module:name".
        gone: For each module of Keras, names without an equal, and what to do instead.
        calls: What becomes of the arguments of a class or function, by its dotted name.
        values: By the arguments' new names, old values and new ones; "-" leaves the argument out.
        strings: Old names in `compile(loss=, metrics=)`.
        tensorflow: Names of TensorFlow 1 without an equal, and what to do instead.
        evidence: What tells Keras 1, and what Keras 2.
    """

    modules: Mapping[str, tuple[str, ...]]
    names: Mapping[str, Mapping[str, str]]
    gone: Mapping[str, Mapping[str, str]]
    calls: Mapping[str, Call]
    values: Mapping[str, Mapping[str, str]]
    strings: Mapping[str, Mapping[str, str]]
    tensorflow: Mapping[str, str]
    evidence: Mapping[int, Evidence]


@functools.cache
def read_renames() -> Renames:
    """The table that comes with fitstream."""
    table = tomllib.loads(Path(__file__).with_name("renames.toml").read_text(encoding="utf-8"))
    groups = table["groups"]
    evidence = table["evidence"]
    return Renames(
        modules={old: tuple(new) for old, new in table["modules"].items()},
        names=table["names"],
        gone=table["gone"],
        calls={name: _call(rules, groups) for name, rules in table["calls"].items()},
        values=table["values"],
        strings=table["strings"],
        tensorflow=table["tensorflow"],
        evidence={
            version: Evidence(
                keywords=frozenset(evidence[f"keras{version}_keywords"]),
                calls=frozenset(evidence["calls"][f"keras{version}"]),
                names=frozenset(evidence[f"keras{version}_names"]),
                modules=frozenset(evidence[f"keras{version}_modules"]),
            )
            for version in (1, 2)
        },
    )


def _call(rules: Mapping[str, Any], groups: Mapping[str, Mapping[str, str]]) -> Call:
    rename: dict[str, str] = {}
    for group in rules.get("groups", ()):
        rename |= groups[group]
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in rules.items()
    }
    settings.pop("groups", None)
    settings["rename"] = rename | rules.get("rename", {})
    settings["join"] = {new: tuple(old) for new, old in rules.get("join", {}).items()}
    return Call(**settings)
