from __future__ import annotations

import errno
import os

import pytest

from ipttrace.errors import IptTraceError, KernelError, NotPermittedError, NotSupportedError
from ipttrace.system.nfnetlink import explaining


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EPERM, NotPermittedError),
        (errno.EOPNOTSUPP, NotSupportedError),
        (errno.EPROTONOSUPPORT, NotSupportedError),
        (errno.EEXIST, KernelError),
    ],
)
def test_refusal_says_what_and_why(number: int, kind: type[IptTraceError]) -> None:
    with pytest.raises(kind) as raised, explaining("create nft table ip t"):
        raise OSError(number, os.strerror(number))
    assert raised.value.message == f"cannot create nft table ip t: {os.strerror(number)}"


def test_silent_kernel_is_named() -> None:
    with pytest.raises(KernelError, match="did not answer"), explaining("ask"):
        raise TimeoutError
