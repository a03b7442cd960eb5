"""The package unpickles in one place, what its own parent process sent, and evaluates no text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import fitstream

PACKAGE = Path(fitstream.__file__).parent

#: Calls that run what they read, or may.
RUNNING = re.compile(
    r"(eval|exec|compile|__import__)"
    r"|(.*\.)?(Unpickler|read_pickle|exec_module|load_module|set_auto_load|literal_eval|system|popen)"
    r"|(np|numpy|pickle|cloudpickle|torch|joblib|dill|marshal|yaml|shelve)\.(load|loads|open)"
)
ALLOWED = {
    ("datasets/converted.py", "np.load"),  # arrays that were converted here, without objects
    ("datasets/formats.py", "np.load"),  # Keras's own form of MNIST, without objects
    ("legacy/running.py", "compile"),  # the program that `fitstream run` is given
    ("legacy/running.py", "exec"),
    ("legacy/spawned.py", "compile"),  # the same program, where it starts processes of its own
    ("legacy/spawned.py", "exec"),
    ("engine/sending.py", "pickle.loads"),  # the parcel that the parent made, through the worker's own socket
    ("models.py", "spec.loader.exec_module"),  # the file with the model, which the user names for `fitstream train`
}


def running_calls() -> Iterator[tuple[str, str]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if RUNNING.fullmatch(name):
                    yield file.relative_to(PACKAGE).as_posix(), name
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                yield file.relative_to(PACKAGE).as_posix(), "allow_pickle"


def test_nothing_is_unpickled_or_evaluated_but_what_we_sent_ourselves() -> None:
    assert set(running_calls()) == ALLOWED


def test_no_other_module_knows_pickle() -> None:
    knowing = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and re.search(r"pickle|marshal|shelve|dill|joblib", ast.unparse(node))
    }
    assert knowing == {"engine/sending.py"}
