"""Opens text files: packed by gzip or not, with a byte order mark or not."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from microarray_study.errors import InputError

GZIP = b"\x1f\x8b"
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file for reading; `InputError` for what turns out to be no text.

    The first bytes say whether the file is packed and what its encoding is: UTF-8, or UTF-16 with a
    byte order mark, as spreadsheets write it.
    """
    try:
        with _unpacked(path) as binary:
            start = binary.peek(4)[:4] if isinstance(binary, io.BufferedReader) else b""
            encoding = next(
                (name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8"
            )
            with io.TextIOWrapper(binary, encoding=encoding, newline=None) as text:
                yield text
    except UnicodeError as error:
        raise InputError(
            f"{path}: is no readable UTF-8 text: {error}; save it with the encoding UTF-8"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: is no readable gzip file: {error}") from error


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as packed:
        start = packed.read(2)
        packed.seek(0)
        if start != GZIP:
            yield packed
            return
        with io.BufferedReader(gzip.GzipFile(fileobj=packed)) as unpacked:
            yield unpacked
