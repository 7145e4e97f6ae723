"""The one place that runs programs: argument vectors, never a shell, always in the C locale."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from ipttrace.decode.text import clean_text
from ipttrace.errors import KernelError, NotSupportedError
from ipttrace.system.namespaces import HERE, Namespace

TIMEOUT = 10.0
"""Seconds after which a program is taken to hang."""

SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])

PACKAGES = {"nft": "nftables", "ip": "iproute2", "modprobe": "kmod"}
"""Debian's package of a program, where it is not `iptables`."""

MESSAGE_LIMIT = 500
"""Characters of a program's complaint that a user is shown."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program said and how it ended."""

    code: int
    output: str
    complaint: str
    """Its stderr in one line, without control characters."""
    errors: str = ""
    """Its stderr as it came."""


class Running:
    """A program that was started; `finish` waits for it."""

    def __init__(self, process: subprocess.Popen[str], what: str, stdin: str | None) -> None:
        self._process = process
        self._what = what
        self._stdin = stdin

    def finish(self, timeout: float = TIMEOUT) -> Finished:
        """Wait for the end; KernelError if it does not come in `timeout` seconds."""
        try:
            output, errors = self._process.communicate(self._stdin, timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise KernelError(f"{self._what}: no answer in {timeout:g} s") from None
        return Finished(self._process.returncode, output, printable(errors), errors)

    def output(self, timeout: float = TIMEOUT) -> str:
        """Wait for the end and return stdout; KernelError if it failed."""
        finished = self.finish(timeout)
        if finished.code != 0:
            raise KernelError(f"{self._what}: {finished.complaint or f'exit {finished.code}'}")
        return finished.output


def find(program: str) -> str | None:
    """Return the path of `program`, also from the sbin directories, or None."""
    return shutil.which(program, path=SEARCH)


def start(
    arguments: Sequence[str],
    *,
    what: str,
    namespace: Namespace = HERE,
    stdin: str | None = None,
) -> Running:
    """Start a program inside `namespace`; `what` says in an error what was tried, on what."""
    path = find(arguments[0])
    if path is None:
        raise NotSupportedError(
            f"{what}: there is no program {arguments[0]}",
            f"Install it: apt-get install {PACKAGES.get(arguments[0], 'iptables')}",
        )

    def popen() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [path, *arguments[1:]],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            encoding="utf-8",
            errors="surrogateescape",
        )

    try:
        return Running(namespace.run(popen), what, stdin)
    except OSError as error:
        raise KernelError(f"{what}: cannot start {path}: {error.strerror}") from error


def run(
    arguments: Sequence[str],
    *,
    what: str,
    namespace: Namespace = HERE,
    stdin: str | None = None,
    timeout: float = TIMEOUT,
) -> str:
    """Run a program to its end and return its stdout; KernelError if it failed."""
    return start(arguments, what=what, namespace=namespace, stdin=stdin).output(timeout)


def printable(text: str) -> str:
    """Return `text` in one line, without control characters, cut to a readable length."""
    lines = (line.strip() for line in text.splitlines())
    return clean_text("; ".join(line for line in lines if line))[:MESSAGE_LIMIT]
