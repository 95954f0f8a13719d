"""What goes wrong between here and the hub, told to a person."""

import errno
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from lmx_core.errors import LmxError, told

LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN"
FULL = (errno.ENOSPC, errno.EDQUOT)
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class HubError(LmxError):
    """A repository that cannot be fetched or written, or a folder that is none."""


@contextmanager
def explained(repo: str, revision: str | None = None) -> Generator[None, None, None]:
    """Every error of huggingface_hub, of its HTTP library and of the disk as `HubError`; Ctrl-C passes.

    All of them, since they have no class in common: some are no OSError, and Xet's are RuntimeErrors.
    """
    try:
        yield
    except LmxError:
        raise
    except Exception as error:
        raise HubError(explanation(error, repo, revision)) from error


def explanation(error: BaseException, repo: str, revision: str | None = None) -> str:
    """What happened and what to do."""
    from huggingface_hub import errors

    page = f"{_endpoint()}/{repo}"
    match error:
        case RuntimeError(__cause__=BaseException() as cause):  # "Error while uploading"
            return explanation(cause, repo, revision)
        case errors.GatedRepoError():
            return _gated(repo, page)
        case errors.RepositoryNotFoundError():
            return (
                f"there is no folder {repo} here, and no repository {repo} on the hub that you may see. Check its "
                f"spelling. {LOG_IN} if it is private."
            )
        case errors.RevisionNotFoundError():
            return (
                f"{repo} has no revision {revision!r}. Check its spelling at {page}/tree/main, or leave it out for "
                "the main branch."
            )
        case errors.LocalEntryNotFoundError():
            return _not_cached(error, repo, revision)
        case errors.OfflineModeIsEnabled():
            return f"the hub is not asked for {repo}, since HF_HUB_OFFLINE is set. Unset it to go online."
        case errors.HFValidationError():
            return f"{repo!r} is no folder here and no name of a repository. One on the hub is named owner/name."
        case errors.HfHubHTTPError():
            return _refused(error, repo)
        case ValueError():
            return f"{repo} is refused: {error}"
        case OSError():
            return _of_system(error, repo)
        case _:
            return _disconnected(error, repo)


def _gated(repo: str, page: str) -> str:
    from huggingface_hub import get_token

    if get_token() is None:
        return f"{repo} is gated. Accept its terms at {page}, then prove who you are. {LOG_IN}."
    return (
        f"{repo} is gated, and your token does not open it. Accept its terms at {page} with the token's account, and "
        "wait until its owner agrees where that is asked for. A fine-grained token must allow gated repositories."
    )


def _not_cached(error: BaseException, repo: str, revision: str | None) -> str:
    """The hub did not answer, or not with success, and the cache has less than what was asked for."""
    from huggingface_hub import constants, errors

    at = f" at revision {revision!r}" if revision else ""
    lacking = f"{repo}{at} is no folder here and not, or not wholly, in the cache {constants.HF_HUB_CACHE}"
    match error.__cause__:
        case errors.HfHubHTTPError() as cause:
            return f"{_refused(cause, repo)} {lacking}."
        case errors.OfflineModeIsEnabled() | None:
            return f"HF_HUB_OFFLINE is set, and {lacking}. Fetch it once without HF_HUB_OFFLINE."
        case cause:
            return (
                f"the hub ({_endpoint()}) cannot be reached ({told(cause)}), and {lacking}. "
                "Run it again when there is a connection; after that no connection is needed."
            )


def _refused(error: Any, repo: str) -> str:
    """An answer that is no success, by its status."""
    status, said = error.response.status_code, getattr(error, "server_message", None)
    words = f" ({said})" if said else ""
    match status:
        case 401:
            return f"the hub does not accept your token for {repo}{words}. {LOG_IN} again."
        case 403:
            return (
                f"the hub forbids this for {repo}{words}. Use a token whose account may do it, with write access "
                f"where something is uploaded. {LOG_IN}."
            )
        case 429:
            return f"the hub has had too many requests{words}. Wait some minutes. It allows more to those who log in."
        case _ if status >= 500:
            return (
                f"the hub fails for {repo} with status {status}{words}. Try again later; files that are complete are "
                "kept."
            )
        case _:
            return f"the hub refuses what was asked for {repo} with status {status}{words}."


def _of_system(error: OSError, repo: str) -> str:
    from huggingface_hub import constants

    cache = constants.HF_HUB_CACHE
    if error.errno in FULL:
        return f"the disk of {cache} is full. Free some space, or set HF_HOME to a folder on a larger disk."
    if error.errno in UNWRITABLE:
        return f"{error.filename or cache} cannot be written: {error.strerror}. Set HF_HOME to a folder of your own."
    if error.errno and error.filename:
        return f"{error.filename} cannot be read or written: {error.strerror}."
    if "Consistency check failed" in str(error):  # its class is plain OSError
        return (
            f"a file of {repo} came with the wrong length, and is not kept ({str(error).splitlines()[0]}). Try again. "
            "If it stays so, something between here and the hub answers in its place, such as a proxy or the login "
            "page of a network."
        )
    return _disconnected(error, repo)


def _disconnected(error: BaseException, repo: str) -> str:
    return (
        f"the connection to the hub ({_endpoint()}) failed at {repo} ({told(error)}). Files that are complete are kept: "
        "run it again."
    )


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT
