"""Users, rooms and turns: everything a person may do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import _native
from ._bots import Bots
from ._bridge import Link, told_blocked
from ._errors import BadRequestError, NotFoundError, of_bot
from ._native import Account, Member, Message, RoomEntry, TurnEnd, TurnInfo
from ._subscription import Position, Subscription


class _Engine:
    """What every handle has of its engine."""

    __slots__ = ("bots", "link")

    def __init__(self, link: Link, bots: Bots) -> None:
        self.link = link
        self.bots = bots


def _message_id(message: Message | int) -> int:
    return message.id if isinstance(message, Message) else message


class User:
    """A user who acts. Made by :meth:`Engine.create_user` and its like."""

    __slots__ = ("_engine", "_native", "id", "name")

    def __init__(self, engine: _Engine, native: _native.User) -> None:
        self._engine = engine
        self._native = native
        #: Their id.
        self.id: int = native.id
        #: Their name.
        self.name: str = native.name

    def __repr__(self) -> str:
        return f"<User {self.id} {self.name!r}>"

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, User) and other._engine is self._engine and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    async def create_room(
        self, name: str | None = None, *, members: Iterable[User] = (), ai_chat: bool = False
    ) -> Room:
        """Makes a room and becomes its owner. Without a name it is called after its members. In an AI chat every message
        of a lone member asks the default bot.

        >>> den = await alice.create_room("den", members=[bob])
        >>> (await den.entry()).role
        'owner'

        :raises BadRequestError: for a malformed name.
        """
        natives = [member._native for member in members]
        native = await self._engine.link.call(self._native.create_room, name, natives, ai_chat)
        return Room(self._engine, native)

    async def room(self, room: int) -> Room:
        """One of their rooms, by its id.

        :raises NotFoundError: for a room they are not in, whether or not it exists.
        """
        return Room(self._engine, await self._engine.link.call(self._native.room, room))

    async def rooms(self) -> list[RoomEntry]:
        """Their rooms, newest activity first."""
        rooms: list[RoomEntry] = await self._engine.link.call(self._native.rooms)
        return rooms

    async def search(self, text: str, limit: int = 20) -> list[Account]:
        """Users whose name contains this text, without oneself."""
        found: list[Account] = await self._engine.link.call(self._native.search, text, limit)
        return found

    async def set_password(self, password: str) -> None:
        """Gives them another password, and logs them out everywhere.

        :raises BadRequestError: for a password that breaks the rules (8 to 128 characters, not the name).
        """
        await self._engine.link.call(self._native.set_password, password)

    def subscribe(self) -> Subscription:
        """Everything that happens in all their rooms, those they gain included: without deltas and other fleeting things. It
        begins with a :class:`RoomGained` for each room.

        >>> async with bob.subscribe() as events:
        ...     (await anext(events)).entry.name
        'lab'
        """
        link = self._engine.link
        link.check()

        async def begin(number: int) -> _native.Subscription:
            made: _native.Subscription = await link.call(self._native.subscribe, number)
            return made

        return Subscription(link, begin, f"all rooms of {self.name}")


@dataclass(frozen=True, slots=True)
class Sent:
    """What :meth:`Room.send` has done."""

    #: The message, on disk.
    message: Message
    #: The turn of the first bot it asks, if it asks one.
    turn: TurnHandle | None
    #: The turns of all bots it asks.
    turns: tuple[TurnHandle, ...]
    #: Whether it had been sent before with the same ``client_id``.
    duplicate: bool


class TurnHandle:
    """A turn that was asked for. Awaiting it gives its end; to stop waiting does not stop the bot.

    >>> turn = (await room.send("/echo Hello!")).turn
    >>> (await turn).status
    'done'
    """

    __slots__ = ("_engine", "_native", "bot", "id")

    def __init__(self, engine: _Engine, native: _native.Turn) -> None:
        self._engine = engine
        self._native = native
        #: Its id.
        self.id: int = native.id
        #: The bot's handle.
        self.bot: str = native.bot

    def __repr__(self) -> str:
        return f"<TurnHandle {self.id} of {self.bot!r}>"

    def __await__(self) -> Generator[Any, None, TurnEnd]:
        return self._ended().__await__()

    async def _ended(self) -> TurnEnd:
        end: TurnEnd = await self._engine.link.call(self._native.ended)
        return end

    async def stop(self) -> None:
        """Ends it for everyone, also if it still waits; the text so far is kept.

        :raises ForbiddenError: if the room leaves that to others.
        """
        await self._engine.link.call(self._native.stop)

    async def info(self) -> TurnInfo:
        """Where it stands."""
        info: TurnInfo = await self._engine.link.call(self._native.info)
        return info


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """How bots are asked and governed in a room."""

    #: What every bot of the room is told.
    system: str = ""
    #: The bot that ``/bot`` asks; the engine's first if there is none.
    default_bot: str | None = None
    #: ``queue``, or ``interrupt``: what becomes of an ask while the bot is answering another.
    policy: str = "queue"
    #: ``anyone``, ``asker`` or ``owner``.
    who_may_stop: str = "anyone"
    #: Whether an answer that names another bot asks it.
    bots_ask_bots: bool = False


class Room:
    """A room as one member sees it. What they may do there is checked with each call."""

    __slots__ = ("_engine", "_native", "id")

    def __init__(self, engine: _Engine, native: _native.Room) -> None:
        self._engine = engine
        self._native = native
        #: Its id.
        self.id: int = native.id

    def __repr__(self) -> str:
        return f"<Room {self.id}>"

    # Saying things.

    async def send(
        self,
        text: str,
        *,
        client_id: str | None = None,
        reply_to: Message | int | None = None,
        meta: Mapping[str, Any] | None = None,
        ask: bool = True,
    ) -> Sent:
        """Says something, and asks the bots it addresses (``/name`` at the start, ``@name`` anywhere) unless ``ask`` is
        false. When this returns the message is on disk.

        With a ``client_id`` it can be sent again without doubling: the same id is the same message, for ever. ``meta`` is
        a mapping of JSON, up to 4 KiB, that goes with it.

        >>> sent = await room.send("Hello!", client_id="c1", meta={"mood": "good"})
        >>> again = await room.send("Hello!", client_id="c1", meta={"mood": "good"})
        >>> (again.duplicate, again.message == sent.message)
        (True, True)

        :raises BadRequestError: for a blank text.
        :raises TooLargeError: over 64 KiB.
        :raises ConflictError: if the ``client_id`` was used with another text.
        :raises UnavailableError: if it is not certain whether it was sent.
        """
        answers = None if reply_to is None else _message_id(reply_to)
        attached = None if meta is None else json.dumps(dict(meta), ensure_ascii=False, allow_nan=False)
        message, natives, duplicate = await self._engine.link.call(
            self._native.send, text, client_id, answers, attached, not ask
        )
        turns = tuple(TurnHandle(self._engine, native) for native in natives)
        return Sent(message, turns[0] if turns else None, turns, duplicate)

    async def ask(self, bot: str, prompt: str) -> Message:
        """Asks a bot and waits for its answer, which everybody sees grow meanwhile. To stop waiting does not stop the bot.

        An answer that was stopped or interrupted is returned as far as it was written; its ``status`` tells.

        >>> answer = await room.ask("echo", "Hello!")
        >>> print(f"{answer.author}: {answer.text}")
        echo: Hello!

        :raises NotFoundError: if there is no such bot.
        :raises BotError: if the bot fails, or may not begin. A Python bot's own exception is its ``__cause__``.
        """
        link = self._engine.link
        link.check()
        if bot not in (there := link.native.bots()):
            raise NotFoundError(f"no bot is called {bot!r}: the engine has {', '.join(there) or 'none'}")
        began = link.loop.time()
        sent = await self.send(f"/{bot} {prompt}")
        turn = next((turn for turn in sent.turns if turn.bot == bot), None)
        if turn is None:
            raise BadRequestError(f"{prompt!r} asks nothing of {bot!r}")
        end = await turn
        info = await turn.info()
        message = None if info.message is None else await self.message(info.message)
        if message is None or end.status == "failed":
            error = of_bot(end.error_code or "internal", end.error or "The bot failed.")
            error.message = message
            if isinstance(error, TimeoutError) and link.blocked is not None and link.blocked[0] >= began:
                error.add_note(told_blocked(link.blocked[1]))
            raise error from self._engine.bots.failure(turn.id)
        return message

    async def edit(self, message: Message | int, text: str) -> Message:
        """Changes the text of one's own message."""
        edited: Message = await self._engine.link.call(self._native.edit, _message_id(message), text)
        return edited

    async def delete(self, message: Message | int) -> None:
        """Deletes a message, one's own or, as the owner, any. An answer that is being written is stopped first."""
        await self._engine.link.call(self._native.delete, _message_id(message))

    async def set_typing(self) -> None:
        """Tells the others that one is writing."""
        await self._engine.link.call(self._native.typing)

    async def set_presence(self, here: bool) -> None:
        """Tells the others that one has opened or closed the room."""
        await self._engine.link.call(self._native.presence, here)

    # Reading.

    def subscribe(self, after: Position | int | None = None) -> Subscription:
        """Everything that happens here, after a :class:`Snapshot` of what is.

        After a position (:attr:`Subscription.position`, or the ``seq`` of an event) it takes up from there: the events since
        and the rest of each open answer, or a snapshot if that is too long ago.

        >>> async with room.subscribe() as events:
        ...     sent = await room.send("/echo Hello!")
        ...     async for event in events:
        ...         match event:
        ...             case coop.MessagePosted(message=message): print(f"{message.author}: {message.text}")
        ...             case coop.Delta(text=text): print(text)
        ...             case coop.TurnEnded(status=status): print(f"[{status}]"); break
        alice: /echo Hello!
        Hello!
        [done]
        >>> async with room.subscribe(after=events.position) as events:
        ...     sent = await room.send("and on")
        ...     print((await anext(events)).message.text)
        and on
        """
        link = self._engine.link
        link.check()
        position = json.dumps(after.to_dict()) if isinstance(after, Position) else None
        seq = after if isinstance(after, int) else None

        async def begin(number: int) -> _native.Subscription:
            made: _native.Subscription = await link.call(self._native.subscribe, number, position, seq)
            return made

        return Subscription(link, begin, f"room {self.id}")

    async def message(self, message: int) -> Message:
        """One message. An answer that is being written has its text so far."""
        found: Message = await self._engine.link.call(self._native.message, message)
        return found

    async def history(
        self, limit: int = 50, before: Message | int | None = None, after: Message | int | None = None
    ) -> list[Message]:
        """The newest messages, or those before or after a message or a ``seq``: oldest first, up to 200.

        >>> for text in ("one", "two", "three"):
        ...     sent = await room.send(text)
        >>> newest = await room.history(limit=2)
        >>> before = await room.history(limit=2, before=newest[0])
        >>> [message.text for message in before + newest]
        ['one', 'two', 'three']
        """
        messages, _ = await self._page(limit, before, after)
        return messages

    async def _page(
        self, limit: int, before: Message | int | None, after: Message | int | None
    ) -> tuple[list[Message], bool]:
        below, above = (
            message.seq if isinstance(message, Message) else message for message in (before, after)
        )
        page: tuple[list[Message], bool] = await self._engine.link.call(
            self._native.history, limit, below, above
        )
        return page

    async def iter_history(self, *, newest_first: bool = False) -> AsyncIterator[Message]:
        """All messages, page by page.

        >>> sent = await room.send("Hello!")
        >>> [message.to_dict()["text"] async for message in room.iter_history()]
        ['Hello!']
        """
        edge, more = (None, True) if newest_first else (0, True)
        while more:
            before, after = (edge, None) if newest_first else (None, edge)
            messages, more = await self._page(200, before, after)
            for message in reversed(messages) if newest_first else messages:
                yield message
                edge = message.seq

    async def search(self, text: str, limit: int = 50, before: Message | int | None = None) -> list[Message]:
        """Messages that have all words of a text, or words that begin so: the newest, oldest first.

        >>> sent = await room.send("The migration is done.")
        >>> [message.text for message in await room.search("migra DONE")]
        ['The migration is done.']
        """
        below = before.seq if isinstance(before, Message) else before
        messages, _ = await self._engine.link.call(self._native.search, text, limit, below)
        found: list[Message] = messages
        return found

    async def mark_read(self, up_to: Message | int | None = None) -> None:
        """Says that everything up to a message or a ``seq`` has been read, or everything there is."""
        seq = up_to.seq if isinstance(up_to, Message) else up_to
        await self._engine.link.call(self._native.mark_read, seq)

    async def entry(self) -> RoomEntry:
        """The room as in one's list: its name, one's role, what is unread."""
        entry: RoomEntry = await self._engine.link.call(self._native.entry)
        return entry

    # Bots.

    async def turns(self) -> list[TurnInfo]:
        """The turns that have not ended, the oldest first."""
        turns: list[TurnInfo] = await self._engine.link.call(self._native.turns)
        return turns

    async def stop(self, turn: TurnHandle | TurnInfo | Message | int) -> None:
        """Ends a turn for everyone: by itself, by its id, or by its answer. No effect on one that has ended."""
        if isinstance(turn, Message):
            await self._engine.link.call(self._native.stop_answer, turn.id)
        else:
            await self._engine.link.call(self._native.stop, turn if isinstance(turn, int) else turn.id)

    async def retry(self, turn: TurnHandle | TurnInfo | Message | int) -> TurnHandle:
        """Asks the same again: a new turn of the same bot for the same ask."""
        if isinstance(turn, Message):
            native = await self._engine.link.call(self._native.retry_answer, turn.id)
        else:
            native = await self._engine.link.call(
                self._native.retry, turn if isinstance(turn, int) else turn.id
            )
        return TurnHandle(self._engine, native)

    async def settings(self) -> RoomSettings:
        """How bots are asked and governed here."""
        return RoomSettings(**json.loads(await self._engine.link.call(self._native.settings)))

    async def configure(self, **changes: Any) -> RoomSettings:
        """Changes some of the :class:`RoomSettings`. Only the owner may.

        >>> (await room.configure(who_may_stop="asker")).who_may_stop
        'asker'
        """
        kept = await self._engine.link.call(self._native.configure, json.dumps(changes))
        return RoomSettings(**json.loads(kept))

    # Members.

    async def members(self) -> list[Member]:
        """Everybody in it, in the order of joining."""
        members: list[Member] = await self._engine.link.call(self._native.members)
        return members

    async def invite(self, user: User) -> None:
        """Makes somebody a member. Any member may.

        >>> carol = await engine.create_user("carol")
        >>> await room.invite(carol)
        >>> [member.name for member in await room.members()]
        ['alice', 'bob', 'carol']
        """
        await self._engine.link.call(self._native.invite, user._native)

    async def remove(self, user: User | Member | int) -> None:
        """Takes another's membership away. Only the owner may."""
        await self._engine.link.call(self._native.remove, _user_id(user))

    async def leave(self) -> None:
        """Gives up one's own membership. The owner hands the room over first, or deletes it."""
        await self._engine.link.call(self._native.leave)

    async def rename(self, name: str) -> None:
        """Gives the room another name. Only the owner may."""
        await self._engine.link.call(self._native.rename, name)

    async def hand_over(self, to: User | Member | int) -> None:
        """Makes another member the owner. Only the owner may."""
        await self._engine.link.call(self._native.hand_over, _user_id(to))

    async def delete_room(self) -> None:
        """Deletes the room with everything in it. Only the owner may."""
        await self._engine.link.call(self._native.delete_room)


def _user_id(user: User | Member | int) -> int:
    if isinstance(user, User):
        return user.id
    return user.user if isinstance(user, Member) else user
