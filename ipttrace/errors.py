"""The errors that a user can meet, each with what to do about it.

Exit codes are the command line's contract: 1 an expectation failed, 2 usage, 3 not permitted or
not supported here.  Garbage from the kernel is data (`event.Undecoded`), never an exception.
"""

from __future__ import annotations


class IptTraceError(Exception):
    """Base of all errors that end a command with one clear line.

    `message` says what was tried, on what, and why it failed; `hint` says what to do.
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        stop = "" if self.message.endswith((".", "!", "?")) else "."
        return f"{self.message}{stop} {self.hint}"


class UsageError(IptTraceError):
    """The words of the command do not fit together, or name something that is not there."""

    exit_code = 2


class NotPermittedError(IptTraceError):
    """The kernel refused for lack of privilege."""


class NotSupportedError(IptTraceError):
    """The kernel, a program or a setting that is needed is not there."""


class KernelError(IptTraceError):
    """The kernel or a program refused something that should have worked."""


class CancelledError(IptTraceError):
    """The user asked to stop; everything was taken back."""

    exit_code = 130
