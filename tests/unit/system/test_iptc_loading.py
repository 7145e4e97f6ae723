"""python-iptables is imported without the programs that its own search starts."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipttrace.system import iptc_loading

LOADING = """
import ctypes.util, os, sys
from ipttrace.system.iptc_loading import load
started = []
sys.addaudithook(lambda event, _: started.append(event) if event == "subprocess.Popen" else None)
before = ctypes.util.find_library, dict(os.environ), "distutils" in sys.modules
assert load().Table.FILTER == "filter"
assert (ctypes.util.find_library, dict(os.environ), "distutils" in sys.modules) == before
import iptc.xtables
print(len(started), iptc.xtables._xtables_libdir)
"""


def loaded(**settings: str) -> list[str]:
    """Load it in a process of its own; return how many others it started, and its directory."""
    done = subprocess.run(
        [sys.executable, "-c", LOADING],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_no_program_is_started_and_nothing_stays_changed() -> None:
    started, directory = loaded()
    assert started == "0"
    assert directory.endswith("/xtables")


def test_the_users_directory_of_extensions_counts() -> None:
    assert loaded(XTABLES_LIBDIR="/nonexistent/xtables") == ["0", "/nonexistent/xtables"]


def test_other_names_are_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iptc_loading, "_search", lambda name: f"lib{name}.so.99")
    monkeypatch.setitem(iptc_loading.LIBRARIES, "xtables", "libxtables-of-nobody.so")
    assert iptc_loading.find("xtables") == "libxtables.so.99"
    assert iptc_loading.find("iptc") == "libiptc.so.99"
    assert iptc_loading.find("libxtwrapper") is None
    assert iptc_loading.extensions() == {}


def test_a_library_that_is_there_is_not_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iptc_loading, "_search", lambda _: None)
    found = iptc_loading.find("c")
    assert found is not None
    assert ctypes.CDLL(found).getpid() == os.getpid()


def test_a_module_is_loaded_by_the_kernels_own_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODULES", "MODPROBE"):
        monkeypatch.setattr(iptc_loading, name, tmp_path / name)
    assert iptc_loading._insert_module("ip_tables") == (0, b""), "all is built in"
    (tmp_path / "MODULES").touch()
    status, said = iptc_loading._insert_module("ip_tables")
    assert (status, b"MODPROBE" in said) == (1, True), "the setting cannot be read"
    program = tmp_path / "modprobe"
    program.write_text("#!/bin/sh\necho no $1 >&2\nexit 3\n")
    program.chmod(0o755)
    (tmp_path / "MODPROBE").write_text(f"{program}\n")
    assert iptc_loading._insert_module("ip_tables") == (3, b"no ip_tables\n")
