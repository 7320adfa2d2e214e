"""The compiled operators ask torch for nothing but the stable C functions of torch 2.10.

They are built against one version of torch and run with every later one: what is undefined in the
shared library must be declared in torch's shim headers, outside the parts for later versions.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
import torch

import torch_truly_sparse

LIBRARIES = list(Path(torch_truly_sparse.__file__).parent.glob("libtorch_truly_sparse.so"))
HEADERS = Path(torch.__file__).parent / "include" / "torch" / "csrc"
SHIMS = (
    HEADERS / "inductor" / "aoti_torch" / "c" / "shim.h",
    HEADERS / "stable" / "c" / "shim.h",
)
FLOOR = (2, 10)
# Weak: null with torch 2.10, where large results are allocated by torch itself (outputs.h).
MAY_BE_MISSING = {"torch_from_blob"}

pytestmark = pytest.mark.skipif(not LIBRARIES, reason="no ELF library on this system")


def undefined_symbols(library: bytes) -> dict[str, bool]:
    """Read the undefined symbols of a 64-bit ELF library, and whether each is weak."""
    assert library[:6] == b"\x7fELF\x02\x01"
    (sections_at,) = struct.unpack_from("<Q", library, 0x28)
    entry_size, count = struct.unpack_from("<HH", library, 0x3A)
    # Of each section: type, offset, size, link (here: to the names of the symbols).
    sections = [
        struct.unpack_from("<4xI16xQQI", library, sections_at + i * entry_size)
        for i in range(count)
    ]
    dynamic_symbols = 11
    (_, at, size, link), *_ = [s for s in sections if s[0] == dynamic_symbols]
    names_at = sections[link][1]
    symbols = {}
    for name, info, section in struct.iter_unpack("<IBxH16x", library[at : at + size]):
        if section == 0 and name != 0:
            end = library.index(b"\0", names_at + name)
            symbols[library[names_at + name : end].decode()] = info >> 4 == 2
    return symbols


def declared(header: str, floor: tuple[int, int]) -> set[str]:
    """Name the functions that a header declares for torch of version `floor`."""
    names: set[str] = set()
    needed: list[tuple[int, int]] = []  # by each #if around a line
    for line in header.splitlines():
        if re.match(r"\s*#\s*if", line):
            guard = re.search(r"TORCH_FEATURE_VERSION >= TORCH_VERSION_(\d+)_(\d+)_", line)
            needed.append((int(guard[1]), int(guard[2])) if guard else (0, 0))
        elif re.match(r"\s*#\s*endif", line):
            needed.pop()
        elif all(version <= floor for version in needed):
            names.update(re.findall(r"\b(?:aoti_)?torch_\w+(?=\()", line))
    return names


def test_torch_is_asked_only_for_stable_functions_of_its_oldest_version():
    symbols = undefined_symbols(LIBRARIES[0].read_bytes())
    stable = set().union(*(declared(path.read_text(), FLOOR) for path in SHIMS))
    of_torch = {name for name in symbols if re.match(r"(aoti_)?torch_", name)}
    assert of_torch - stable == MAY_BE_MISSING & of_torch
    assert all(symbols[name] for name in MAY_BE_MISSING & of_torch), "these must be weak"


def test_no_cpp_symbol_of_torch_is_asked_for():
    symbols = undefined_symbols(LIBRARIES[0].read_bytes())
    assert [name for name in symbols if re.search(r"(?<!\d)(2at|3c10|5torch|6caffe2)", name)] == []


def test_the_readers_see_what_they_should():
    symbols = undefined_symbols(LIBRARIES[0].read_bytes())
    assert symbols["torch_get_num_threads"] is False
    assert symbols["__gmon_start__"] is True
    header = """
    #ifndef SHIM
    AOTI_TORCH_EXPORT int32_t torch_always();
    #if TORCH_FEATURE_VERSION >= TORCH_VERSION_2_10_0
    AOTI_TORCH_EXPORT AOTITorchError
    aoti_torch_from_10(int32_t argument);
    #endif
    #if TORCH_FEATURE_VERSION >= TORCH_VERSION_2_11_0
    #ifdef USE_CUDA
    AOTI_TORCH_EXPORT int32_t torch_from_11(void);
    #endif
    #endif
    #endif
    """
    assert declared(header, (2, 10)) == {"torch_always", "aoti_torch_from_10"}
    assert declared(header, (2, 11)) > {"torch_from_11"}
