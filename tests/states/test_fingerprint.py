"""What a fingerprint notices, what it overlooks on purpose, and what it says it can't see."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import functools
import gc
import importlib
import operator
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import tracemalloc
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fitstream as fs
from fitstream.states import sampled
from fitstream.states.digests import Digester, Told
from fitstream.states.fingerprint import Identity
from fitstream.states.sampled import Arrays


def defined(text: str, name: str = "f", lines: int = 0) -> Any:
    """A thing that a program defines, as if in a file of its own."""
    names: dict[str, Any] = {"np": np, "__name__": "program"}
    program = "\n" * lines + textwrap.dedent(text)
    exec(compile(program, f"program-{lines}.py", "exec"), names)
    return names[name]


def told(thing: Any) -> Told:
    return Digester().told(thing)


def unknown_of(thing: Any) -> list[str]:
    digester = Digester()
    digester.told(thing)
    return digester.unknown


ALIKE = {
    "another line and file": ("def f(x): return x + 1", "\n\n\ndef f(x): return x + 1"),
    "a docstring": ("def f(x): return x + 1", 'def f(x):\n    "Adds."\n    return x + 1'),
    "a docstring, and None in use": ("def f(x): return None", 'def f(x):\n    "Adds."\n    return None'),
    "a comment": ("def f(x):\n    return x", "def f(x):\n    # why\n    return x"),
    "annotations": ("def f(x): return x", "def f(x: int) -> int: return x"),
    "its own name": ("def f(x): return x", "def g(x): return x\nf = g"),
    "a set's order": ("def f(x): return x in {'a', 'b', 'c'}", "def f(x): return x in {'c', 'b', 'a'}"),
    "a docstring inside": (
        "def f(x):\n    def g(): return x\n    return g()",
        "def f(x):\n    def g():\n        'doc'\n        return x\n    return g()",
    ),
    "a dict's order": ("d = {'a': 1, 'b': 2}\ndef f(x): return d[x]", "d = {'b': 2, 'a': 1}\ndef f(x): return d[x]"),
    "a class moved and documented": (
        "class F:\n    def __call__(self, x): return x\nf = F()",
        "\n\nclass F:\n    'doc'\n    def __call__(self, x):\n        'doc'\n        return x\nf = F()",
    ),
    "a class in a function, moved": (
        "def f(x):\n    class A:\n        y = 1\n        def g(self): self.z = 1\n    return A",
        "\n\n\ndef f(x):\n    class A:\n        y = 1\n        def g(self): self.z = 1\n    return A",
    ),
    "a global that functions store to": (
        "n = 0\ndef f(x):\n    global n\n    n += 1\n    return x",
        "n = 7\ndef f(x):\n    global n\n    n += 1\n    return x",
    ),
    "a global that another function stores to": (
        "n = 0\ndef f(x): return x + n\ndef g():\n    global n\n    n += 1",
        "n = 7\ndef f(x): return x + n\ndef g():\n    global n\n    n += 1",
    ),
    "a global that it doesn't use": ("n = 0\ndef f(x): return x", "n = 7\ndef f(x): return x"),
    "an attribute named as a global": ("sum = 0\ndef f(x): return x.sum()", "sum = 1\ndef f(x): return x.sum()"),
}

DIFFERENT = {
    "a constant": ("def f(x): return x + 1", "def f(x): return x + 2"),
    "1 and True": ("def f(x): return x + 1", "def f(x): return x + True"),
    "0.0 and -0.0": ("def f(x): return x + 0.0", "def f(x): return x - (-0.0)"),
    "an operation": ("def f(x): return x + 1", "def f(x): return x - 1"),
    "a name": ("def f(x): return np.sin(x)", "def f(x): return np.cos(x)"),
    "a default": ("def f(x, k=1): return x * k", "def f(x, k=2): return x * k"),
    "a keyword's default": ("def f(x, *, k=1): return x * k", "def f(x, *, k=2): return x * k"),
    "a captured value": (
        "def make(k):\n    return lambda x: x * k\nf = make(1)",
        "def make(k):\n    return lambda x: x * k\nf = make(2)",
    ),
    "a captured array": (
        "def make(k):\n    return lambda x: x * k\nf = make(np.arange(3))",
        "def make(k):\n    return lambda x: x * k\nf = make(np.array([0, 1, 3]))",
    ),
    "a captured function": (
        "def make(k):\n    return lambda x: k(x)\nf = make(lambda y: y)",
        "def make(k):\n    return lambda x: k(x)\nf = make(lambda y: -y)",
    ),
    "an inner constant": (
        "def f(x):\n    def g(): return 1\n    return g()",
        "def f(x):\n    def g(): return 2\n    return g()",
    ),
    "a member of a set": ("def f(x): return x in {'a', 'b'}", "def f(x): return x in {'a', 'c'}"),
    "a global constant": ("K = 1\ndef f(x): return x * K", "K = 2\ndef f(x): return x * K"),
    "a global list": ("K = ['cat']\ndef f(x): return K[x]", "K = ['dog']\ndef f(x): return K[x]"),
    "a global function": (
        "def g(x): return x + 1\ndef f(x): return g(x)",
        "def g(x): return x + 2\ndef f(x): return g(x)",
    ),
    "a global function's constant": (
        "K = 1\ndef g(x): return x + K\ndef f(x): return g(x)",
        "K = 2\ndef g(x): return x + K\ndef f(x): return g(x)",
    ),
    "a global class": (
        "class A:\n    def g(self): return 1\ndef f(x): return A().g()",
        "class A:\n    def g(self): return 2\ndef f(x): return A().g()",
    ),
    "an attribute": (
        "class F:\n    def __init__(self, k): self.k = k\n    def __call__(self, x): return x * self.k\nf = F(1)",
        "class F:\n    def __init__(self, k): self.k = k\n    def __call__(self, x): return x * self.k\nf = F(2)",
    ),
    "an attribute in a slot": (
        "class F:\n    __slots__ = 'k'\n    def __init__(self, k): self.k = k\n    def __call__(self): ...\nf = F(1)",
        "class F:\n    __slots__ = 'k'\n    def __init__(self, k): self.k = k\n    def __call__(self): ...\nf = F(2)",
    ),
    "a base class's method": (
        "class B:\n    def g(self): return 1\nclass F(B):\n    def __call__(self, x): return x\nf = F()",
        "class B:\n    def g(self): return 2\nclass F(B):\n    def __call__(self, x): return x\nf = F()",
    ),
    "a bound method's instance": (
        "class F:\n    def __init__(self, k): self.k = k\n    def g(self, x): return x * self.k\nf = F(1).g",
        "class F:\n    def __init__(self, k): self.k = k\n    def g(self, x): return x * self.k\nf = F(2).g",
    ),
    "a handler": (
        "def f(x):\n    try: return 1 / x\n    except ValueError: return 0",
        "def f(x):\n    try: return 1 / x\n    except KeyError: return 0",
    ),
    "a generator and a function": ("def f(x): return x", "def f(x): yield x"),
}


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_what_changes_no_sample_changes_no_fingerprint(one: str, other: str) -> None:
    assert told(defined(one)) == told(defined(other, lines=5))


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_changes_samples_changes_the_fingerprint(one: str, other: str) -> None:
    assert told(defined(one)) == told(defined(one, lines=3))
    assert told(defined(one)) != told(defined(other))


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Settings:
    side: int
    names: tuple[str, ...] = ()


class Own:
    def __init__(self, value: object) -> None:
        self.value = value


VALUES: dict[str, tuple[Any, Any]] = {
    "int": (1, 2),
    "long int": (10**5000, 10**5000 + 1),
    "float": (0.0, -0.0),
    "text": ("é", "e"),
    "surrogate": ("\udcff", "\udcfe"),
    "bytes": (b"a", b"b"),
    "tuple and list": ((1, 2), [1, 2]),
    "nested": ({"a": [1, {2}]}, {"a": [1, {3}]}),
    "dict keys": ({1: "a"}, {"1": "a"}),
    "set": ({1, 2}, {1, 3}),
    "set and frozenset": ({1}, {1, 2}),
    "enum": (Colour.RED, Colour.BLUE),
    "dataclass": (Settings(1), Settings(2)),
    "object": (Own(1), Own(2)),
    "regex": (re.compile("a"), re.compile("a", re.IGNORECASE)),
    "path": (Path("a"), Path("b")),
    "range": (range(3), range(4)),
    "array": (np.arange(4), np.arange(4).astype(np.int32)),
    "array order": (np.array([[1, 2], [3, 4]]), np.array([[1, 3], [2, 4]])),
    "array shape": (np.zeros((2, 3)), np.zeros((3, 2))),
    "zero-dimensional": (np.array(1), np.array(2)),
    "empty": (np.zeros((0, 3)), np.zeros((0, 4))),
    "array of objects": (np.array(["a", None]), np.array(["b", None])),
    "scalar": (np.float32(1), np.float32(2)),
    "dtype": (np.dtype("f4"), np.dtype("f8")),
    "record dtype": (np.dtype([("a", "f4")]), np.dtype([("b", "f4")])),
    "partial": (functools.partial(max, 1), functools.partial(max, 2)),
    "partial's function": (functools.partial(max, 1), functools.partial(min, 1)),
    "builtin": (len, sum),
    "method of a value": ("a".upper, "b".upper),
    "ufunc": (np.sin, np.cos),
    "module": (os, sys),
    "class": (Own, Settings),
    "itemgetter": (operator.itemgetter(1), operator.itemgetter(2)),
    "deque": (collections.deque([1]), collections.deque([2])),
    "Counter": (collections.Counter("a"), collections.Counter("b")),
    "defaultdict": (collections.defaultdict(int, a=1), collections.defaultdict(int, a=2)),
    "vocabulary": ({str(i): i for i in range(30_000)}, {str(i): i + (i == 20_000) for i in range(30_000)}),
    "large set": (set(range(30_000)), set(range(1, 30_001))),
    "large dict of lists": ({i: [i] for i in range(3000)}, {i: [i + (i == 2000)] for i in range(3000)}),
    "dict of tuples": ({(i, i): [i] for i in range(5000)}, {(i, i): [i + (i == 2000)] for i in range(5000)}),
    "larger dict of lists": ({i: [i] for i in range(5000)}, {i: [-i] for i in range(5000)}),
    "keys of a larger dict": ({i: [0] for i in range(5000)}, {i + (i == 4999): [0] for i in range(5000)}),
    "annotations": ({f"{i}": [{"a": i}] for i in range(30_000)}, {f"{i}": [{"a": -i}] for i in range(30_000)}),
    "huge dict": ({str(i): [i] for i in range(100_001)}, {str(i): [i] for i in range(100_002)}),
    "large list": (list(range(5000)), list(range(5001))),
}


@pytest.mark.parametrize(("one", "other"), VALUES.values(), ids=VALUES)
def test_values_count_by_content(one: Any, other: Any) -> None:
    digester = Digester()
    assert digester.value(one) != digester.value(other)
    assert digester.unknown == []
    again = one if isinstance(one, types.ModuleType) else copy.deepcopy(one)
    assert Digester().value(one) == Digester().value(again)


class Tensor:
    """As those of PyTorch, TensorFlow and JAX look to NumPy."""

    def __init__(self, values: Any) -> None:
        self.values = np.array(values)
        self.dtype, self.shape, self.lock = self.values.dtype, self.values.shape, threading.Lock()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.values


def test_a_tensor_counts_by_content() -> None:
    digester = Digester()
    assert digester.value(Tensor([1, 2])) == Digester().value(Tensor([1, 2]))
    assert digester.value(Tensor([1, 2])) != digester.value(Tensor([1, 3]))
    assert digester.unknown == []


def test_things_that_hold_themselves_end() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    other: list[Any] = [2]
    other.append(other)
    assert Digester().value(loop) != Digester().value(other)
    recursive = "def f(x): return f(x - 1) if x else {}"
    assert told(defined(recursive.format(0))) == told(defined(recursive.format(0), lines=2))
    assert told(defined(recursive.format(0))) != told(defined(recursive.format(1)))
    mutual = "def g(x): return f(x)\ndef f(x): return g(x) + {}"
    assert told(defined(mutual.format(0))) != told(defined(mutual.format(1)))
    own = Own(None)
    own.value = own
    assert Digester().value(own) == Digester().value(own)
    parent = "class A:\n    def __call__(self, x): return super().__init__()\nf = A()"
    assert told(defined(parent)) == told(defined(parent, lines=1))


def test_what_is_deep_ends() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    digester = Digester()
    digester.value(deep)
    assert any("too large" in name for name in digester.unknown)
    del deep[:]


class Node:
    """One of a graph, whose place in a set is chosen."""

    places: ClassVar[list[int]] = []

    def __init__(self, number: int) -> None:
        self.number = number
        self.friends: set[Node] = set()
        self.named: dict[Any, Node] = {}
        self.listed: list[Node] = []

    def __hash__(self) -> int:
        return Node.places[self.number]

    def __eq__(self, other: object) -> bool:
        return self is other


edges = st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=9)


@settings(max_examples=150, deadline=None)
@given(friends=edges, named=edges, listed=edges, roots=st.sets(st.integers(0, 4), min_size=1), order=st.randoms())
def test_graphs_with_cycles_count_without_the_order_of_sets(
    friends: Any, named: Any, listed: Any, roots: Any, order: Any
) -> None:
    def found() -> bytes:
        nodes = [Node(i) for i in range(5)]
        for one, other in order.sample(sorted(friends), len(friends)):
            nodes[one].friends.add(nodes[other])
        for one, other in order.sample(sorted(named), len(named)):
            nodes[one].named[nodes[other] if other % 2 else f"{other}"] = nodes[other]
        for one, other in sorted(listed):
            nodes[one].listed.append(nodes[other])
        return Digester().value([{nodes[i] for i in roots}, nodes])

    Node.places = [0, 1, 2, 3, 4]
    first = found()
    for _ in range(3):
        Node.places = order.sample(range(5), 5)
        assert found() == first


def test_cycles_that_differ_count_differently() -> None:
    def ring(count: int, last: int) -> Any:
        Node.places = list(range(10))
        nodes = [Node(i) for i in (*range(count - 1), last)]
        for i, node in enumerate(nodes):
            node.friends.add(nodes[(i + 1) % count])
        return nodes[0]

    seen = {Digester().value(ring(count, last)) for count, last in ((3, 5), (3, 6), (4, 5), (4, 6))}
    assert len(seen) == 4


def test_a_graph_that_takes_too_long_is_named_and_counts_by_its_type() -> None:
    Node.places = list(range(40))
    nodes = [Node(i) for i in range(40)]
    for node in nodes:
        node.friends = set(nodes)
    digester = Digester()
    found = digester.value(nodes)
    assert digester.unknown == ["it (a list, too large)"]
    assert Digester().value(nodes[::-1]) == found


GRAPHS = """
from fitstream.states.digests import Digester

class Node:
    def __init__(self, number, parent=None):
        self.number, self.parent, self.friends = number, parent, set()

nodes = [Node(i) for i in range(4)]
for node in nodes:
    node.friends |= set(nodes) - {node}
tree = Node(9)
tree.friends = {Node(i, tree) for i in range(5)}

def functions():
    def even(n): return n == 0 or odd(n - 1)
    def odd(n): return n > 0 and even(n - 1)
    return {even, odd}

print([Digester().value(one).hex() for one in (nodes, nodes[0], tree, tree.friends, functions())])
"""


def test_processes_agree_on_graphs_with_cycles(tmp_path: Path) -> None:
    program = tmp_path / "graphs.py"
    program.write_text(GRAPHS)
    seen = set()
    for seed in ("0", "1", "2", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout)
    assert len(seen) == 1


def capturing(x: Any) -> Any:
    return lambda sample: (sample, x)[0]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: sqlite3.connect(":memory:"), "closure variable 'x' (a sqlite3.Connection)"),
        (threading.Lock, "closure variable 'x' (a _thread.lock)"),
        (tempfile.TemporaryFile, "closure variable 'x' (a _io.BufferedRandom)"),
        (lambda: Own(threading.Lock()), "closure variable 'x.value' (a _thread.lock)"),
        (lambda: [1, {"a": threading.Lock()}], "closure variable \"x[1]['a']\" (a _thread.lock)"),
        (lambda: (i for i in range(3)), "closure variable 'x' (a generator)"),
    ],
)
def test_what_cannot_be_fingerprinted_is_named(make: Any, name: str) -> None:
    thing = make()
    assert unknown_of(capturing(thing)) == [name]
    if hasattr(thing, "close"):
        thing.close()


class Hostile:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("not for you")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("not for you")

    def __call__(self, x: Any) -> Any:
        return x


class Stored(Tensor):
    """As a dataset of an HDF5 file looks to NumPy."""

    nbytes = 2**40

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise AssertionError("would read all of it")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("can't be pickled")


def test_things_that_refuse_to_be_looked_at_are_named() -> None:
    assert unknown_of(capturing(Hostile())) == [f"closure variable 'x' (a {__name__}.Hostile)"]
    assert len(unknown_of(Hostile())) == 1
    assert unknown_of(capturing(Stored([1]))) == [f"closure variable 'x' (a {__name__}.Stored)"]


def test_a_library_counts_by_name_and_not_by_its_code() -> None:
    assert told(textwrap.dedent).captured == {}
    assert told(np.flipud) == told(np.flipud)
    assert told(np.flipud) != told(np.fliplr)
    assert told(Path.read_text) != told(Path.read_bytes)
    assert unknown_of(capturing(textwrap.dedent)) == []


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a module, or a module in a package, of the user's."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(name: str, text: str) -> types.ModuleType:
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        for one in (name, name.partition(".")[0]):
            monkeypatch.delitem(sys.modules, one, raising=False)
        importlib.invalidate_caches()
        importlib.import_module(name)
        return sys.modules[name.partition(".")[0]]

    return make


MODULES = {
    "a function": ("def flip(x): return x", "def flip(x): return -x", "m.flip(x)"),
    "a function of a function": (
        "def turn(x): return x\ndef flip(x): return turn(x)",
        "def turn(x): return -x\ndef flip(x): return turn(x)",
        "m.flip(x)",
    ),
    "a class's method": ("class A:\n def f(self): return 1", "class A:\n def f(self): return 2", "m.A.f(x)"),
    "a constant": ("SIDE = 1", "SIDE = 2", "x * m.SIDE"),
    "a table": ("TABLE = {'a': 1}", "TABLE = {'a': 2}", "m.TABLE['a']"),
    "a default": ("def flip(x, k=1): return x", "def flip(x, k=2): return x", "[m.flip(y) for y in x]"),
}


@pytest.mark.parametrize(("before", "after", "use"), MODULES.values(), ids=MODULES)
@pytest.mark.parametrize("name", ["augm", "package.augm"])
def test_what_is_used_of_an_own_module_counts(own_module: Any, name: str, before: str, after: str, use: str) -> None:
    def found(text: str) -> Told:
        function = defined(f"def f(x): return {use.replace('m.', name + '.')}")
        function.__globals__[name.partition(".")[0]] = own_module(name, text)
        return told(function)

    first = found(before)
    assert found(before + "\ndef unused(): return 1\nUNUSED = 1\n") == first
    assert found(after) != first


def test_a_library_that_is_used_as_a_module_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    function = defined("import textwrap\ndef f(x): return textwrap.dedent(x), np.linalg.norm(x)")
    before = told(function)
    monkeypatch.setattr(textwrap, "dedent", lambda text: text)
    assert told(function) == before


def bound(generator: random.Random) -> Any:
    return generator.random


@pytest.mark.parametrize(
    "make",
    [np.random.default_rng, np.random.PCG64, np.random.RandomState, random.Random, lambda s: bound(random.Random(s))],
)
def test_random_generators_are_named_and_not_compared(make: Any) -> None:
    one, other = told(capturing(make(1))), told(capturing(make(2)))
    assert one == other
    assert unknown_of(capturing(make(1))) == ["closure variable 'x' (a random generator)"]
    assert unknown_of(make(1))


def test_a_method_of_a_random_generator_is_named_by_where_it_was_found() -> None:
    assert unknown_of(capturing(random.Random(1).uniform)) == ["closure variable 'x' (a random generator)"]
    assert unknown_of(capturing(np.random.RandomState(1).rand)) == ["closure variable 'x' (a random generator)"]


def test_what_a_function_holds_beside_a_random_generator_is_compared() -> None:
    def found(seed: int, scale: float) -> Told:
        rng = np.random.default_rng(seed)
        return told(lambda x: x + scale * rng.random())

    assert found(1, 2.0) == found(3, 2.0)
    assert found(1, 2.0) != found(1, 4.0)


def test_arrays_that_are_gone_are_not_kept() -> None:
    arrays = Arrays()
    for number in range(5):
        array = np.full(300_000, number, np.float64)
        assert Digester(arrays).value(array) == Digester(arrays).value(array)
        del array
    gc.collect()
    assert len(arrays._known) == 1


def test_an_object_that_makes_an_array_anew_at_each_look_leaks_nothing() -> None:
    class Maker:
        def __getstate__(self) -> Any:
            return {"table": np.zeros(300_000)}

    arrays, maker = Arrays(), Maker()
    for _ in range(5):
        Digester(arrays).value(maker)
    assert len(arrays._known) == 1
    assert all(kept[0]() is None for kept in arrays._known.values())


@pytest.mark.parametrize("make", [np.zeros, lambda count: Tensor(np.zeros(count))], ids=["array", "tensor"])
def test_large_arrays_are_read_whole_once_unless_they_change(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    whole = sampled._content
    monkeypatch.setattr(sampled, "_content", lambda array: (read.append(array.size), whole(array))[1])
    arrays, thing = Arrays(), make(300_000)
    before = Digester(arrays).value(thing)
    assert read.count(300_000) == 1
    assert Digester(arrays).value(thing) == before
    assert read.count(300_000) == 1
    values = getattr(thing, "values", thing)
    values[:] = 1
    after = Digester(arrays).value(thing)
    assert after != before
    values[1] = 2  # in no look at some of the values, but it is read whole by whom doesn't know it
    assert Digester(arrays).value(thing) == after
    assert Digester().value(thing) != after


TABLES = [
    "pandas frame", "pandas series", "pandas index", "polars frame", "polars series", "arrow table", "arrow batch",
    "arrow column",
]  # fmt: skip


def tables() -> dict[str, Any]:
    pandas, polars, arrow = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    return {
        "pandas frame": lambda v, name="a": pandas.DataFrame({name: v, "text": v.astype(str)}),
        "pandas series": lambda v, name="a": pandas.Series(v, name=name),
        "pandas index": lambda v, name="a": pandas.Index(v, name=name),
        "polars frame": lambda v, name="a": polars.DataFrame({name: v, "text": v.astype(str)}),
        "polars series": lambda v, name="a": polars.Series(name, v),
        "arrow table": lambda v, name="a": arrow.table({name: v}),
        "arrow batch": lambda v, name="a": arrow.RecordBatch.from_pydict({name: v}),
        "arrow column": lambda v, name="a": arrow.chunked_array([v, v]),
    }


@pytest.mark.parametrize("kind", TABLES)
def test_tables_count_by_form_and_some_rows(kind: str) -> None:
    make, values = tables()[kind], np.arange(3000.0)
    other = values.copy()
    other[0] = 7  # the first row is always among them
    digester = Digester()
    found = digester.value(make(values))
    assert digester.unknown == []
    assert Digester().value(make(values.copy())) == found
    changes = [make(other), make(values[:-1]), make(values.astype(np.float32))]
    changes += [make(values, name="b")] if kind != "arrow column" else []
    assert all(Digester().value(one) != found for one in changes)
    assert told(capturing(make(values))) != told(capturing(make(other)))
    assert told(make(values)) != told(make(other))


@pytest.mark.parametrize("kind", TABLES)
def test_tables_are_not_serialised_to_be_read(kind: str) -> None:
    table = tables()[kind](np.arange(300_000.0))
    digester = Digester()
    tracemalloc.start()
    digester.value(table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_long_texts_count_by_pieces() -> None:
    for one, other in (("a", "b"), (b"a", b"b"), (bytearray(b"a"), bytearray(b"b"))):
        long = one * (1 << 27)
        tracemalloc.start()
        found = Digester().value(long)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 24
        assert Digester().value(other + long[1:]) != found
        assert Digester().value(long + one) != found


def test_large_arrays_count_by_some_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((1000, 10)))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r+")
    before = Digester().value(mapped)
    mapped[0, 0] = 1  # the first row is always among them
    assert Digester().value(mapped) != before


PROGRAM = """
import collections, re
import numpy as np
import fitstream as fs

NAMES = {"cat", "dog", "bird", "fish", "ant"}
TABLE = {name: len(name) for name in NAMES}

class Augment:
    kinds = frozenset(NAMES)
    def __init__(self):
        self.names, self.table, self.pattern = set(NAMES), dict(TABLE), re.compile("a")
    def __call__(self, x):
        return x if "cat" in {"cat", "dog", "bird"} else -x

def helper(x, names=frozenset(NAMES)):
    return x + len(NAMES) + TABLE["cat"]

captured = {frozenset({"a", "b", "c"}): set("xyz")}
data = fs.from_arrays(np.arange(20.0)).map(Augment()).map(lambda x: helper(x) + len(captured)).shuffle(1).batch(4)
import json
print(json.dumps(data.loader(memory="1 MB").state_dict(), sort_keys=True))
"""


def test_processes_with_other_hash_seeds_agree(tmp_path: Path) -> None:
    seen = set()
    for number, seed in enumerate(("0", "1", "77")):
        # Another file, too, and other lines.
        program = tmp_path / f"program{number}.py"
        program.write_text("\n" * number + PROGRAM)
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout)
    assert len(seen) == 1


# Sources.


def parts(dataset: fs.Dataset) -> dict[str, str]:
    found = Identity(dataset.plan(memory="8 MB")).now()
    return {part.name: part.code + str(part.values) for part in found.parts}


def changed(one: fs.Dataset, other: fs.Dataset) -> list[str]:
    before, after = parts(one), parts(other)
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def test_a_folder_may_be_moved(tmp_path: Path, make_pictures: Any) -> None:
    make_pictures(tmp_path / "one")
    before = fs.from_folder(tmp_path / "one", image_size=8).batch(4)
    kept = parts(before)
    (tmp_path / "one").rename(tmp_path / "other")
    after = fs.from_folder(tmp_path / "other", image_size=8).batch(4)
    assert parts(after) == kept
    assert changed(after, fs.from_folder(tmp_path / "other", image_size=9).batch(4))[0] == "decode(8x8, uint8)"
    (tmp_path / "other" / "cats" / "001.jpg").rename(tmp_path / "other" / "cats" / "new.jpg")
    assert changed(after, fs.from_folder(tmp_path / "other", image_size=8).batch(4)) == ["files"]
    assert "class names" in changed(
        after, fs.from_folder(tmp_path / "other", image_size=8, classes=["dogs", "cats"]).batch(4)
    )


def test_labels_of_a_table_count(tmp_path: Path, make_pictures: Any) -> None:
    make_pictures(tmp_path)
    rows = [["cats/001.jpg", 0], ["dogs/001.jpg", 1]]

    def dataset(rows: Any, **options: Any) -> fs.Dataset:
        return fs.from_table(rows, root=tmp_path, image_size=8, **options).batch(2)

    assert changed(dataset(rows), dataset(rows)) == []
    assert changed(dataset(rows), dataset([rows[0], ["dogs/001.jpg", 2]])) == ["labels"]
    assert "labels" in changed(dataset(rows), dataset(rows, label_mode="categorical"))


def test_arrays_count_by_content() -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6)
    other = y.copy()
    other[3] = 9
    assert changed(fs.from_arrays((x, y)).batch(2), fs.from_arrays((x.copy(), y)).batch(2)) == []
    assert changed(fs.from_arrays((x, y)).batch(2), fs.from_arrays((x, other)).batch(2)) == ["array[1]"]
    assert changed(fs.from_arrays({"a": x}).batch(2), fs.from_arrays({"a": x + 1}).batch(2)) == ["array['a']"]


def test_hdf5_arrays_count_by_some_rows(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    for name, last in (("one", 1), ("same", 1), ("other", 2)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["x"] = np.array([0.0] * 99 + [last])
    files = [h5py.File(tmp_path / f"{name}.h5", "r") for name in ("one", "same", "other")]
    one, same, other = (fs.from_arrays(file["x"]).batch(2) for file in files)
    assert changed(one, same) == []
    assert changed(one, other) == ["array"]
    for file in files:
        file.close()


class Samples:
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return np.float32(index)


def test_objects_count_by_class_and_attributes() -> None:
    assert changed(fs.from_sequence(Samples(9)).batch(2), fs.from_sequence(Samples(9)).batch(2)) == []
    assert changed(fs.from_sequence(Samples(9)).batch(2), fs.from_sequence(Samples(8)).batch(2)) == ["Samples"]
    assert changed(fs.from_sequence([1.0, 2.0]).batch(2), fs.from_sequence([1.0, 3.0]).batch(2)) == ["list"]


def test_operations_count_with_their_parameters() -> None:
    data = fs.from_arrays(np.arange(40.0))
    one = data.take(20).split(0.5, seed=1)[0].shuffle(1).batch(4)
    assert changed(one, data.take(20).split(0.5, seed=1)[0].shuffle(1).batch(4)) == []
    assert changed(one, data.take(21).split(0.5, seed=1)[0].shuffle(1).batch(4)) == ["take(20)", "take(21)"]
    assert "split(10 from 0 on, seed 1)" in changed(one, data.take(20).split(0.5, seed=2)[0].shuffle(1).batch(4))
    assert changed(data.batch(4), data.shuffle(0).batch(4)) == ["shuffle"]
    assert changed(data.batch(4), data.shard(0, 2).batch(4)) == ["shard(0, 2)"]
    assert changed(data.batch(4, "pad"), data.batch(4, "pad", mask=True)) != []


def test_a_shard_of_batches_is_no_part_of_it() -> None:
    data = fs.from_arrays(np.arange(40.0)).batch(8)
    assert changed(data, data.shard(1, 4)) == []


def test_what_changes_while_it_runs_is_left_out_and_named() -> None:
    calls: list[int] = []
    table = {"k": 2.0}

    def counted(x: Any) -> Any:
        calls.append(1)
        return x * table["k"]

    identity = Identity(fs.from_arrays(np.arange(9.0)).map(counted).batch(3).plan(memory="1 MB"))
    assert identity.now().unknown == ()
    calls.append(1)
    found = identity.now()
    assert [name.split(": ")[1] for name in found.unknown] == ["closure variable 'calls' changes while it runs"]
    assert [part.values for part in found.parts if part.name.startswith("map")] == [""]


class Reads:
    count = 0
    log: ClassVar[list[int]] = []

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> Any:
        Reads.count += 1
        note(index)
        return np.float32(index)


def note(index: int) -> None:
    Reads.log.append(index)
    LOG.append(index)


LOG: list[int] = []


def test_counts_that_a_class_or_a_module_keeps_change_nothing_else() -> None:
    identity = Identity(fs.from_sequence(Reads()).batch(3).plan(memory="1 MB"))
    before = identity.now()
    Reads()[3]
    again = Identity(fs.from_sequence(Reads()).batch(3).plan(memory="1 MB")).now()
    assert [part.code for part in again.parts] == [part.code for part in before.parts]
    told = [name.removeprefix("Reads: ") for name in identity.now().unknown]
    assert sorted(told) == [
        "class attribute 'Reads.count' changes while it runs",
        "class attribute 'Reads.log' changes while it runs",
        "global 'LOG' changes while it runs",
    ]
