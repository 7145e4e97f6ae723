"""The main process's side of the guardian: TraceRules that cannot outlive us.

The guardian process does and undoes all changes; see `guardian_process`.  Should it be killed,
what it left is found by its tag and removed by a second one.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import msgspec

from ipttrace.decode.text import clean_text
from ipttrace.errors import IptTraceError, KernelError, UsageError
from ipttrace.packet import Flow
from ipttrace.request import Armed, Disarmed, TraceRequest
from ipttrace.system import presence
from ipttrace.system.borrowed import Borrowed
from ipttrace.system.comments import SESSION_LENGTH
from ipttrace.system.guardian_messages import (
    MESSAGE_LIMIT,
    Answer,
    Arm,
    Bequeath,
    Borrow,
    Command,
    Disarm,
    Done,
    Failed,
    Farewell,
    IsArmed,
    IsDisarmed,
    Notice,
    Quiet,
    Rearm,
    Release,
    Reply,
    Request,
    Start,
    Sweep,
    Swept,
    raised,
)
from ipttrace.system.namespaces import Namespace
from ipttrace.system.nf_log import Loggers

A = TypeVar("A", bound=Answer)
Notify = Callable[[str], None]

ANSWER_WAIT = 30.0
"""Seconds after which a guardian that does not answer is killed."""

EXIT_WAIT = 2.0
"""Seconds that a guardian that has undone everything may take to end."""

SESSION = re.compile(rf"[a-z0-9]{{1,{SESSION_LENGTH}}}")

KILLED = "the guardian process was gone before its work was done ({reason}); {what}"


class GuardianGoneError(Exception):
    """The guardian process ended without an answer."""


class Guardian:
    """One session's changes in one namespace, made and taken back by a process of their own."""

    def __init__(
        self, namespace: Namespace, session: str, loggers: Loggers, notify: Notify | None
    ) -> None:
        self._namespace = namespace
        self._session = session
        self._loggers = loggers
        self._notify = notify or _to_stderr
        self._number = 0
        self._disarmed: Disarmed | None = None
        self._borrowed: list[Borrowed] = []
        self._process: subprocess.Popen[bytes]
        self._channel: socket.socket
        self._complaints: int

    @classmethod
    def start(
        cls,
        namespace: Namespace,
        *,
        session: str,
        legacy: bool,
        notify: Notify | None = None,
    ) -> Guardian:
        """Start the process and return at once; it warms up (python-iptables if `legacy`).

        Must be called before an NFLOG listener is bound: it notes the nf_log settings as they
        are.  `notify` is told when something takes long; without it that goes to stderr.
        """
        if not SESSION.fullmatch(session):
            raise UsageError(
                f"no session name: {session!r}", f"Use 1 to {SESSION_LENGTH} of a-z and 0-9."
            )
        holder, loggers = namespace.run(lambda: presence.claim(session))
        with holder:
            guardian = cls(namespace, session, loggers, notify)
            guardian._launch(holder.fileno(), legacy=legacy)
        return guardian

    @property
    def pid(self) -> int:
        """The guardian's process id."""
        return self._process.pid

    def _launch(self, holder: int | None, *, legacy: bool) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        namespace = os.open(self._namespace.path, os.O_RDONLY | os.O_CLOEXEC)
        complaints = os.memfd_create("guardian-stderr")
        start = Start(namespace, theirs.fileno(), holder, self._session, legacy, self._loggers)
        inherited = [namespace, theirs.fileno(), *([holder] if holder is not None else [])]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "ipttrace.system.guardian_process", _text(start)],
                start_new_session=True,
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                env={**os.environ, "LC_ALL": "C"},
            )
        except BaseException:
            ours.close()
            os.close(complaints)
            raise
        finally:
            os.close(namespace)
            theirs.close()
        ours.settimeout(ANSWER_WAIT)
        self._channel, self._complaints = ours, complaints

    def arm(self, request: TraceRequest) -> Armed:
        """Change the namespace; on an error nothing stays behind."""
        with self._surviving():
            return self._ask(Arm(request), IsArmed).armed

    def rearm(self, request: TraceRequest, *, whole: bool) -> Armed:
        """Set triggers anew that somebody took away, or all."""
        with self._surviving():
            return self._ask(Rearm(request, whole), IsArmed).armed

    def bequeath(self, fd: int, frames: Sequence[bytes], flows: Sequence[Flow]) -> None:
        """Have `frames` written to a device and conntrack entries deleted if we die."""
        memory = os.memfd_create("farewell")
        with self._surviving(), os.fdopen(memory, "r+b", buffering=0) as farewell:
            farewell.write(msgspec.json.encode(Farewell(list(frames), list(flows))))
            self._ask(Bequeath(), Done, fd, memory)

    def borrow(self, borrowed: Borrowed) -> None:
        """Change a setting, which is put back after all else; it was noted before."""
        self._borrowed.append(borrowed)
        setting = borrowed.setting
        namespace = os.open(borrowed.namespace.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._surviving():
                command = Borrow(setting.name, setting.value, borrowed.name, setting.note)
                self._ask(command, Done, namespace, borrowed.holder.fileno())
        finally:
            os.close(namespace)

    def release(self) -> None:
        """Forget what was bequeathed: we did it ourselves."""
        if self._disarmed is not None:  # it died, and its knowledge with it
            return
        with self._surviving():
            self._ask(Release(), Done)

    def quiet(self) -> None:
        """Take the triggers back, but keep what contains."""
        with self._surviving():
            self._ask(Quiet(), Done)

    def disarm(self) -> Disarmed:
        """Take everything back; may be called more than once."""
        if self._disarmed is None:
            try:
                self._disarmed = self._ask(Disarm(), IsDisarmed).disarmed
            except GuardianGoneError as error:
                self._disarmed = self._clean_up_after(str(error))
            finally:
                self._close()
        return self._disarmed

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Turn the guardian's death into one error, after cleaning up for it."""
        try:
            yield
        except GuardianGoneError as error:
            self._disarmed = self._clean_up_after(str(error))
            self._close()
            message = "; ".join(self._disarmed.warnings)
            raise KernelError(message, "Try again; ipttrace clean looks for leftovers.") from error

    def _clean_up_after(self, reason: str) -> Disarmed:
        removed: list[str] = []
        problems: list[str] = []
        steps = [lambda: removed.extend(self._sweep(Sweep(self._session)))]
        for step in [*steps, *(borrowed.put_back for borrowed in self._borrowed)]:
            try:
                step()
            except (IptTraceError, OSError) as error:
                problems.append(str(error))
        removed += [f"{each.setting.name} as set" for each in self._borrowed if each.changed]
        done = f"removed what it left: {', '.join(removed) or 'nothing'}"
        warning = KILLED.format(reason=reason, what="; ".join(problems) or done)
        return Disarmed(clean=not problems, warnings=(warning,))

    def _sweep(self, command: Sweep) -> list[str]:
        """Have a second process look for what a dead one left."""
        sweeper = Guardian(self._namespace, self._session, self._loggers, self._notify)
        sweeper._launch(None, legacy=False)
        try:
            return sweeper._ask(command, Swept).removed
        except GuardianGoneError as error:
            where = self._namespace
            raise KernelError(f"cannot look for leftovers in {where}: {error}") from error
        finally:
            sweeper._close()

    def _ask(self, command: Command, kind: type[A], *descriptors: int) -> A:
        self._number += 1
        message = msgspec.json.encode(Request(self._number, command))
        try:
            socket.send_fds(self._channel, [message], descriptors)
            answer = self._next_answer()
        except OSError as error:
            raise GuardianGoneError(self._why_gone()) from error
        if isinstance(answer, Failed):
            raise raised(answer)
        if not isinstance(answer, kind):
            raise GuardianGoneError(f"it answered {type(answer).__name__}")
        return answer

    def _next_answer(self) -> Answer:
        """Return the answer to the last command, telling notices on the way."""
        deadline = time.monotonic() + ANSWER_WAIT
        while time.monotonic() < deadline:
            message = self._channel.recv(MESSAGE_LIMIT)
            if not message:
                raise ConnectionResetError
            reply = msgspec.json.decode(message, type=Reply)
            if isinstance(reply.answer, Notice):
                self._notify(reply.answer.text)
            elif reply.number == self._number:
                return reply.answer
        raise TimeoutError

    def _why_gone(self) -> str:
        """End the process if it hangs; return why it is gone: a signal, or its last words."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.1)
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        said = os.pread(self._complaints, MESSAGE_LIMIT, 0).decode(errors="replace").split("\n")
        last = next((line for line in reversed(said) if line.strip()), "")
        return clean_text(last) or (f"signal {-code}" if code < 0 else f"exit {code}")

    def _close(self) -> None:
        """Let the process go: the channel's end is its order to undo what is left."""
        self._channel.close()
        for borrowed in self._borrowed:
            borrowed.close()
        if self._complaints >= 0:
            os.close(self._complaints)
            self._complaints = -1
        try:
            self._process.wait(EXIT_WAIT)
        except subprocess.TimeoutExpired:  # it is still undoing; its end must be noticed
            threading.Thread(target=self._process.wait, daemon=True).start()


def sweep(namespace: Namespace, notify: Notify | None = None) -> list[str]:
    """Remove what dead sessions left in `namespace`; return a line for each thing removed."""
    return Guardian(namespace, "", (), notify)._sweep(Sweep())


def _text(start: Start) -> str:
    return msgspec.json.encode(start).decode()


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"ipttrace: {text}\n")
