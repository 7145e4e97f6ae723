"""What the main process and its guardian say to each other, one JSON object a message.

The channel is a SOCK_SEQPACKET socket pair.  An answer repeats the number of its command, so a
command that was given up (Ctrl-C) cannot be taken for the next one's.
"""

from __future__ import annotations

import msgspec

from ipttrace.errors import (
    IptTraceError,
    KernelError,
    NotPermittedError,
    NotSupportedError,
    UsageError,
)
from ipttrace.packet import Flow
from ipttrace.request import Armed, Disarmed, TraceRequest
from ipttrace.system.nf_log import Loggers

MESSAGE_LIMIT = 1 << 17
"""Bytes; a SEQPACKET message must fit the socket's buffer (net.core.wmem_default)."""


class Start(msgspec.Struct, frozen=True):
    """The guardian's only argument: descriptors that it inherits, and whom it serves."""

    namespace: int
    channel: int
    presence: int | None
    session: str
    legacy: bool
    loggers: Loggers


class Arm(msgspec.Struct, frozen=True, tag=True):
    """Change the namespace."""

    request: TraceRequest


class Rearm(msgspec.Struct, frozen=True, tag=True):
    """Set triggers anew, or all."""

    request: TraceRequest
    whole: bool


class Bequeath(msgspec.Struct, frozen=True, tag=True):
    """Keep what is to be done if we die; comes with a device and a memfd with a `Farewell`."""


class Farewell(msgspec.Struct, frozen=True):
    """Frames to write to the device, then conntrack entries to delete."""

    frames: list[bytes]
    flows: list[Flow]


class Borrow(msgspec.Struct, frozen=True, tag=True):
    """Change a setting of a namespace and put it back at last; comes with both descriptors."""

    setting: str
    value: str
    held: str
    """The name that says what the setting was; see `borrowed`."""
    note: str | None = None


class Release(msgspec.Struct, frozen=True, tag=True):
    """Forget what was bequeathed."""


class Quiet(msgspec.Struct, frozen=True, tag=True):
    """Take the triggers back, but keep what contains."""


class Disarm(msgspec.Struct, frozen=True, tag=True):
    """Take everything back."""


class Sweep(msgspec.Struct, frozen=True, tag=True):
    """Remove what dead sessions left; of one session even if it seems alive."""

    session: str | None = None


Command = Arm | Rearm | Bequeath | Borrow | Release | Quiet | Disarm | Sweep


class Request(msgspec.Struct, frozen=True):
    """A command and its number."""

    number: int
    command: Command


class Done(msgspec.Struct, frozen=True, tag=True):
    """It is done, and there is nothing to tell."""


class IsArmed(msgspec.Struct, frozen=True, tag=True):
    """The answer to Arm and Rearm."""

    armed: Armed


class IsDisarmed(msgspec.Struct, frozen=True, tag=True):
    """The answer to Disarm."""

    disarmed: Disarmed


class Swept(msgspec.Struct, frozen=True, tag=True):
    """The answer to Sweep: a line for each thing that was removed."""

    removed: list[str]


class Notice(msgspec.Struct, frozen=True, tag=True):
    """Something to tell the user at once; the answer is still to come."""

    text: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """An error of ours, to be raised again on the other side."""

    kind: str
    message: str
    hint: str


Answer = Done | IsArmed | IsDisarmed | Swept | Notice | Failed


class Reply(msgspec.Struct, frozen=True):
    """An answer and the number of its command."""

    number: int
    answer: Answer


KINDS: dict[str, type[IptTraceError]] = {
    kind.__name__: kind
    for kind in (KernelError, NotPermittedError, NotSupportedError, UsageError, IptTraceError)
}


def failure(error: IptTraceError) -> Failed:
    """Return an error as a message."""
    return Failed(type(error).__name__, error.message, error.hint)


def raised(failed: Failed) -> IptTraceError:
    """Return a message as the error that it was."""
    return KINDS.get(failed.kind, KernelError)(failed.message, failed.hint)
