"""Bots that are written in Python, and those that come with the package.

A bot's turn is a task of the loop that opened the engine. The engine stops it by cancelling the task, which raises
``CancelledError`` at whatever the bot is awaiting. What the bot says goes into its answer at once, from this thread; so a
slow reader never makes a bot wait, and a bot that computes makes nobody wait but the loop it blocks.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from . import _native
from ._bridge import Link
from ._errors import BotError
from ._native import Author

_logger = logging.getLogger("gemini_coop.bots")

#: After this long without a pause a bot's task lets others run, in seconds.
_PATIENCE: Final = 0.005
#: How many failures are kept until somebody asks for them.
_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class ContextTurn:
    """Neighbouring messages of one side."""

    #: ``user`` for people and other bots, ``model`` for the bot that reads.
    side: str
    #: One part for each message.
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """What was said before, as the bot wanted it."""

    #: What the operator tells the bot, and where it is.
    system: str = ""
    #: Oldest first, the two sides alternating; the last is the prompt.
    turns: tuple[ContextTurn, ...] = ()
    #: How many older messages were left out.
    omitted: int = 0


class _Usage(Protocol):
    def usage(
        self,
        input: int | None,
        output: int | None,
        thinking: int | None,
        cached: int | None,
        total: int | None,
        estimated: bool,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Turn:
    """One ask, as the bot gets it."""

    #: What was asked, without the words that address the bot.
    prompt: str
    #: Who asked.
    asked_by: Author
    #: What was said before.
    context: Context
    #: The handle it was asked by.
    bot: str
    #: The turn's id.
    id: int
    #: The id of the room it was asked in.
    room: int
    #: The id of the message that asked.
    ask: int
    #: When the engine will end the turn.
    deadline: datetime
    #: 1, or more when the same ask is tried again.
    attempt: int = 1
    _answer: _Usage | None = field(default=None, repr=False, compare=False)

    def report_usage(
        self,
        *,
        input: int | None = None,
        output: int | None = None,
        thinking: int | None = None,
        cached: int | None = None,
        total: int | None = None,
        estimated: bool = False,
    ) -> None:
        """Reports the tokens used so far: running totals, the last report wins. Budgets are charged with them."""
        if self._answer is not None:
            self._answer.usage(input, output, thinking, cached, total, estimated)


Reply: TypeAlias = AsyncIterator[str] | Awaitable[str]
#: What answers: an async generator function, or a coroutine function.
BotFunction: TypeAlias = Callable[[Turn], Reply]


@runtime_checkable
class Bot(Protocol):
    """A bot as an object: a handle, and what answers. It may also have ``settings``, a :class:`BotSettings`."""

    @property
    def name(self) -> str:
        """The handle it is asked by."""
        ...

    def reply(self, turn: Turn, /) -> Reply:
        """Answers: an async generator, or a coroutine."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BotSettings:
    """What a bot is told, what it reads, and how much it may say."""

    #: The name it shows; its handle if there is none.
    name: str | None = None
    #: One line about it; it greets an AI chat with this.
    about: str | None = None
    #: What the operator tells it, first in the context it reads.
    system: str = ""
    #: It reads at most this many messages.
    context_messages: int = 50
    #: It reads at most this many estimated tokens.
    context_tokens: int = 8_000
    #: A longer answer is cut, in bytes of UTF-8.
    max_bytes: int = 32 * 1024
    #: A longer turn fails, in seconds.
    timeout: float = 600.0
    #: Whether its tokens cost something, also those that it does not report.
    metered: bool = False

    def _profile(self, handle: str) -> dict[str, Any]:
        return {"handle": handle} | {name: getattr(self, name) for name in self.__slots__}


def check_function(name: str, function: Callable[..., object]) -> None:
    """That this is a function that can answer."""
    if not callable(function):
        raise TypeError(
            f"bot {name!r}: {type(function).__name__} cannot answer; give an `async def` that yields or returns text,"
            " or an object with `name` and `reply(turn)`"
        )
    called = inspect.unwrap(function)
    while isinstance(called, functools.partial):
        called = called.func
    if not _is_async(called) and not _is_async(getattr(called, "__call__", None)):  # noqa: B004
        raise TypeError(
            f"bot {name!r}: {getattr(function, '__qualname__', function)!r} is a plain function and would block everybody;"
            " make it `async def` and `yield` its text, and call what blocks by `await asyncio.to_thread(...)`"
        )


def _is_async(function: object) -> bool:
    return inspect.isasyncgenfunction(function) or inspect.iscoroutinefunction(function)


class Bots:
    """The Python bots of one engine, and their turns."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._bots: dict[int, tuple[str, BotFunction, contextvars.Context]] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        #: Which turns have ended when: the last few.
        self._ended: deque[tuple[str, float]] = deque(maxlen=16)
        #: Bots answer for as long as nobody has cancelled this task. A program that ends cancels every task, and what began to
        #: answer after that would be cut off in its middle when the loop is closed.
        self._keeper: asyncio.Task[None] | None = None
        #: Why turns of these bots have failed, by turn: until somebody asks, or many others have failed.
        self._failures: OrderedDict[int, BaseException] = OrderedDict()
        link.on_ask = self._ask
        link.on_stop = self._stop
        link.on_blocked = self._answering

    def add(self, handle: str, function: BotFunction, settings: BotSettings) -> None:
        """Adds a bot."""
        number = self._link.number()
        # What is set where the bot is added is there when it answers.
        self._bots[number] = (handle, function, contextvars.copy_context())
        if self._keeper is None:
            self._keeper = self._link.loop.create_task(_forever(), name="bots")
            # A loop that is closed without cancelling its tasks need not tell of this one.
            self._keeper._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        try:
            self._link.native.add_python_bot(number, settings._profile(handle))
        except BaseException:
            del self._bots[number]
            raise

    @property
    def running(self) -> int:
        """How many turns are answered now."""
        return len(self._runs)

    def failure(self, turn: int) -> BaseException | None:
        """Why this turn has failed, if it was a Python bot's."""
        return self._failures.get(turn)

    def _fail(self, turn: int, error: BaseException) -> None:
        self._failures[turn] = error
        while len(self._failures) > _KEPT:
            self._failures.popitem(last=False)

    def _ask(self, number: int, run: int, kept: str, answer: _native.Answer) -> None:
        if self._keeper is None or self._keeper.done() or self._keeper.cancelling():
            answer.fail("cancelled", None, "the program is ending")
            return
        handle, function, context = self._bots[number]
        turn = _turn(json.loads(kept), answer)
        task = self._link.loop.create_task(
            self._answer(handle, function, turn, answer),
            name=f"bot {handle}, turn {turn.id}",
            context=context.copy(),
        )
        self._runs[run] = task
        task.add_done_callback(functools.partial(self._done, run))

    def _done(self, run: int, task: asyncio.Task[None]) -> None:
        del self._runs[run]
        self._ended.append((task.get_name(), self._link.loop.time()))

    def _answering(self, seconds: float) -> list[str]:
        since = self._link.loop.time() - seconds
        ended = [name for name, at in self._ended if at >= since]
        return [*ended, *(task.get_name() for task in self._runs.values())]

    def _stop(self, run: int) -> None:
        task = self._runs.get(run)
        if task is not None:
            task.cancel()

    async def _answer(self, handle: str, function: BotFunction, turn: Turn, answer: _native.Answer) -> None:
        try:
            await _run(handle, function, turn, answer)
        except BotError as error:
            self._fail(turn.id, error)
            code = error.code if error.code in BotError.CODES else "internal"
            answer.fail(code, str(error), repr(error))
        except Exception as error:
            self._fail(turn.id, error)
            _logger.error("bot %s failed in turn %d", handle, turn.id, exc_info=error)
            answer.fail("internal", None, repr(error))
        except BaseException as error:
            # Cancelled by the engine, which knows why, or by whoever cancels every task of the loop; or the program ends.
            answer.fail("cancelled", None, repr(error))
            raise
        else:
            answer.finish()

    async def close(self) -> None:
        """Waits until the tasks of turns that are over have cleaned up, for a moment."""
        if self._keeper is not None:
            self._keeper.cancel()
        running = [task for task in self._runs.values() if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        if running:
            _, stuck = await asyncio.wait(running, timeout=1.0)
            for task in stuck:
                _logger.warning(
                    "%s goes on after it was cancelled: it must not swallow CancelledError", task.get_name()
                )


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


async def _run(handle: str, function: BotFunction, turn: Turn, answer: _native.Answer) -> None:
    """Lets a bot answer."""
    reply = function(turn)
    if isinstance(reply, AsyncIterator):
        pieces: AsyncIterator[object] = reply
        try:
            await _stream(handle, pieces, answer)
        finally:
            # Of a generator that was stopped between two pieces: its `finally` runs now, not when it is collected.
            if inspect.isasyncgen(pieces):
                await pieces.aclose()
    elif inspect.isawaitable(reply):
        whole: object = await reply
        answer.push(
            _text(handle, whole, "returned", "return the whole answer as a str, or yield it in pieces")
        )
    else:
        raise TypeError(
            f"bot {handle!r} returned {type(reply).__name__} where an async generator or a coroutine is wanted:"
            " make its `reply` an `async def`"
        )


async def _stream(handle: str, pieces: AsyncIterator[object], answer: _native.Answer) -> None:
    paused = monotonic()
    async for piece in pieces:
        if not answer.push(_text(handle, piece, "yielded", "yield str, such as `yield str(...)`")):
            return
        now = monotonic()
        # Others get their turn also beside a bot that never waits; those that wait do not pay for it.
        if now - paused >= _PATIENCE:
            await asyncio.sleep(0)
            paused = monotonic()


def _text(handle: str, given: object, did: str, mend: str) -> str:
    if not isinstance(given, str):
        raise TypeError(f"bot {handle!r} {did} {type(given).__name__}: {mend}")
    return given


def _turn(kept: Mapping[str, Any], answer: _native.Answer) -> Turn:
    context = kept["context"]
    turns: Iterable[Mapping[str, Any]] = context["turns"]
    by: Mapping[str, Any] = kept["asked_by"]
    return Turn(
        prompt=kept["prompt"],
        asked_by=Author(by["name"], by.get("user"), by.get("bot")),
        context=Context(
            system=context["system"],
            turns=tuple(ContextTurn(side=turn["side"], parts=tuple(turn["parts"])) for turn in turns),
            omitted=context["omitted"],
        ),
        bot=kept["bot"],
        id=kept["id"],
        room=kept["room"],
        ask=kept["ask"],
        deadline=datetime.fromisoformat(kept["deadline"]),
        attempt=kept["attempt"],
        _answer=answer,
    )


class BuiltinBot:
    """A bot that runs in Rust, on the engine's own threads."""

    __slots__ = ("_native", "name")

    def __init__(self, name: str, native: _native.BuiltinBot) -> None:
        #: The handle it is asked by.
        self.name: Final = name
        self._native: Final = native

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class GeminiBot(BuiltinBot):
    """Asks a Gemini model of Google's, by its streaming API.

    >>> coop.GeminiBot("key-of-mine", model="gemini-2.5-flash")
    GeminiBot('gemini')
    """

    __slots__ = ()

    def __init__(
        self,
        key: str,
        *,
        name: str = "gemini",
        model: str | None = None,
        system: str = "",
        max_output_tokens: int | None = None,
        base_url: str | None = None,
    ) -> None:
        native = _native.gemini_bot(
            name, key, model=model, base_url=base_url, system=system, max_output_tokens=max_output_tokens
        )
        super().__init__(name, native)


class MockBot(BuiltinBot):
    """Says prepared things without a model: a demonstration, the prompt itself (``echo``), one ``text``, or a ``script`` of
    pieces with the seconds before each.

    >>> coop.MockBot("parrot", echo=True, delay=0.01)
    MockBot('parrot')
    """

    __slots__ = ()

    def __init__(
        self,
        name: str = "mock",
        *,
        text: str | None = None,
        script: Sequence[tuple[float, str]] | None = None,
        echo: bool = False,
        words: int | None = None,
        first_delay: float | None = None,
        delay: float | None = None,
        hangs_after: int | None = None,
        breaks_off_after: int | None = None,
    ) -> None:
        native = _native.mock_bot(
            name,
            text=text,
            script=None if script is None else list(script),
            echo=echo,
            words=words,
            first_delay=first_delay,
            delay=delay,
            hangs_after=hangs_after,
            breaks_off_after=breaks_off_after,
        )
        super().__init__(name, native)


class ScribeBot(BuiltinBot):
    """Answers from the room's own history, by rules and without a model: who said what, when, and how often.

    >>> coop.ScribeBot()
    ScribeBot('scribe')
    """

    __slots__ = ()

    def __init__(self, name: str = "scribe") -> None:
        super().__init__(name, _native.scribe_bot(name))
