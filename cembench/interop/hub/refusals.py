"""Refusals of the Hugging Face hub, each as one line without a word of the token."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cembench.interop.hub.address import Address
from cembench.util.errors import CembenchError, one_line, said

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}  # errors of this machine
_SECRET = re.compile(r"(Bearer |hf_)[^\s'\"]+")


class Unreachable(CembenchError):
    """The hub does not answer, or may not be asked."""


@contextmanager
def telling(address: Address) -> Iterator[None]:
    """Say in one line what the hub refuses, without a word of the token."""
    try:
        yield
    except CembenchError:
        raise
    except GatedRepoError as error:
        what = f"{address}: gated; ask for access on its page, then {LOG_IN}"
        raise CembenchError(what) from error
    except RepositoryNotFoundError as error:
        raise CembenchError(f"{address}: no such repository, or a private one: {LOG_IN}") from error
    except RevisionNotFoundError as error:
        raise CembenchError(f"{address}: no revision {address.revision or 'main'}") from error
    except HfHubHTTPError as error:
        raise CembenchError(f"{address}: {_refused(error)}") from error
    except HFValidationError as error:
        raise CembenchError(f"{address}: {_secretly(one_line(error))}") from error
    except OfflineModeIsEnabled as error:
        raise Unreachable(f"{address}: HF_HUB_OFFLINE is set") from error
    except Exception as error:  # of the package that speaks HTTP, which differs among versions
        cause = error.__cause__ or error
        kind = type(cause).__name__
        if isinstance(cause, OSError) and cause.errno in LOCAL:
            where = f"{constants.HF_HUB_CACHE} (HF_HOME), the cache of the hub"
            raise CembenchError(f"{address}: {cause.strerror}: {where}") from error
        if "Connect" in kind or "Timeout" in kind or isinstance(error, LocalEntryNotFoundError):
            what = f"{constants.ENDPOINT} cannot be reached ({kind})"
            raise Unreachable(f"{address}: {what}") from error
        raise CembenchError(f"{address}: {_secretly(said(cause))}") from error


def _refused(error: HfHubHTTPError) -> str:
    status = getattr(error.response, "status_code", None)
    words = one_line(error.server_message or error)[:200]
    known = {
        401: f"not logged in, or a token that is not valid: {LOG_IN}",
        403: f"your token may not do this ({words})",
        409: f"somebody else has just pushed; push again ({words})",
        412: f"somebody else has just pushed; push again ({words})",
        507: f"the hub has no room for it ({words})",
    }
    return _secretly(known.get(int(status or 0), f"the hub answers {status}: {words}"))


def _secretly(text: str) -> str:
    return _SECRET.sub(r"\1…", text)
