"""Where a part of the kernel is, told from the files of a pretended machine."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipttrace.checkup.facts import Presence, Unknown
from ipttrace.system import commands, kernel_parts
from ipttrace.system.kernel_parts import OPTIONS, read_parts

RELEASE = "6.1.0-56-amd64"

# Copied from `modprobe -n -v` of kmod 30.
INSMOD = f"insmod /lib/modules/{RELEASE}/kernel/net/netfilter/xt_bpf.ko "
NEVER = "install /bin/false "
TUN = gzip.compress(b"CONFIG_TUN=y\n", mtime=0)
NOT_FOUND = f"modprobe: FATAL: Module xt_bpf not found in directory /lib/modules/{RELEASE}"


@dataclass
class Machine:
    """A machine whose files are below a directory; no source is there at first."""

    root: Path

    def write(self, name: str, text: str | bytes) -> None:
        """Write one of the files."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def modprobe(self, said: str, code: int = 0) -> None:
        """Install a modprobe that says the same of every module."""
        (self.root / f"lib/modules/{RELEASE}").mkdir(parents=True, exist_ok=True)
        stream = 2 if code else 1
        self.write("bin/modprobe", f"#!/bin/sh\necho '{said}' >&{stream}\nexit {code}\n")
        (self.root / "bin/modprobe").chmod(0o755)

    def presence(self, name: str) -> Presence | Unknown:
        """Return where that part is."""
        return read_parts(RELEASE)[name]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine that shows nothing of itself."""
    for name, path in (
        ("LOADED", "modules"),
        ("REGISTERED", "sys"),
        ("LIBRARY", "lib/modules"),
        ("CONFIG", "config.gz"),
        ("BOOT", "boot"),
        ("MODULES_DISABLED", "modules_disabled"),
    ):
        monkeypatch.setattr(kernel_parts, name, tmp_path / path)
    evidence = {
        part: (tmp_path / path.name, word) for part, (path, word) in kernel_parts.EVIDENCE.items()
    }
    monkeypatch.setattr(kernel_parts, "EVIDENCE", evidence)
    monkeypatch.setattr(commands, "SEARCH", str(tmp_path / "bin"))
    return Machine(tmp_path)


def test_a_kernel_that_shows_nothing(machine: Machine) -> None:
    found = read_parts(RELEASE)
    assert found.keys() == OPTIONS.keys()
    assert all(isinstance(presence, Unknown) for presence in found.values())


def test_loaded(machine: Machine) -> None:
    machine.write("modules", "nf_tables 303104 0 - Live 0x0\nxt_bpf_other 1 0 - Live 0x0\n")
    machine.write("sys/nf_tables/refcnt", "0")
    assert machine.presence("nf_tables") is Presence.LOADED
    assert machine.presence("xt_bpf") is not Presence.LOADED


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("nf_tables", "sys/nf_tables/version", "1"),
        ("nf_tables", "config.gz", gzip.compress(b"CONFIG_NF_TABLES=y\n", mtime=0)),
        ("nf_tables", f"boot/config-{RELEASE}", "CONFIG_A=y\nCONFIG_NF_TABLES=y\n"),
        ("nf_log_syslog", f"lib/modules/{RELEASE}/config", "CONFIG_NF_LOG_IPV4=y\n"),
        (
            "act_mirred",
            f"lib/modules/{RELEASE}/modules.builtin",
            "kernel/net/sched/act-mirred.ko\n",
        ),
        ("nfnetlink_log", "nf_log", " 2 NONE (nfnetlink_log)\n"),
        ("nf_log_syslog", "nf_log", " 2 nf_log_ipv4 (nf_log_ipv4)\n"),
        ("tun", "misc", "200 tun\n144 nvram\n"),
    ],
)
def test_built_in(machine: Machine, name: str, file: str, text: str | bytes) -> None:
    machine.write(file, text)
    found = read_parts(RELEASE)
    assert found[name] is Presence.BUILT_IN
    assert Presence.BUILT_IN not in {found[other] for other in OPTIONS if other != name}


@pytest.mark.parametrize(
    ("said", "code", "expected"),
    [
        (INSMOD, 0, Presence.LOADABLE),
        (NEVER, 0, Presence.BLOCKED),
        ("install /usr/bin/true", 0, Presence.BLOCKED),
        ("install /usr/local/bin/truecrypt", 0, Presence.LOADABLE),
        (NOT_FOUND, 1, Presence.ABSENT),
    ],
)
def test_a_dry_run_of_modprobe(machine: Machine, said: str, code: int, expected: Presence) -> None:
    machine.write("modules", "")
    machine.modprobe(said, code)
    assert machine.presence("xt_bpf") is expected


def test_a_kernel_built_without_it(machine: Machine) -> None:
    machine.write("modules", "")
    machine.modprobe(INSMOD)
    machine.write(f"boot/config-{RELEASE}", "CONFIG_NF_TABLES=m\n# CONFIG_TUN is not set\n")
    assert machine.presence("nf_tables") is Presence.LOADABLE
    assert machine.presence("tun") is Presence.ABSENT


def test_modules_that_may_not_be_loaded_any_more(machine: Machine) -> None:
    machine.write("modules", "")
    machine.modprobe(INSMOD)
    machine.write("modules_disabled", "1\n")
    assert machine.presence("xt_bpf") is Presence.BLOCKED


def test_a_container_without_the_modules_of_the_host(machine: Machine) -> None:
    machine.write("modules", "nf_tables 303104 0 - Live 0x0\n")
    found = machine.presence("xt_bpf")
    assert isinstance(found, Unknown)
    assert found.reason.endswith("is not here")


def test_no_modprobe(machine: Machine) -> None:
    machine.write("modules", "")
    (machine.root / f"lib/modules/{RELEASE}").mkdir(parents=True)
    found = machine.presence("xt_bpf")
    assert isinstance(found, Unknown)
    assert found.hint == "Install it: apt-get install kmod"


@pytest.mark.parametrize(
    "data",
    [b"", b"no gzip", TUN[:-9], TUN[:12] + b"\0\xff" * 9],
    ids=["empty", "no gzip", "cut off", "garbled"],
)
def test_a_broken_configuration_is_none(machine: Machine, data: bytes) -> None:
    machine.write("config.gz", data)
    assert isinstance(machine.presence("tun"), Unknown)
