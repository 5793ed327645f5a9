"""The loop's end of the way between an engine's threads and Python.

Why not pyo3-async-runtimes, which is made for this: there every result is a callback into the loop from a foreign thread.
That costs a switch of threads for each event, takes an event away when the wait for it is cancelled, and crashes a process that
ends with calls under way. Here the engine's threads never touch the interpreter:

- What they have goes into one queue, and wakes the loop through one file descriptor, once for however much has come
  (:meth:`Link._drain`).
- A call is a future under a number. Cancelling the wait aborts the call's task on the other side; a result that comes
  nevertheless finds no future and is dropped.
- A subscription is read in two steps: *look*, which never waits, and *wait*, which takes nothing. So a cancelled wait
  loses no event.
- A bot runs as a task of this loop, and what it says goes from here into its answer at once.

Everything is used from the loop that opened the engine, in the process that opened it, and says so where it is not.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec

from . import _native
from ._errors import BadRequestError, ClosedError, ForkedProcessError, WrongLoopError

if TYPE_CHECKING:
    from ._serve import Server

_P = ParamSpec("_P")

_links: weakref.WeakSet[Link] = weakref.WeakSet()


#: A loop that comes this late, in seconds, is blocked by something.
_BLOCKED: Final = 1.0


def told_blocked(late: float) -> str:
    """Words for it."""
    return (
        f"the event loop did not run for {late:.1f} s: await what waits, and call what computes or blocks by"
        " `await asyncio.to_thread(...)`"
    )


class Link:
    """The way to one engine, as long as it is open."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.bridge = _native.Bridge()
        self.native = _native.open(self.bridge)
        self.closed = False
        self.forked = False
        #: What to do when a bot is asked, and when its turn is over. Set by whoever keeps the bots.
        self.on_ask: Callable[[int, int, str, _native.Answer], None] | None = None
        self.on_stop: Callable[[int], None] | None = None
        #: Which turns were being answered in the last so many seconds.
        self.on_blocked: Callable[[float], list[str]] | None = None
        #: What serves the engine, so that it ends first.
        self.servers: set[Server] = set()
        self.subscriptions: weakref.WeakSet[_native.Subscription] = weakref.WeakSet()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._waits: dict[int, asyncio.Future[None]] = {}
        self._numbers = 0
        #: When the loop came late, by its own clock, and by how much: to be told with what has gone wrong meanwhile.
        self.blocked: tuple[float, float] | None = None
        # Weakly: a loop that goes on does not keep an engine that nobody has any more.
        drain = weakref.WeakMethod(self._drain)

        def awake() -> None:
            if (method := drain()) is not None:
                method()

        self._fileno = self.bridge.fileno()
        self.loop.add_reader(self._fileno, awake)
        _links.add(self)

    def check(self) -> None:
        """Whether one may call from here."""
        if self.forked:
            raise ForkedProcessError(
                "this engine was opened before the process was forked, and its threads are not here: open an engine in"
                " the child, or start the child with multiprocessing's 'spawn' or 'forkserver'"
            )
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not self.loop:
            raise WrongLoopError(
                "this engine belongs to the event loop that opened it: call it from there, from another thread by"
                " asyncio.run_coroutine_threadsafe(..., loop), or open an engine in each loop"
            )
        if self.closed:
            raise ClosedError(
                "the engine is closed: open another, and keep it open for as long as it is used"
            )

    def number(self) -> int:
        """A number that was not given before."""
        self._numbers += 1
        return self._numbers

    async def call(
        self, begin: Callable[Concatenate[int, _P], _native.Call], *args: _P.args, **kwargs: _P.kwargs
    ) -> Any:
        """Begins a call on the engine's threads and waits for its outcome. Cancelling aborts it."""
        self.check()
        return await self.call_unchecked(begin, *args, **kwargs)

    async def call_unchecked(
        self, begin: Callable[Concatenate[int, _P], _native.Call], *args: _P.args, **kwargs: _P.kwargs
    ) -> Any:
        """The same, also while the engine is being closed."""
        number = self.number()
        future: asyncio.Future[Any] = self.loop.create_future()
        self._calls[number] = future
        call: _native.Call | None = None
        try:
            try:
                call = begin(number, *args, **kwargs)
            except OverflowError as error:
                raise BadRequestError(f"a number is out of range: {error}") from error
            return await future
        finally:
            if self._calls.pop(number, None) is not None and call is not None:
                call.abort()

    async def wait(self, number: int) -> None:
        """Waits until it is worth looking again into the subscription of this number."""
        if number in self._waits:
            raise RuntimeError(
                "this subscription is waited for already: one task reads it, or each subscribes"
            )
        future: asyncio.Future[None] = self.loop.create_future()
        self._waits[number] = future
        try:
            await future
        finally:
            self._waits.pop(number, None)

    def wake(self, number: int) -> None:
        """Ends the wait for this number, if there is one."""
        wait = self._waits.get(number)
        if wait is not None and not wait.done():
            wait.set_result(None)

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return len(self._calls)

    def _drain(self) -> None:
        if self.forked:
            return
        results, ready, asks, stops, records, late = self.bridge.drain()
        if late >= _BLOCKED:
            self._blocked(late)
        for number, result, failed in results:
            future = self._calls.pop(number, None)
            if future is None or future.done():
                continue
            if failed:
                future.set_exception(result)
            else:
                future.set_result(result)
        for number in ready:
            self.wake(number)
        for ask in asks:
            if self.on_ask is not None:
                self.on_ask(*ask)
        for run in stops:
            if self.on_stop is not None:
                self.on_stop(run)
        for level, name, text in records:
            logging.getLogger(f"gemini_coop.{name}").log(level, "%s", text)

    def _blocked(self, late: float) -> None:
        self.blocked = (self.loop.time(), late)
        answering = self.on_blocked(late) if self.on_blocked is not None else []
        logging.getLogger("gemini_coop").warning(
            "%s (answering: %s)", told_blocked(late), "; ".join(answering) or "no bot"
        )

    def end(self) -> None:
        """Ends the threads at once, and hands everybody what is left for them."""
        if self.closed:
            return
        self.closed = True
        for subscription in self.subscriptions:
            subscription.keep_rest()
        self.native.join()
        self._drain()
        self.loop.remove_reader(self._fileno)
        for future in self._calls.values():
            if not future.done():
                future.set_exception(ClosedError("the engine was closed meanwhile"))
        self._calls.clear()
        for number in self._waits:
            self.wake(number)
        _links.discard(self)

    def abandon(self) -> None:
        """Ends an engine that nobody has closed and nobody can close any more. In whatever thread."""
        if self.closed or self.forked:
            return
        self.closed = True
        _links.discard(self)
        # The bridge goes along: its descriptor must not be closed before the loop has forgotten it.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(_forget, self.loop, self._fileno, self.bridge)
        if self.native.abandon():
            warnings.warn(
                "an engine was never closed: use `async with`, or await its aclose()", ResourceWarning, 2
            )

    def __del__(self) -> None:
        self.abandon()


def _forget(loop: asyncio.AbstractEventLoop, fileno: int, bridge: _native.Bridge) -> None:
    loop.remove_reader(fileno)
    del bridge


@atexit.register
def _end_all() -> None:
    """Engines that were not closed end before the interpreter does."""
    for link in list(_links):
        link.abandon()


def _in_child() -> None:
    for link in list(_links):
        link.forked = True


os.register_at_fork(after_in_child=_in_child)
