"""Parquet files that are open, and what their metadata tell before a row is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

from fitstream.errors import SourceError
from fitstream.sources.file_access import check_file

__all__ = ["OpenedFile", "Part", "decoded_bytes", "described", "let_go", "load", "mark"]

#: Rows that are decoded together, and what is read of the file at a time.
_PIECE_ROWS, _BUFFER_BYTES = 1024, 1 << 16


@final
class Part(NamedTuple):
    """One file: its path, the rows of each row group, what tells its content from another's, and its size and time."""

    path: str
    group_rows: tuple[int, ...]
    content: str
    mark: tuple[int, int]


@final
class OpenedFile:
    """A Parquet file that is open.

    Args:
        path: The file.
        text: Columns of text, of which each value is held once: class names come again and again.
    """

    def __init__(self, path: str, text: Sequence[str] = ()) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError:
            raise SourceError('reading Parquet needs pyarrow: pip install "fitstream[parquet]".', file=path) from None
        if os.path.isdir(path):
            pattern = os.path.join(path, "*.parquet")
            raise SourceError(f"it is a folder. Name the files in it, by a pattern such as {pattern!r}.", file=path)
        check_file(path)
        self.path = path
        self.errors = (OSError, ValueError, pa.ArrowException)
        try:
            options = {"buffer_size": _BUFFER_BYTES, "pre_buffer": False}  # else a column of a group is read at once
            # Damaged pages are told by their checksums, where the file has them.
            self.file = parquet.ParquetFile(
                path, read_dictionary=list(text), page_checksum_verification=True, **options
            )
        except self.errors as error:
            raise SourceError(f"it is not readable as Parquet: {error}", file=path) from None

    def __enter__(self) -> Any:
        return self.file

    def __exit__(self, *exception: object) -> None:
        self.close()

    def pieces(self, group: int, names: Sequence[str]) -> Iterator[Any]:
        """The rows of a group, some at a time: to decode it as one takes three times what is left of it then."""
        try:
            yield from self.file.iter_batches(_PIECE_ROWS, row_groups=[group], columns=list(names), use_threads=False)
        except self.errors as error:
            raise SourceError(f"its row group {group} can't be read: {error}", file=self.path) from None
        let_go()

    def close(self) -> None:
        self.file.close()


def load() -> None:
    """Load what reads rows."""
    import pyarrow.parquet  # noqa: F401


def let_go() -> None:
    """Give the system back what pyarrow has freed, which it would keep for itself otherwise."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def described(file: Any, path: str, names: Sequence[str]) -> Part:
    """What is kept of a file that is open, as far as these columns go."""
    groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
    chunks = [chunk for group in groups for chunk in _chunks(group, names)]
    told = [(one.path_in_schema, one.total_compressed_size, one.total_uncompressed_size) for one in chunks]
    # Not their text, which names their place in memory.
    statistics = [one.statistics.to_dict() if one.is_stats_set else None for one in chunks]
    content = hashlib.blake2b(repr((told, statistics)).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return Part(os.path.abspath(path), tuple(group.num_rows for group in groups), content, mark(path))


def mark(path: str) -> tuple[int, int]:
    """What tells whether a file was written since."""
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns


def _chunks(group: Any, names: Sequence[str]) -> list[Any]:
    chunks = [group.column(place) for place in range(group.num_columns)]
    return [
        chunk
        for chunk in chunks
        if any(chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.") for name in names)
    ]


def decoded_bytes(file: Any, group: int, names: Sequence[str]) -> int:
    """Memory of a decoded row group, as far as the metadata tell."""
    total = 0
    for chunk in _chunks(file.metadata.row_group(group), names):
        width = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 8}.get(chunk.physical_type)
        # Places of lists and of bytes take up to eight bytes each.
        total += max(chunk.num_values * (8 + (width or 0)), chunk.total_uncompressed_size + 8 * chunk.num_values)
    return total
