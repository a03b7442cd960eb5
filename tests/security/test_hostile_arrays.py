"""Array files that would run code, read something else, or take all memory."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from canary import Hostile, read

import fitstream as fs


def header(text: str, version: tuple[int, int] = (1, 0), size: int | None = None) -> bytes:
    """A .npy header of any text, which may declare another size than it has."""
    data = text.encode("latin1")
    length = struct.pack("<H" if version == (1, 0) else "<I", len(data) if size is None else size)
    return b"\x93NUMPY" + bytes(version) + length + data


def described(shape: str, descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def objects(hostile: Hostile) -> np.ndarray:
    array = np.empty(2, object)
    array[:] = [hostile.trap, hostile.trap]
    return array


def fields_with_objects(hostile: Hostile) -> np.ndarray:
    array = np.zeros(2, [("x", "f4"), ("y", "O")])
    array["y"] = objects(hostile)
    return array


RUNS = "__import__('pathlib').Path({mark!r}).touch()"
NPY: dict[str, tuple[Callable[[Hostile], bytes], str]] = {
    "pickled objects": (lambda h: saved(objects(h)), "stored as pickles.*np.save"),
    "a field of pickled objects": (lambda h: saved(fields_with_objects(h)), "stored as pickles"),
    "a bare pickle": (lambda h: h.pickled, "looks like a pickle, which is never read"),
    "an expression as header": (lambda h: header(RUNS.format(mark=str(h.mark))), "damaged"),
    "an expression as shape": (lambda h: header(described(RUNS.format(mark=str(h.mark)))), "damaged"),
    "an expression as dtype": (lambda h: header(described("(2,)", RUNS.format(mark=str(h.mark)))), "damaged"),
    "more rows than bytes": (
        lambda h: header(described("(1000000000000, 1000)")) + bytes(64),
        "0,000 bytes, but 64 follow",
    ),
    "a negative shape": (lambda h: header(described("(-1, 4)")) + bytes(64), "cut off or damaged"),
    "two negative lengths": (lambda h: header(described("(-2, -2)")) + bytes(64), "cut off or damaged"),
    "a shape beyond 64 bits": (lambda h: header(described(f"({2**70},)")) + bytes(64), "cut off or damaged"),
    "no literal": (lambda h: header("{'descr': '<f4', 'fortran_order'") + bytes(64), "damaged"),
    "nested brackets": (lambda h: header("(" * 9000) + bytes(64), "damaged"),
    "a version to come": (lambda h: header(described("(2,)"), (9, 0)) + bytes(64), r"version 9\.0"),
    "a header of 4 GB": (lambda h: header(described("(2,)"), (2, 0), 2**32 - 1), r"declares 4,294,967,295 bytes"),
    "half a header": (lambda h: header(described("(2,)"), (2, 0), 5000), "damaged"),
    "cut off": (lambda h: saved(np.zeros((100, 8)))[:-1], "cut off or damaged"),
    "nothing": (lambda h: b"", "damaged"),
    "text": (lambda h: saved(np.array(["a", "b"])), "must hold numbers"),
}


@pytest.mark.parametrize("kind", NPY)
def test_a_hostile_npy_file_is_refused(hostile: Hostile, kind: str) -> None:
    make, told = NPY[kind]
    path = hostile.root / "x.npy"
    path.write_bytes(make(hostile))
    hostile.refused(lambda: fs.from_arrays((path, np.zeros(2))), r"x\.npy|\[0\]", told)


def test_a_row_of_a_terabyte_is_refused_before_it_is_read(hostile: Hostile) -> None:
    path = hostile.root / "x.npy"
    path.write_bytes(header(described(f"(2, {2**38})")))
    try:
        os.truncate(path, 2**42)
    except OSError:
        pytest.skip("the file system has no files of 4 TB")
    hostile.refused(lambda: fs.from_arrays(path), "one sample of 2 rows of arrays", r"1\.1 TB", "are allowed")


NPZ: dict[str, tuple[Callable[[Hostile], dict[str, bytes]], int, str]] = {
    "a pickled member": (lambda h: {"a.npy": saved(objects(h))}, zipfile.ZIP_STORED, "stored as pickles"),
    "a bomb": (lambda h: {"a.npy": saved(np.zeros(10**7))}, zipfile.ZIP_DEFLATED, r"compressed \(.* for 80 MB\)"),
    "no array": (lambda h: {"a.npy": b"text"}, zipfile.ZIP_STORED, "damaged"),
    "a declared shape": (lambda h: {"a.npy": header(described("(99,)"))}, zipfile.ZIP_STORED, "cut off or damaged"),
}


@pytest.mark.parametrize("kind", NPZ)
def test_a_hostile_npz_file_is_refused(hostile: Hostile, kind: str) -> None:
    make, method, told = NPZ[kind]
    path = hostile.root / "x.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in make(hostile).items():
            archive.writestr(name, data)
    hostile.refused(lambda: fs.from_arrays(path), r"x\.npz", told)


def test_a_zip_that_tells_a_wrong_place_is_refused(hostile: Hostile) -> None:
    path = hostile.root / "x.npz"
    np.savez(path, a=np.zeros(3))
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 42 : directory + 46] = struct.pack("<I", 10)
    path.write_bytes(data)
    hostile.refused(lambda: fs.from_arrays(path), r"x\.npz")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.h5"])
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder", "no file"])
def test_what_is_no_array_file_is_not_waited_for(hostile: Hostile, kind: str, name: str) -> None:
    path = hostile.root / name
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    told = "does not exist" if kind == "no file" else "a folder|a device or pipe"
    hostile.refused(lambda: fs.from_hdf5(path, "x") if name == "x.h5" else fs.from_arrays(path), told)


# HDF5


def elsewhere(hostile: Hostile) -> Path:
    """Another HDF5 file, outside, with the secret as numbers."""
    path = hostile.outside / "other.h5"
    if not path.exists():
        with h5py.File(path, "w") as file:
            file["x"] = np.arange(8.0)
    return path


def external_link(file: h5py.File, hostile: Hostile) -> None:
    file["x"] = h5py.ExternalLink(str(elsewhere(hostile)), "/x")


def external_group(file: h5py.File, hostile: Hostile) -> None:
    file["away"] = h5py.ExternalLink(str(elsewhere(hostile)), "/")
    file["x"] = h5py.SoftLink("/away/x")


def link_loop(file: h5py.File, hostile: Hostile) -> None:
    file["x"], file["y"] = h5py.SoftLink("/y"), h5py.SoftLink("/x")


def dangling_link(file: h5py.File, hostile: Hostile) -> None:
    file["x"] = h5py.SoftLink("/nowhere")


def external_storage(file: h5py.File, hostile: Hostile) -> None:
    file.create_dataset("x", (8,), "u1", external=[(str(hostile.secret), 0, 8)])


def virtual(file: h5py.File, hostile: Hostile) -> None:
    layout = h5py.VirtualLayout((8,), "f8")
    layout[:] = h5py.VirtualSource(str(elsewhere(hostile)), "x", (8,))
    file.create_virtual_dataset("x", layout)


def virtual_in_the_file(file: h5py.File, hostile: Hostile) -> None:
    file["away"] = h5py.ExternalLink(str(elsewhere(hostile)), "/")
    layout = h5py.VirtualLayout((8,), "f8")
    layout[:] = h5py.VirtualSource(".", "away/x", (8,))
    file.create_virtual_dataset("x", layout)


def vlen(file: h5py.File, hostile: Hostile) -> None:
    file.create_dataset("x", (2,), h5py.vlen_dtype("i4"))


def references(file: h5py.File, hostile: Hostile) -> None:
    file.create_dataset("x", (2,), h5py.ref_dtype)


def text(file: h5py.File, hostile: Hostile) -> None:
    file["x"] = ["a", "b"]


def pointers(file: h5py.File, hostile: Hostile) -> None:
    opaque = h5py.h5t.create(h5py.h5t.OPAQUE, 8)
    opaque.set_tag(b"NUMPY:O")
    h5py.h5d.create(file.id, b"x", opaque, h5py.h5s.create_simple((4,)))


def numbers_of_another_size(file: h5py.File, hostile: Hostile) -> None:
    opaque = h5py.h5t.create(h5py.h5t.OPAQUE, 1)
    opaque.set_tag(b"NUMPY:f8")
    h5py.h5d.create(file.id, b"x", opaque, h5py.h5s.create_simple((4,)))


def pickles(file: h5py.File, hostile: Hostile) -> None:
    file["x"] = [np.void(pickle.dumps(hostile.trap))]


def a_group(file: h5py.File, hostile: Hostile) -> None:
    file["x/inner"] = np.zeros(3)


def missing(file: h5py.File, hostile: Hostile) -> None:
    file["y"] = file["deep/z"] = np.zeros(3)


def block_bomb(file: h5py.File, hostile: Hostile) -> None:
    file.create_dataset("x", (4, 2**30), "u1", chunks=(4, 2**29), compression="gzip")


def row_bomb(file: h5py.File, hostile: Hostile) -> None:
    file.create_dataset("x", (4, 2**45), "f8", chunks=(1, 1024))


def too_many_rows(file: h5py.File, hostile: Hostile) -> None:
    file.create_dataset("x", (2**61, 1), "f8", chunks=(1024, 1))


def no_space(file: h5py.File, hostile: Hostile) -> None:
    file["x"] = h5py.Empty("f4")


def damaged_block(file: h5py.File, hostile: Hostile) -> None:
    made = file.create_dataset("x", (64, 4), "f8", chunks=(8, 4), compression="gzip")
    made.id.write_direct_chunk((0, 0), b"no deflate stream")


HDF5: dict[str, tuple[Callable[[h5py.File, Hostile], None], str]] = {
    "an external link": (external_link, "leaves the file by an external link, to '/x' in '.*other.h5'"),
    "a link to an external group": (external_group, "leaves the file by an external link"),
    "links in a circle": (link_loop, "in a circle"),
    "a link to nothing": (dangling_link, "there is no dataset 'x'.*'x \\(a link\\)'"),
    "external storage": (external_storage, "numbers in other files .*secret.jpg"),
    "a virtual dataset": (virtual, "virtual dataset"),
    "a virtual dataset by way of a link": (virtual_in_the_file, "virtual dataset"),
    "rows of varying length": (vlen, "dtype object.*vary in length"),
    "references": (references, "dtype object.*references"),
    "text": (text, "dtype object.*text"),
    "pointers": (pointers, "must hold numbers"),
    "numbers of another size": (numbers_of_another_size, "must hold numbers"),
    "pickles": (pickles, "must hold numbers"),
    "a group": (a_group, "is a group, not a dataset; in it are 'x/inner'"),
    "another name": (missing, "there is no dataset 'x'. In it are 'deep/z', 'y'|'y', 'deep/z'"),
    "a block of 2 GB": (block_bomb, r"5\.37 GB \(4\.29 GB to unpack"),
    "a row of 281 TB": (row_bomb, "281 TB"),
    "more rows than can be counted": (too_many_rows, "2,305,843,009,213,693,952 rows"),
    "no data": (no_space, "without data"),
    "a damaged block": (damaged_block, "the dataset '/x' can't be read"),
}


@pytest.mark.parametrize("kind", HDF5)
def test_a_hostile_hdf5_file_is_refused(hostile: Hostile, kind: str) -> None:
    make, told = HDF5[kind]
    path = hostile.root / "x.h5"
    with h5py.File(path, "w") as file:
        make(file, hostile)
    hostile.refused(lambda: fs.from_hdf5(path, "x"), r"x\.h5|one sample of|declare", told)


@pytest.mark.parametrize("kind", ["external storage", "a virtual dataset", "pointers", "numbers of another size"])
def test_a_hostile_dataset_that_the_user_opened_is_refused(hostile: Hostile, kind: str) -> None:
    with h5py.File(hostile.root / "x.h5", "w") as file:
        HDF5[kind][0](file, hostile)
    with h5py.File(hostile.root / "x.h5", "r") as file:
        hostile.refused(lambda: fs.from_arrays(file["x"]), HDF5[kind][1])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "can't be opened"),
        (b"text\n" * 1000, "can't be opened"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(128) + bytes(500), "version 7 or before.*v7.3"),
        (b"\x89HDF\r\n\x1a\n" + b"\xff" * 500, "can't be opened"),
        (b"\x89HDF\r\n\x1a\n", "can't be opened"),
    ],
    ids=["nothing", "text", "an old MATLAB file", "noise behind the mark", "the mark alone"],
)
def test_a_file_that_is_no_hdf5_is_refused(hostile: Hostile, data: bytes, told: str) -> None:
    path = hostile.root / "x.mat"
    path.write_bytes(data)
    hostile.refused(lambda: fs.from_hdf5(path, "x"), r"x\.mat", told)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_hdf5_file_is_refused(hostile: Hostile, part: float) -> None:
    path = hostile.root / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.random.default_rng(0).random((500, 20)), chunks=(10, 20), compression="gzip")
    os.truncate(path, int(path.stat().st_size * part))
    hostile.refused(lambda: fs.from_hdf5(path, "x"), "can't be opened.*[Tt]runcated|cut off")


def test_a_file_that_is_swapped_before_a_lane_opens_it_leads_nowhere(hostile: Hostile) -> None:
    path = hostile.root / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(8.0)
    dataset = fs.from_hdf5(path, "x")
    with h5py.File(path, "w") as file:
        external_link(file, hostile)
    hostile.refused(lambda: dataset, "external link")


def write(path: Path) -> None:
    """A small file of the kind that the path is named as."""
    x = np.arange(60.0).reshape(20, 3)
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".npz":
        np.savez(path, x=x, y=np.arange(20))
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("g/x", data=x, chunks=(5, 3), compression="gzip", shuffle=True, fletcher32=True)
            file["z"] = h5py.SoftLink("/g/x")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.h5"])
def test_damaged_files_give_rows_or_a_typed_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 9)):
            data[place] ^= 1 << rng.integers(8)
        path.write_bytes(data[: len(data) - int(rng.integers(8)) * int(rng.integers(2))])
        try:
            read(fs.from_hdf5(path, "z") if name == "x.h5" else fs.from_arrays(path))
        except fs.FitstreamError:
            refused += 1
    assert 6 < refused < 60


LIBRARY = """
#include <stdio.h>
__attribute__((constructor)) static void run(void) { FILE *f = fopen("%s", "w"); if (f) fclose(f); }
"""


def test_a_filter_that_is_not_registered_loads_no_library(hostile: Hostile) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    plugins = hostile.outside / "plugins"
    plugins.mkdir()
    (plugins / "trap.c").write_text(LIBRARY % hostile.mark)
    command = ["cc", "-shared", "-fPIC", "-o", plugins / "libtrap.so", plugins / "trap.c"]
    subprocess.run(command, check=True)
    path = hostile.root / "x.h5"
    with h5py.File(path, "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((8,))
        settings.set_filter(4242, h5py.h5z.FLAG_OPTIONAL, (0,))
        space = h5py.h5s.create_simple((8,))
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_DOUBLE, space, settings).write_direct_chunk((0,), bytes(64))
    hostile.mark.unlink(missing_ok=True)
    h5py.h5pl.prepend(str(plugins).encode())
    try:
        hostile.refused(lambda: fs.from_hdf5(path, "x"), "filter 4242", "Import the package")
        assert h5py.h5pl.get(0) == str(plugins).encode()
        with h5py.File(path, "r") as file:
            with pytest.raises(OSError, match="read data"):
                file["x"][:]
        assert hostile.mark.exists(), "the trap itself doesn't work"
    finally:
        h5py.h5pl.remove(0)


@pytest.mark.parametrize("place", ["filters", "compressors"])
def test_a_zarr_array_of_pickles_is_refused(hostile: Hostile, place: str) -> None:
    class Pickle:  # as old versions of zarr and numcodecs have it
        codec_id = "pickle"

    class Array:
        shape, dtype = (4,), np.dtype("f8")

        def __getitem__(self, rows: Any) -> Any:
            return pickle.loads(hostile.pickled)

    Array.__module__ = "zarr.core.array"
    setattr(Array, place, (Pickle(),))
    hostile.refused(lambda: fs.from_arrays(Array()), "pickled objects, which could run any code")
