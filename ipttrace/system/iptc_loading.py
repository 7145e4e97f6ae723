"""python-iptables, imported without the programs that it would start to find its libraries.

Its own search (iptc/util.py, iptc/xtables.py) runs a C compiler, a linker and ldconfig, a dozen
processes in all, and loads distutils.  The libraries are those of iptables 1.8; where they have
other names, its own search goes on.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

LIBRARIES = {
    "c": "libc.so.6",
    "xtables": "libxtables.so.12",
    "ip4tc": "libip4tc.so.2",
    "ip6tc": "libip6tc.so.2",
}
"""By the names that it looks for."""

WRAPPER = "xtwrapper"
"""A part of the library's own, which lies beside it: no directory of the system has it."""

EXTENSIONS = "XTABLES_LIBDIR"
"""Where libxtables looks for its matches and targets (iptables(8), environment)."""

MODULES = Path("/proc/modules")
"""Absent in a kernel that knows no modules."""

MODPROBE = Path("/proc/sys/kernel/modprobe")
MAPPED = Path("/proc/self/maps")

_search = ctypes.util.find_library


def load() -> ModuleType:
    """Return the module; ImportError or OSError where it or its libraries are not to be found."""
    if "iptc" not in sys.modules:
        with _quickly_found():
            import iptc
        iptc.util._load_ko = _insert_module
    return sys.modules["iptc"]


@contextmanager
def _quickly_found() -> Iterator[None]:
    """Answer what it asks while it is imported."""
    told = {} if EXTENSIONS in os.environ else extensions()
    os.environ.update(told)
    absent = "distutils" not in sys.modules
    if absent:
        sys.modules["distutils"] = None  # type: ignore[assignment]  # it takes sysconfig instead
    ctypes.util.find_library = find
    try:
        yield
    finally:
        ctypes.util.find_library = _search
        if absent:
            del sys.modules["distutils"]
        for name in told:
            del os.environ[name]


def find(name: str) -> str | None:
    """Return what `ctypes.CDLL` opens as library `name` (as `ctypes.util.find_library`)."""
    if WRAPPER in name:
        return None
    known = LIBRARIES.get(name)
    return known if known is not None and _opens(known) else _search(name)


def extensions() -> dict[str, str]:
    """Return the setting that says where libxtables' extensions are: beside it, as on Debian."""
    library = LIBRARIES["xtables"]
    if not _opens(library):
        return {}
    mapped = (line.split(maxsplit=5)[-1] for line in MAPPED.read_text().splitlines())
    directory = next(Path(path) for path in mapped if f"/{library}" in path).parent / "xtables"
    return {EXTENSIONS: str(directory)} if directory.is_dir() else {}


def _insert_module(name: str) -> tuple[int, bytes]:
    """Do what the library's own function does, and leave no file or pipe open."""
    try:
        modprobe = MODPROBE.read_text().strip() if MODULES.exists() else ""
        if not modprobe:
            return 0, b""
        done = subprocess.run([modprobe, name], stderr=subprocess.PIPE, check=False)
    except OSError as error:
        return 1, str(error).encode()
    return done.returncode, done.stderr


def _opens(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
