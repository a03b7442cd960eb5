"""The architecture as tests: what may import what, how large things may grow, what `import fitstream` may load."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import fitstream

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "fitstream"
FILES = sorted(PACKAGE.rglob("*.py"))

#: Modules and packages from the ground up: each imports only itself and those before it.
# fmt: off
LAYERS = [
    "late", "redaction", "errors", "policy", "spec", "machine", "memory", "kept_arrays", "packing", "scratch", "events",
    "permutation", "draws", "sampling", "sources", "transforms", "buckets", "operations", "batching", "failures",
    "finite", "chain", "filler", "padding", "budget", "probe", "checking", "plan", "finishing", "planning", "engine",
    "states", "strata", "choosing", "measures", "loader", "looking", "described", "dataset", "constructors",
    "stored_constructors", "ranks", "devices", "datasets", "checkpoint_files", "checkpoints", "adapters", "text",
    "reporting", "training", "legacy", "__init__", "backend", "models", "runs", "demo", "interrupts", "cli_options",
    "inspection", "cli_inspect", "cli_run", "cli", "__main__",
]
# fmt: on

#: Late imports that point upwards, each the body of a method that hands over to what stands above.
UPWARDS = {("loader", "adapters")}

#: Imports from outside the standard library: who may, and whether at the top of the file or only inside a function.
TOP = {
    "PIL": {"legacy.image_files", "transforms.pillow"},
    "click": {"cli", "cli_inspect", "cli_options", "cli_run"},
    "cv2": {
        "legacy.image_transforms",
        "transforms.colors",
        "transforms.geometry",
        "transforms.mixing",
        "transforms.resize",
    },
    "keras": {"adapters.keras", "legacy.keras_kept", "models", "reporting.progress", "runs"},
    "rich": {"reporting.line", "reporting.progress"},
    "simplejpeg": {"transforms.decode"},
}
LATE = {
    "PIL": {"demo"},
    "pooch": {"datasets.fetch"},
    "requests": {"datasets.fetch"},
    "rich": {"datasets.fetch"},
    "cloudpickle": {"engine.sending"},
    "cv2": {"engine.codecs"},
    "h5py": {"legacy.old_files", "legacy.old_names", "sources.hdf5"},
    "hdf5plugin": {"sources.stored"},
    "matplotlib": {"reporting.history"},
    "psutil": {"machine"},
    "pyarrow": {"sources.arrow", "sources.parquet_files", "sources.table_files"},
    "sklearn": {"datasets.ready", "demo"},
    "tensorflow": {"adapters.keras_data"},
    "torch": {"adapters.keras_state"},
    "zstandard": {"sources.text_stream"},
}

MOST_LINES = 400
MOST_FUNCTION_LINES = 60
MOST_NOTE_LINES = 30


class Import(NamedTuple):
    module: str
    line: int
    target: str
    late: bool


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


def layer_of(module: str) -> str:
    """The first part of a dotted name: our module or package, or somebody else's."""
    return module.partition(".")[0]


def imports_of(file: Path) -> Iterator[Import]:
    """Everything that a file imports, `fitstream.x.y` as "x.y" and the package itself as "__init__"."""

    def visit(node: ast.AST, late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                for target in targets(child):
                    ours = target.removeprefix("fitstream").lstrip(".") or "__init__"
                    yield Import(name_of(file), child.lineno, ours if layer_of(target) == "fitstream" else target, late)
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from visit(child, True)
            else:
                typing_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
                yield from visit(child, late or typing_only)

    yield from visit(ast.parse(file.read_text(encoding="utf-8")), False)


def targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Names of the modules; in `from a import b`, b may be a module or something in a."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "imports are written in full"
    module = node.module or ""
    inner = [f"{module}.{alias.name}" for alias in node.names]
    return [name if is_ours(name) else module for name in inner]


def is_ours(module: str) -> bool:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


IMPORTS = [each for file in FILES for each in imports_of(file)]
OURS = [each for each in IMPORTS if layer_of(each.target) in LAYERS]
OTHERS = [
    each for each in IMPORTS if each not in OURS and layer_of(each.target) not in {*sys.stdlib_module_names, "numpy"}
]


def test_every_module_has_a_place_in_the_layers() -> None:
    there = {layer_of(name_of(file)) for file in FILES}
    assert there - set(LAYERS) == set(), "new modules need a place in LAYERS and in ARCHITECTURE.md"
    assert set(LAYERS) - there == set(), "LAYERS names modules that are gone"


def test_imports_point_downwards() -> None:
    wrong = [
        f"{each.module}:{each.line} imports {each.target}"
        for each in OURS
        if LAYERS.index(layer_of(each.target)) > LAYERS.index(layer_of(each.module))
        and (layer_of(each.module), layer_of(each.target)) not in UPWARDS
        and not (each.module == "__init__" and each.late)
    ]
    assert wrong == []


def test_late_imports_upwards_are_used() -> None:
    there = {(layer_of(each.module), layer_of(each.target)) for each in OURS if each.late}
    assert there >= UPWARDS


@pytest.mark.parametrize(("package", "other"), [("sources", "transforms"), ("transforms", "sources")])
def test_sources_and_transforms_do_not_know_each_other(package: str, other: str) -> None:
    assert [each for each in OURS if layer_of(each.module) == package and layer_of(each.target) == other] == []


def test_only_the_modules_named_here_import_other_packages() -> None:
    for late, allowed in ((False, TOP), (True, LATE)):
        found: dict[str, set[str]] = {}
        for each in OTHERS:
            if each.late == late:
                found.setdefault(layer_of(each.target), set()).add(each.module)
        assert found == allowed


def test_what_loads_a_framework_is_reached_from_the_core_only_late() -> None:
    heavy = set.union(*TOP.values())
    while True:
        more = {each.module for each in OURS if each.target in heavy and not each.late} - heavy
        if not more:
            break
        heavy |= more
    assert not heavy & {"__init__", "dataset", "constructors", "loader", "plan", "chain"}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_and_functions_stay_small(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES
    tree = ast.parse(text)
    assert len((ast.get_docstring(tree) or "").splitlines()) <= MOST_NOTE_LINES
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            note = node.body[0] if ast.get_docstring(node) is not None else None
            told = note.end_lineno - note.lineno + 1 if note and note.end_lineno else 0
            code = (node.end_lineno or node.lineno) - node.lineno + 1 - told
            assert code <= MOST_FUNCTION_LINES, f"{node.name} has {code} lines of code"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_module_says_what_it_offers(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    public = [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]
    declared = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    if public:
        assert declared, "no __all__"
        assert set(public) <= set(declared[0])


def test_the_public_names_are_sorted_and_there() -> None:
    assert list(fitstream.__all__) == sorted(fitstream.__all__)
    for name in fitstream.__all__:
        where = fitstream._MODULES.get(name)
        if where is None:
            assert importlib.util.find_spec(f"fitstream.{name}") is not None, name
        else:
            tree = ast.parse((PACKAGE / f"{where.removeprefix('fitstream.').replace('.', '/')}.py").read_text("utf-8"))
            assert name in {getattr(node, "name", None) for node in tree.body}, name


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'from_nowhere'"):
        fitstream.from_nowhere  # noqa: B018


def test_importing_fitstream_loads_nothing_else() -> None:
    program = "import sys; before = {*sys.modules}; import fitstream; print(*({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - sys.stdlib_module_names == {"fitstream"}
    assert [name for name in done.stdout.split() if name.startswith("fitstream.")] == ["fitstream.late"]


def test_describing_and_loading_load_nothing_heavy() -> None:
    heavy = (
        "PIL click cloudpickle cv2 jax keras matplotlib pandas polars psutil pyarrow rich simplejpeg tensorflow torch"
    )
    names = "Dataset, Loader, Plan, SampleError, from_arrays, from_folder, from_table, from_text, shard_auto"
    program = f"import sys; from fitstream import {names}; print(*({set(heavy.split())!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_file_names_a_path_outside_the_repository_or_a_registry() -> None:
    outside = re.compile(r"(?<![\w.~])/(?:home|root|mnt|Users)/|py" + "pi[.]org|python" + "hosted[.]")
    kinds = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".csv", ".json", ""}
    wrong = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in repository_files()
        if file.suffix in kinds
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if outside.search(line)
    ]
    assert wrong == []


def repository_files() -> list[Path]:
    """What git keeps; in an unpacked source archive, what the archive holds."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    folders = ("src", "tests", "docs", "benchmarks", "examples")
    return [
        file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file() and ".pyc" not in file.name
    ]
