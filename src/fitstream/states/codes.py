"""What a code object computes, apart from where it stands: its instructions with their constants in place.

Constants are put where they are used, so that a docstring, which shifts their numbers, changes nothing. Line numbers,
file names and the names of functions are left out; names of variables are kept.
"""

from __future__ import annotations

import opcode
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

__all__ = ["is_library", "is_library_module", "is_of_library", "read_code", "stores_global"]

_EXTENDED = opcode.opmap["EXTENDED_ARG"]
_CACHE = opcode.opmap["CACHE"]
_CONSTANTS = frozenset(opcode.hasconst)
_STORE_NAME = opcode.opmap["STORE_NAME"]
#: Instructions that find a global, and by how many bits the number of its name is shifted.
_LOADS = {
    opcode.opmap[name]: shift
    for name, shift in (("LOAD_GLOBAL", 1), ("LOAD_NAME", 0), ("LOAD_FROM_DICT_OR_GLOBALS", 0))
    if name in opcode.opmap
}
#: The same of instructions that find an attribute. From Python 3.12 on one does for methods, too.
_ATTRIBUTES = {opcode.opmap["LOAD_ATTR"]: 1 if sys.version_info >= (3, 12) else 0}
if sys.version_info < (3, 12):
    _ATTRIBUTES[opcode.opmap["LOAD_METHOD"]] = 0
_STORES = {opcode.opmap[name] for name in ("STORE_GLOBAL", "DELETE_GLOBAL")}
#: What the body of a class stores of where it stands, from Python 3.13 on.
_WHEREABOUTS = {"__firstlineno__", "__static_attributes__"}
#: Flags that say how a function is called: *args, **kwargs, generator, coroutine, and asynchronous generator.
_FLAGS = 0x04 | 0x08 | 0x20 | 0x80 | 0x200

_STANDARD = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def read_code(code: types.CodeType) -> tuple[list[Any], set[tuple[str, ...]]]:
    """Take a code object apart.

    Returns:
        Constants, code objects and other values that together say what it computes, and the globals that it reads: the
        name of each with those of the attributes that are read of it at once, as ("os", "path", "join").
    """
    tokens: list[Any] = [
        code.co_flags & _FLAGS, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_names,
        code.co_varnames, code.co_freevars, code.co_cellvars, code.co_exceptiontable,
    ]  # fmt: skip
    used: set[tuple[str, ...]] = set()
    path: tuple[str, ...] = ()
    plain, last = bytearray(), b""
    for operation, argument in _instructions(code):
        if operation in _LOADS:
            path = (code.co_names[argument >> _LOADS[operation]],)
        elif path and operation in _ATTRIBUTES:
            path = (*path, code.co_names[argument >> _ATTRIBUTES[operation]])
        else:
            path = ()
        if path:
            used.add(path)
        if operation == _STORE_NAME and code.co_names[argument] in _WHEREABOUTS:
            if not last:
                tokens.pop()
            last = b""
            continue
        plain += last
        last = b"%d %d;" % (operation, argument)
        if operation in _CONSTANTS:
            tokens += [bytes(plain), code.co_consts[argument]]
            plain, last = bytearray(b"%d;" % operation), b""
    return [*tokens, bytes(plain + last)], used


def _instructions(code: types.CodeType) -> Iterator[tuple[int, int]]:
    bytecode, extended = code.co_code, 0
    for at in range(0, len(bytecode), 2):
        operation, argument = bytecode[at], bytecode[at + 1] | extended << 8
        extended = argument if operation == _EXTENDED else 0
        if operation not in (_EXTENDED, _CACHE):
            yield operation, argument


def stores_global(there: dict[str, Any], name: str) -> bool:
    """Whether functions of a module store to one of its globals: it is state then, and no constant."""
    for value in list(there.values()):
        members = list(vars(value).values()) if isinstance(value, type) else [value]
        for each in members:
            function = getattr(each, "__func__", each)
            ours = isinstance(function, types.FunctionType) and function.__globals__ is there
            if ours and _stores(function.__code__, name):
                return True
    return False


def _stores(code: types.CodeType, name: str) -> bool:
    if name in code.co_names and any(
        operation in _STORES and code.co_names[argument] == name for operation, argument in _instructions(code)
    ):
        return True
    return any(_stores(one, name) for one in code.co_consts if isinstance(one, types.CodeType))


def is_library(file: str) -> bool:
    """Whether code of this file is of the standard library, an installed package or fitstream, not the user's own."""
    if file.startswith("<"):
        return file.startswith("<frozen")
    path = os.path.abspath(file)
    parts = path.split(os.sep)
    return path.startswith((_STANDARD, _OURS)) or "site-packages" in parts or "dist-packages" in parts


def is_of_library(cls: type) -> bool:
    """The same of a class."""
    if cls.__module__.partition(".")[0] in sys.stdlib_module_names and cls.__module__ != "__main__":
        return True
    # The class of a notebook or of `exec` has no file, and is the user's own.
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return cls.__module__ == "builtins" or (file is not None and is_library(file))


def is_library_module(module: types.ModuleType) -> bool:
    """The same of a module, or of a package without a file of its own."""
    if module.__name__.partition(".")[0] in sys.stdlib_module_names and module.__name__ != "__main__":
        return True
    places = [vars(module).get("__file__"), *(vars(module).get("__path__") or ())]
    return any(is_library(place) for place in places if isinstance(place, str))
