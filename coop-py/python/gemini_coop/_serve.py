"""The HTTP and WebSocket server, with its web client, on an engine's own threads."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from . import _native
from ._bridge import Link


class Server:
    """A server: made by :func:`serve`, which see."""

    def __init__(self, link: Link, settings: dict[str, Any]) -> None:
        self._link = link
        self._settings = settings
        self._native: _native.Server | None = None
        self._ended: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Server {self.url}>" if self._native is not None else "<Server that has not begun>"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._begun().address[1]

    @property
    def url(self) -> str:
        """Its address, such as ``http://127.0.0.1:8000``."""
        host, port = self._begun().address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _begun(self) -> _native.Server:
        if self._native is None:
            raise RuntimeError(
                "the server has not begun: use it inside `async with coop.serve(...) as server`"
            )
        return self._native

    async def _begin(self) -> _native.Server:
        if self._native is not None:
            raise RuntimeError("this server has begun already: call coop.serve() for another")
        native: _native.Server = await self._link.call(self._link.native.serve, self._settings)
        self._native = native
        self._ended = asyncio.ensure_future(self._link.call_unchecked(native.ended))
        self._link.servers.add(self)
        return native

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __await__(self) -> Generator[Any, None, None]:
        return self._run().__await__()

    async def _run(self) -> None:
        native = await self._begin()
        assert self._ended is not None
        try:
            with _until_told(self._link.loop, native.begin_stop):
                await asyncio.shield(self._ended)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Ends it in order: requests get their answers, sockets are told to come back later and closed."""
        self._link.servers.discard(self)
        if self._native is not None and self._ended is not None:
            self._native.begin_stop()
            await asyncio.shield(self._ended)


@contextlib.contextmanager
def _until_told(loop: asyncio.AbstractEventLoop, stop: Any) -> Generator[None]:
    """Ctrl-C and SIGTERM end the server in order, as far as they are this thread's to handle. A second one is as ever."""
    previous: dict[signal.Signals, Any] = {}

    def told(number: signal.Signals) -> None:
        restore(number)
        stop()

    def restore(number: signal.Signals) -> None:
        if number in previous:
            loop.remove_signal_handler(number)
            signal.signal(number, previous.pop(number))

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            with contextlib.suppress(NotImplementedError, RuntimeError):
                loop.add_signal_handler(number, told, number)
                previous[number] = before if before is not None else signal.SIG_DFL
    try:
        yield
    finally:
        for number in list(previous):
            restore(number)


def settings(
    *,
    host: str,
    port: int,
    secret: str | bytes | None,
    registration: bool,
    web: bool,
    cors_origins: Iterable[str],
    trusted_proxies: Iterable[str],
    token_ttl: float,
    limits: Mapping[str, str] | Literal["off"] | None,
) -> dict[str, Any]:
    """What the extension wants to know."""
    return {
        "host": host,
        "port": port,
        "secret": secret.decode() if isinstance(secret, bytes) else secret,
        "registration": registration,
        "web": web,
        "cors_origins": list(cors_origins),
        "trusted_proxies": list(trusted_proxies),
        "token_ttl": token_ttl,
        "limits": None if limits == "off" else list((limits or {}).items()),
    }
