"""The engine: opened, given bots, asked for users, and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from ._bots import Bot, BotFunction, Bots, BotSettings, BuiltinBot, check_function
from ._bridge import Link
from ._rooms import User, _Engine
from ._serve import Server, settings

_F = TypeVar("_F", bound=BotFunction)

#: What is accepted as a bot: an object with `name` and `reply`, or a built-in one.
AnyBot = Bot | BuiltinBot


@dataclass(frozen=True, slots=True)
class Stats:
    """What an engine is busy with."""

    #: Calls that are under way.
    calls: int
    #: Subscriptions that are open.
    subscriptions: int
    #: Turns that Python bots are answering.
    turns: int
    #: Rooms that are in memory.
    rooms: int
    #: The handles of the bots; the first is the default.
    bots: tuple[str, ...]
    #: ``up`` or ``down``, or None without a bus.
    bus: str | None


class Engine:
    """Owns the rooms of one database. Made by :func:`open`.

    It belongs to the event loop that opened it. Everything else here is called from there.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._bots = Bots(link)
        self._shared = _Engine(link, self._bots)
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return (
            "<Engine, closed>"
            if self._link.closed
            else f"<Engine with {', '.join(self._link.native.bots()) or 'no bots'}>"
        )

    # Users.

    async def create_user(self, name: str) -> User:
        """Makes a user who logs in elsewhere, if at all.

        >>> await engine.create_user("Carol")
        <User 3 'carol'>

        :raises BadRequestError: for a malformed or reserved name.
        :raises ConflictError: for one that is taken.
        """
        return User(self._shared, await self._link.call(self._link.native.create_user, name))

    async def register(self, name: str, email: str, password: str) -> User:
        """Makes a user with an e-mail address and a password, as the web client does."""
        return User(self._shared, await self._link.call(self._link.native.register, name, email, password))

    async def user(self, id: int) -> User:
        """The user of this id, who is authenticated by nobody but you.

        :raises NotFoundError: if there is none.
        """
        return User(self._shared, await self._link.call(self._link.native.user, id))

    async def find_user(self, name: str) -> User:
        """The user of this name.

        :raises NotFoundError: if there is none.
        """
        return User(self._shared, await self._link.call(self._link.native.find_user, name))

    async def authenticate(self, name: str, password: str) -> User:
        """The user of this name, if this is their password.

        :raises UnauthorizedError: if it is not, or there is no such user.
        """
        return User(self._shared, await self._link.call(self._link.native.authenticate, name, password))

    # Bots.

    @overload
    def bot(
        self,
        handle: str,
        function: None = None,
        *,
        name: str | None = ...,
        about: str | None = ...,
        system: str = ...,
        context_messages: int = ...,
        context_tokens: int = ...,
        max_bytes: int = ...,
        timeout: float = ...,
        metered: bool = ...,
    ) -> Callable[[_F], _F]: ...

    @overload
    def bot(
        self,
        handle: str,
        function: _F,
        *,
        name: str | None = ...,
        about: str | None = ...,
        system: str = ...,
        context_messages: int = ...,
        context_tokens: int = ...,
        max_bytes: int = ...,
        timeout: float = ...,
        metered: bool = ...,
    ) -> _F: ...

    def bot(self, handle: str, function: _F | None = None, **profile: Any) -> Callable[[_F], _F] | _F:
        """Adds a bot, as a decorator or a call: an ``async def`` that yields its answer in pieces, or returns it whole.

        It is asked by ``/handle`` and ``@handle``. The keywords are those of :class:`BotSettings`. Stopping a turn raises
        ``CancelledError`` at the bot's current ``await``.

        >>> @engine.bot("shout", about="I shout.")
        ... async def shout(turn):
        ...     for word in turn.prompt.split():
        ...         yield word.upper() + " "
        >>> (await room.ask("shout", "how are you?")).text
        'HOW ARE YOU? '

        :raises TypeError: for a plain function.
        :raises BadRequestError: for a malformed handle.
        :raises ConflictError: for one that is taken.
        """
        self._link.check()
        own = BotSettings(**profile)

        def add(function: _F) -> _F:
            self._link.check()
            check_function(handle, function)
            self._bots.add(handle, function, own)
            return function

        return add if function is None else add(function)

    def add_bot(self, bot: AnyBot) -> None:
        """Adds a bot that is an object with ``name`` and ``reply(turn)``, and perhaps ``settings``, or a built-in one. The
        first bot that is added is the one that ``/bot`` and AI chats ask.

        >>> class Polite:
        ...     name = "polite"
        ...     async def reply(self, turn):
        ...         return f"Thank you, {turn.asked_by}."
        >>> engine.add_bot(Polite())
        >>> (await room.ask("polite", "Hello!")).text
        'Thank you, alice.'
        """
        self._link.check()
        if isinstance(bot, BuiltinBot):
            self._link.native.add_builtin_bot(bot._native)
            return
        name = getattr(bot, "name", None)
        if not isinstance(name, str) or not hasattr(bot, "reply"):
            raise TypeError(
                f"{type(bot).__name__} is no bot: it needs a `name` and an `async def reply(self, turn)`; a function is"
                " added by `engine.bot(name, function)`"
            )
        own = getattr(bot, "settings", None)
        check_function(name, bot.reply)
        self._bots.add(name, bot.reply, own if isinstance(own, BotSettings) else BotSettings())

    # The engine itself.

    def stats(self) -> Stats:
        """What it is busy with."""
        self._link.check()
        native = self._link.native
        up = native.bus_is_up()
        return Stats(
            calls=self._link.calls,
            subscriptions=len(self._link.subscriptions),
            turns=self._bots.running,
            rooms=native.rooms_in_memory(),
            bots=tuple(native.bots()),
            bus=None if up is None else "up" if up else "down",
        )

    async def aclose(self, grace: float = 5.0) -> None:
        """Closes it: answers go on for ``grace`` seconds, and what is said then is on disk. What still waits for something
        is told that the engine is closed. Closing again does nothing."""
        if self._link.closed:
            return
        self._link.check()
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(grace))
        # Who gives up waiting does not leave it half closed.
        await asyncio.shield(self._closing)

    async def _close(self, grace: float) -> None:
        for server in list(self._link.servers):
            await server.aclose()
        try:
            await self._link.call_unchecked(self._link.native.close, grace)
            await self._bots.close()
        finally:
            self._link.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Opening:
    """An engine that is about to be opened: await it, or enter it by ``async with``."""

    def __init__(self, url: str, bots: Iterable[AnyBot], bus: str | None, migrate: bool) -> None:
        self._url = url
        self._added = list(bots)
        self._bus = bus
        self._migrate = migrate
        self._engine: Engine | None = None

    async def _open(self) -> Engine:
        link = Link()
        try:
            await link.call(link.native.connect, _address(self._url), self._bus, self._migrate)
            engine = Engine(link)
            for bot in self._added:
                engine.add_bot(bot)
        except BaseException:
            link.end()
            raise
        return engine

    def __await__(self) -> Generator[Any, None, Engine]:
        return self._open().__await__()

    async def __aenter__(self) -> Engine:
        self._engine = await self._open()
        return self._engine

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._engine is not None:
            await self._engine.aclose()


def _address(url: str) -> str:
    """A database's address from what is short for one."""
    if url.startswith(("sqlite:", "postgres://", "postgresql://")):
        return url
    if "://" in url:
        # Not a file of that strange name: the extension says which addresses there are.
        return url
    return f"sqlite:{url}"


def open(
    url: str = ":memory:", *, bots: Iterable[AnyBot] = (), bus: str | None = None, migrate: bool = True
) -> Opening:
    """Opens an engine: ``async with coop.open("chat.db") as engine``, or ``engine = await coop.open("chat.db")``.

    >>> async with coop.open(":memory:", bots=[coop.MockBot("parrot", echo=True)]) as engine:
    ...     engine.stats().bots
    ('parrot',)

    :param url: ``:memory:``, the path of an SQLite file, or ``postgres://user:password@host/name``.
    :param bots: Bots to begin with; the first is the one that ``/bot`` and AI chats ask.
    :param bus: ``redis://host``, by which several engines on one PostgreSQL hear of each other at once.
    :param migrate: Whether the schema may be brought up to date. If not, one that is older is an error.
    :raises InUseError: if another engine has the file.
    :raises NotADatabaseError: if it is something else.
    """
    return Opening(url, bots, bus, migrate)


def serve(
    engine: Engine,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    secret: str | bytes | None = None,
    registration: bool = True,
    web: bool = True,
    cors_origins: Iterable[str] = (),
    trusted_proxies: Iterable[str] = (),
    token_ttl: float = 86_400.0,
    limits: Mapping[str, str] | Literal["off"] | None = None,
) -> Server:
    """Serves an engine to browsers: HTTP, WebSocket and the web client.

    ``await coop.serve(engine)`` runs until it is cancelled or the program is told to end (Ctrl-C, SIGTERM), and then ends in
    order. ``async with coop.serve(engine, port=0) as server`` runs beside what is inside; ``server.url`` tells where.

    >>> async with coop.serve(engine, port=0) as server:
    ...     print(server.url)
    http://127.0.0.1:...

    :param secret: What signs the tokens, at least 32 bytes. Without one, everybody logs in again after a restart.
    :param registration: Whether anybody may make an account.
    :param web: Whether the web client is at ``/``.
    :param cors_origins: Pages of these origins may call.
    :param trusted_proxies: Proxies, as addresses or blocks of them, whose ``X-Forwarded-For`` is believed.
    :param token_ttl: How long a token is good, in seconds.
    :param limits: Limits by name as ``coop-server`` has them (``{"messages_per_socket": "5/1s burst 10"}``), or ``"off"``.
    :raises OSError: if it cannot listen there.
    """
    engine._link.check()
    return Server(
        engine._link,
        settings(
            host=host,
            port=port,
            secret=secret,
            registration=registration,
            web=web,
            cors_origins=cors_origins,
            trusted_proxies=trusted_proxies,
            token_ttl=token_ttl,
            limits=limits,
        ),
    )
