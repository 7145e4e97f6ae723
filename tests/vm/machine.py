"""The emulated machine: how it is started and watched, and when it is started anew.

Now and then the emulator loses a timer of one of its processors, which then does nothing until
another processor calls it.  The kernel says so ("rcu: ... stalls"): the machine is ended and
another one runs the tests that are left.  A test that failed has ended; it is not among them.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.vm.needs import CACHE, CHECKOUT, modules, run, say
from tests.vm.results import read_ledger

BOOT_MINUTES = 0.75
"""What of the time the machine gets to start and to stop."""

STARTS = 3
"""How often a machine is started at most."""

TICKS = os.sysconf("SC_CLK_TCK")

CLOCK = 8
"""The machine's clock is slower by this, because its processors are: a second is as much work for
them as elsewhere, or nearly.  Timers of the kernel, limits of the product and deadlines of the
tests would run out otherwise."""

SLOW = 3
"""The tests' deadlines are longer by this: an emulated processor has a sixteenth of the speed."""

BOOT_WORDS = (
    # What a kernel does against leaking processors costs a translation buffer at each system call,
    # and each change of rules or namespaces waits for both processors.
    "mitigations=off no5lvl init_on_alloc=0 rcupdate.rcu_expedited=1",
    # The emulated clock chip is slow to read; the counters of both processors agree.
    "tsc=reliable clocksource=tsc nowatchdog",
    # QEMU keeps what it translated by address: a program is translated once, if it stays there.
    "norandmaps",
    # Names of programs cost a trace three more tracepoints, in the scheduler.  To set or take one
    # is to rewrite code under the other processor, and there the emulator came to a stand.
    "trace_options=norecord-cmd",
    # In the machine's seconds: a processor that stands still is to be told within one of ours.
    "rcupdate.rcu_cpu_stall_timeout=6",
)
STALL = re.compile(rb"rcu: INFO: \S+ (?:self-)?detected (?:expedited )?stall")
"""What the kernel says of a processor that stands still (kernel/rcu/tree_stall.h, tree_exp.h)."""

COUNTED_SECONDS = 0.2
READ_COUNTER = bytes.fromhex("0f31 48c1e220 4809d0 c3")
"""rdtsc; shl rdx, 32; or rax, rdx; ret"""

PROCESSOR = "qemu64"
"""Has no AVX: an emulated wide register is slower than a narrow one."""

COLLECT = """
mount --bind "$0/.venv" "$1/.venv"
mount --rbind "$1" "$0"
cd "$0"
shift
exec .venv/bin/python -m pytest "$@" --collect-only -q tests/root
"""
"""Has pytest compile the tests in its own way, where they will be in the machine."""

AUTOLOAD = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
PLUGINS = ("-p", "xdist.plugin", "-p", "pytest_timeout")
"""Each other one that is installed would cost seconds in each worker."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What to start: a kernel, and in the machine a command; its results go into a folder."""

    kernel: Path
    command: Sequence[str]
    minutes: float
    """All that it may take, start and stop included."""
    results: Path = CACHE / "results"
    snapshot: Path = CACHE / "checkout"


def run_machine(machine: Machine) -> int:
    """Copy the checkout, boot and run the command; return how often the machine was started."""
    deadline = time.monotonic() + machine.minutes * 60
    _fresh(machine.results)
    _copy_checkout(_fresh(machine.snapshot))
    console = machine.results / "console"
    starts = 0
    while starts < STARTS:
        starts += 1
        say(f"starting {machine.kernel.name}; its console is {console}")
        if not _started(machine, deadline):
            break
        done = [each.test for each in read_ledger(machine.results / "ledger")]
        (machine.results / "done").write_text("\n".join(done))
        kept = console.rename(f"{console}-{starts}")
        say(f"the machine stands still, says its kernel ({kept}): ended after {len(done)} tests")
    return starts


def _started(machine: Machine, deadline: float) -> bool:
    """Boot once, until the machine is off, stands still or the time is over; tell if it stands."""
    spent = machine.results / "spent"
    with (machine.results / "console").open("wb") as console:
        process = subprocess.Popen(
            _words(machine, deadline - time.monotonic()),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PATH": f"{CACHE}/venv/bin:{os.environ['PATH']}"},
        )
        try:
            watch = _Watch(machine.results)
            while process.poll() is None and time.monotonic() < deadline and not watch.stalled():
                watch.tell(process.pid)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1)
            watch.tell(process.pid)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    before = float(spent.read_text()) if spent.exists() else 0
    spent.write_text(f"{before + watch.spent:.0f}")
    return watch.stalled() and not (machine.results / "status").exists()


class _Watch:
    """One machine that runs: what it did, as far as it was told."""

    def __init__(self, results: Path) -> None:
        self._console = results / "console"
        self._ledger = results / "ledger"
        self._told = len(read_ledger(self._ledger))
        self.spent = 0.0
        """The seconds that it kept processors of this machine busy."""

    def stalled(self) -> bool:
        """Tell whether the kernel said that a processor stands still."""
        return STALL.search(self._console.read_bytes()) is not None

    def tell(self, group: int) -> None:
        """Tell each test that has ended since; note the time spent by the process group."""
        self.spent = max(self.spent, _spent(group))
        done = read_ledger(self._ledger)
        for result in done[self._told :]:
            print(f"{result.seconds:7.1f} s  {result.outcome:7}  {result.test}", file=sys.stderr)
            if result.words:
                print(result.words, file=sys.stderr)
        self._told = len(done)


def _spent(group: int) -> float:
    """Return the user and system time of a process group's processes (proc(5), stat)."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12]) if fields[2] == str(group) else 0
    return total / TICKS


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _copy_checkout(snapshot: Path) -> None:
    """Copy what git knows or would add, byte-compiled: somebody may go on working meanwhile."""
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, names):
        if (CHECKOUT / name).is_file():
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, snapshot / name)
    (snapshot / ".venv").mkdir()
    compiled: list[str | Path] = [
        "-q",
        "-s",
        snapshot,
        "-p",
        CHECKOUT,
        snapshot / "ipttrace",
        snapshot / "tests",
    ]
    run(CHECKOUT / ".venv/bin/python", "-m", "compileall", *compiled)
    shell = ("unshare", "--mount", "--propagation", "private", "sh", "-e", "-c", COLLECT)
    written = {"PYTHONDONTWRITEBYTECODE": ""}
    run(*shell, CHECKOUT, snapshot, *PLUGINS, env=os.environ | AUTOLOAD | written)


def _words(machine: Machine, left: float) -> Sequence[str]:
    """Return the command that emulates; the one inside gets what is left, by its own clock."""
    seconds = round((left - BOOT_MINUTES * 60) / CLOCK)
    inside = [
        *("sh", str(machine.snapshot / "tests/vm/inside.sh"), str(CHECKOUT), str(machine.snapshot)),
        *(str(modules(machine.kernel).parent), str(seconds), str(SLOW), str(CLOCK)),
        *machine.command,
    ]
    words = [*BOOT_WORDS, f"tsc_early_khz={CLOCK * _counter_khz()}"]
    shares = (*_share("host", Path("/"), ",readonly=on"), *_share("results", machine.results))
    return [
        *("vng", "--verbose", "--disable-kvm", "--force-9p", "--run", str(machine.kernel)),
        *("--user", "root", "--cpus", "2", "--memory", "3G", f"--append={' '.join(words)}"),
        *(f"--qemu-opts=-cpu {PROCESSOR} {' '.join(shares)}", "--exec", shlex.join(inside)),
    ]


def _counter_khz() -> int:
    """Return how fast this processor's time stamp counter runs; the emulated one shows the same."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=7) as code:
        code.write(READ_COUNTER)
        entry = ctypes.c_char.from_buffer(code)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(entry))
        begin, first = time.perf_counter(), int(read())
        select.select([], [], [], COUNTED_SECONDS)
        rate = (int(read()) - first) / (time.perf_counter() - begin)
        del entry
    return round(rate / 1000)


def _share(tag: str, path: Path, more: str = "") -> Sequence[str]:
    """Return what QEMU wants for a folder that the machine mounts by `tag`."""
    folder = f"local,security_model=none,multidevs=remap,id={tag},path={path}{more}"
    return ("-fsdev", folder, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}")
