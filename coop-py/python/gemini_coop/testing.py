"""For tests of what is built on this package: an engine in memory, and bots as plain functions.

>>> import asyncio
>>> async def shout(turn):
...     for word in turn.prompt.split():
...         yield word.upper()
>>> async def pieces():
...     return [piece async for piece in shout(coop.testing.turn("how are you?"))]
>>> asyncio.run(pieces())
['HOW', 'ARE', 'YOU?']
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from ._bots import Context, ContextTurn, Turn
from ._engine import AnyBot, Opening
from ._native import Author

__all__ = ["engine", "turn"]


def engine(*, bots: Iterable[AnyBot] = ()) -> Opening:
    """An engine in memory, gone when it is closed: ``async with testing.engine() as engine``."""
    return Opening(":memory:", bots, None, True)


def turn(
    prompt: str,
    *,
    asked_by: str = "somebody",
    bot: str = "bot",
    system: str = "",
    before: Iterable[tuple[str, str]] = (),
    timeout: float = 600.0,
) -> Turn:
    """A turn with this prompt, to call a bot with. ``before`` is what was said, as pairs of a side (``user`` or ``model``)
    and a text; the prompt comes after it."""
    said = [ContextTurn(side, (text,)) for side, text in before]
    said.append(ContextTurn("user", (prompt,)))
    return Turn(
        prompt=prompt,
        asked_by=Author(asked_by, user=1),
        context=Context(system=system, turns=tuple(said)),
        bot=bot,
        id=1,
        room=1,
        ask=1,
        deadline=datetime.now(UTC) + timedelta(seconds=timeout),
    )
