"""What can go wrong, by meaning. Every exception of this package is a :class:`CoopError`."""

from __future__ import annotations

from typing import ClassVar

from . import _native
from ._native import Message


class CoopError(Exception):
    """The base of all exceptions of this package.

    ``code`` is the stable word for its kind, the same on every wire; ``retryable`` says whether the same call may succeed
    later, and ``retry_after`` when that makes sense, in seconds, if it is known.
    """

    code: str = "internal"
    retryable: bool = False
    retry_after: float | None = None

    def __init__(
        self, words: str = "", *, retryable: bool | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(words)
        if retryable is not None:
            self.retryable = retryable
        if retry_after is not None:
            self.retry_after = retry_after


class BadRequestError(CoopError, ValueError):
    """Something malformed was asked for; asking again the same way cannot help."""

    code = "bad_request"


class UnauthorizedError(CoopError, PermissionError):
    """Who somebody is could not be established: the name or the password is wrong."""

    code = "unauthorized"


class ForbiddenError(CoopError, PermissionError):
    """They are known and may not do this."""

    code = "forbidden"


class NotFoundError(CoopError, LookupError):
    """There is no such thing, or one may not know that there is."""

    code = "not_found"


class ConflictError(CoopError, ValueError):
    """It contradicts something that exists: a name is taken, a ``client_id`` was used with another text."""

    code = "conflict"


class TooLargeError(CoopError, ValueError):
    """Larger than the limit."""

    code = "too_large"


class RateLimitedError(CoopError):
    """Too many in too short a time."""

    code = "rate_limited"
    retryable = True


class BudgetExceededError(CoopError):
    """A token budget is spent."""

    code = "budget_exceeded"


class BusyError(CoopError):
    """A bounded queue is full."""

    code = "busy"
    retryable = True


class UnavailableError(CoopError, ConnectionError):
    """The store cannot answer now, and it may be uncertain whether this was done. Sending again with the same
    ``client_id`` is safe."""

    code = "unavailable"
    retryable = True


class ClosedError(CoopError, RuntimeError):
    """The engine is closed."""

    code = "closed"


class InUseError(CoopError):
    """Another engine owns this database."""

    code = "in_use"


class NewerSchemaError(CoopError):
    """The database was written by a newer version."""

    code = "newer_schema"


class NotADatabaseError(CoopError, ValueError):
    """The file or address is not a database of ours."""

    code = "not_a_database"


class InternalError(CoopError, RuntimeError):
    """A defect."""

    code = "internal"


class WrongLoopError(CoopError, RuntimeError):
    """An engine was used outside the event loop that opened it."""

    code = "wrong_loop"


class ForkedProcessError(CoopError, RuntimeError):
    """An engine was used in a process that was forked from the one that opened it."""

    code = "forked_process"


class BotError(CoopError):
    """A bot could not finish, or was not let begin.

    Raise it in a bot to choose what people are told: ``raise BotError("The weather service is away.",
    code="unavailable")``. Of any other exception they are told only that the bot failed. What :meth:`Room.ask` raises has
    the exception of a bot of this engine as its ``__cause__``, and in ``message`` the answer as far as it was written.
    """

    message: Message | None = None

    #: The codes that a bot may choose from.
    CODES: ClassVar[frozenset[str]] = frozenset(_native.bot_error_codes())

    def __init__(
        self,
        words: str = "The bot failed.",
        *,
        code: str = "internal",
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(words, retryable=retryable, retry_after=retry_after)
        self.code = code


class BotTimeoutError(BotError, TimeoutError):
    """A bot took too long."""


_KINDS: dict[str, type[CoopError]] = {
    kind.code: kind
    for kind in (
        BadRequestError,
        UnauthorizedError,
        ForbiddenError,
        NotFoundError,
        ConflictError,
        TooLargeError,
        RateLimitedError,
        BudgetExceededError,
        BusyError,
        UnavailableError,
        ClosedError,
        InUseError,
        NewerSchemaError,
        NotADatabaseError,
        InternalError,
    )
}


def of(code: str, words: str, retryable: bool, retry_after: float | None) -> CoopError:
    """The exception for an error of the engine. Called by the extension."""
    kind = _KINDS.get(code, InternalError)
    return kind(words, retryable=retryable, retry_after=retry_after)


def of_bot(code: str, words: str) -> BotError:
    """The exception for a turn that failed."""
    kind = BotTimeoutError if code == "timeout" else BotError
    return kind(words, code=code)
