"""How the text of a file is stored: its codec, its byte order mark, and what ends a line."""

from __future__ import annotations

import codecs
from typing import NamedTuple, final

import numpy as np

from fitstream.errors import PlanError, SourceError

__all__ = ["Encoding", "check_encoding", "explain_undecodable"]

_MARKS = {
    "utf-16": ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")),
    "utf-32": ((codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")),
}
_WITH_MARK = {
    "utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE, "utf-32-be": codecs.BOM_UTF32_BE,
}  # fmt: skip


@final
class Encoding(NamedTuple):
    """How one file is stored.

    Attributes:
        codec: Python's name, without a choice left open.
        mark_bytes: Bytes at the start of the file that are no text.
    """

    codec: str
    mark_bytes: int

    @staticmethod
    def of(encoding: str, start: bytes) -> Encoding:
        """Tell it from a file's first bytes, where the name leaves a choice (UTF-16 and UTF-32 of either order)."""
        codec = codecs.lookup(encoding).name
        codec = "utf-8" if codec == "utf-8-sig" else codec
        for mark, name in _MARKS.get(codec, ()):
            if start.startswith(mark):
                return Encoding(name, len(mark))
        codec = f"{codec}-le" if codec in _MARKS else codec
        mark = _WITH_MARK.get(codec, b"")
        return Encoding(codec, len(mark) if mark and start.startswith(mark) else 0)

    def unit(self, character: str) -> np.generic:
        """A line end's character as one number of 1, 2 or 4 bytes, which stands at a multiple of them."""
        data = character.encode(self.codec)
        order = ">" if self.codec.endswith("-be") else "<"
        number: np.generic = np.frombuffer(data, f"{order}u{len(data)}")[0]
        return number

    @property
    def unit_dtype(self) -> np.dtype[np.unsignedinteger]:
        """What a file is read as to find `unit`."""
        width = len("\n".encode(self.codec))
        return np.dtype(f"{'>' if self.codec.endswith('-be') else '<'}u{width}")


def check_encoding(encoding: str, errors: str = "strict") -> None:
    """Refuse what is no encoding of text.

    Raises:
        PlanError: If Python knows no such encoding, or no such way to deal with errors; or if line ends can't be found
            in it without reading all that is before.
    """
    try:
        codecs.lookup_error(errors)
        mark, end, text = (each.encode(encoding) for each in ("", "\n", "a\nb\n"))
    except (LookupError, TypeError, UnicodeError) as error:
        raise PlanError(f"encoding={encoding!r}, errors={errors!r}: {error}.") from None
    width = len(end) - len(mark)
    is_plain = width in (1, 2, 4) and len(text) == len(mark) + 4 * width and text.endswith(end[len(mark) :])
    if not is_plain or codecs.lookup(encoding).name == "iso2022_kr":  # its first line says how others are read
        raise PlanError(f"encoding={encoding!r} has no lines that can be read alone. Convert the file to UTF-8 once.")


def explain_undecodable(error: UnicodeDecodeError, encoding: str) -> SourceError:
    """What to say of bytes that are no text of this encoding."""
    raw = bytes(error.object[error.start : error.start + 4])
    has_mark = error.start == 0 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    likely = '"utf-16"' if has_mark else '"latin-1" or "gb18030"'
    return SourceError(
        f"byte {error.start:,} of it ({raw!r}) is no text in {encoding}: {error.reason}. Give the file's own "
        f'encoding=, such as {likely}, or errors="replace".'
    )
