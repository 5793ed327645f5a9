"""Events as they happen."""

from __future__ import annotations

import json
from asyncio import get_running_loop, sleep
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from . import _native
from ._bridge import Link

#: How many events in a row are yielded before others on the loop get their turn.
_IN_A_ROW = 64


@dataclass(frozen=True, slots=True)
class Position:
    """Where a subscription stands, in the middle of an answer if need be: what :meth:`Room.subscribe` takes up from.

    >>> coop.Position.from_dict(coop.Position(epoch=7, seq=3, tapes={12: 40}).to_dict())
    Position(epoch=7, seq=3, tapes={12: 40})
    """

    epoch: int
    seq: int
    #: How many bytes of each unfinished answer were seen, by message.
    tapes: Mapping[int, int] = field(default_factory=dict[int, int])

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, to be kept somewhere."""
        tapes = {str(message): end for message, end in self.tapes.items()}
        return {"epoch": self.epoch, "seq": self.seq, "tapes": tapes}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` has made."""
        tapes = {int(message): int(end) for message, end in kept.get("tapes", {}).items()}
        return cls(epoch=int(kept["epoch"]), seq=int(kept["seq"]), tapes=tapes)


class Subscription:
    """Events in order and without gaps; whoever is behind is filled from the store.

    Iterate over it inside ``async with``, which begins it, and ends it in any case. One task iterates at a time. A
    cancelled wait, also one by :func:`asyncio.timeout`, loses no event: the next one goes on where it stopped.
    """

    def __init__(
        self, link: Link, begin: Callable[[int], Awaitable[_native.Subscription]], what: str
    ) -> None:
        self._link = link
        self._begin = begin
        self._what = what
        self._number = link.number()
        self._native: _native.Subscription | None = None
        self._closed = False
        self._streak = 0

    def __repr__(self) -> str:
        return f"<Subscription to {self._what}>"

    async def _open(self) -> _native.Subscription:
        native = await self._begin(self._number)
        self._native = native
        if self._closed:
            native.close()
        else:
            self._link.subscriptions.add(native)
        return native

    async def __aenter__(self) -> Self:
        if self._native is None:
            await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _native.Event:
        native = self._native
        if native is None:
            if self._closed:
                raise StopAsyncIteration
            native = await self._open()
        # What `check` would find, without its call: this is done for each event.
        link = self._link
        if link.forked or (link.loop is not get_running_loop() and not link.closed):
            link.check()
        # Before anything is taken: this can be cancelled, too.
        if self._streak >= _IN_A_ROW:
            self._streak = 0
            await sleep(0)
        while (event := native.look()) is None:
            self._streak = 0
            await link.wait(self._number)
        self._streak += 1
        return event

    @property
    def position(self) -> Position | None:
        """Where it stands: after the last event that was yielded. None before it has begun, and of all rooms."""
        kept = self._native.position() if self._native is not None else None
        return None if kept is None else Position.from_dict(json.loads(kept))

    async def aclose(self) -> None:
        """Ends it. Whoever waits for its next event is told that there is none."""
        self._closed = True
        if self._native is not None:
            self._native.close()
            self._link.subscriptions.discard(self._native)
            self._link.wake(self._number)
