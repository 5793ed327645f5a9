"""What the way between an engine's threads and Python costs, beside the same over the WebSocket with `websockets`.

    python bridge.py [--quick] [events] [burst] [calls] [serve]

Run it with the wheel installed and `websockets` beside it. Each figure is of this one run: compare figures of one run only.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import gemini_coop as coop
from websockets.asyncio.client import ClientConnection, connect

QUICK = "--quick" in sys.argv
READERS = 64
OTHER = "while another process computes"
BOT = "while a Python bot computes"


def say(what: str, figure: str) -> None:
    """One line of the report."""
    print(f"{what:<76} {figure:>16}", flush=True)


def cpu() -> float:
    """Seconds of CPU time that this process has used, all its threads together."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def room_of(engine: coop.Engine, readers: int) -> tuple[coop.Room, list[coop.Room]]:
    """A room, as its owner and as others see it."""
    alice = await engine.create_user("alice")
    others = [await engine.create_user(f"reader{number}") for number in range(readers)]
    room = await alice.create_room("lab", members=others)
    return room, [await other.room(room.id) for other in others]


async def read(events: coop.Subscription, messages: int) -> None:
    """Reads so many messages."""
    left = messages
    async for event in events:
        if isinstance(event, coop.MessagePosted):
            left -= 1
            if left == 0:
                return


async def events() -> None:
    """64 subscribers of one room: CPU time for each event that one of them is given."""
    messages = 100 if QUICK else 1_000
    async with coop.open() as engine:
        room, others = await room_of(engine, READERS)
        async with contextlib.AsyncExitStack() as stack:
            reading: list[asyncio.Task[None]] = []
            for other in others:
                subscription = await stack.enter_async_context(other.subscribe())
                await anext(subscription)
                reading.append(asyncio.create_task(read(subscription, messages)))
            before, loop = cpu(), time.thread_time()
            for number in range(messages):
                await room.send(f"message {number}")
            await asyncio.gather(*reading)
            whole, loop = cpu() - before, time.thread_time() - loop
    each = 1e6 / (messages * READERS)
    say(
        "64 subscribers in process: CPU an event, engine and all",
        f"{whole * each:.1f} µs",
    )
    say("  of that, the loop's thread", f"{loop * each:.1f} µs")

    async with serving() as (url, token):
        await over_websockets(url, token, messages)


@contextlib.asynccontextmanager
async def serving() -> AsyncGenerator[tuple[str, str]]:
    """A server in a process of its own, and the token of somebody there."""
    program = (
        "import asyncio, gemini_coop as coop\n"
        "async def main():\n"
        "    async with coop.open() as engine, coop.serve(engine, port=0, limits='off') as server:\n"
        "        print(server.url, flush=True)\n"
        "        await asyncio.to_thread(input)\n"
        "asyncio.run(main())\n"
    )
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=pipe, stdout=pipe)
    assert server.stdout is not None and server.stdin is not None
    url = (await server.stdout.readline()).decode().strip()
    yield url, await asyncio.to_thread(log_in, url)
    server.stdin.write(b"\n")
    await server.wait()


def call(url: str, body: dict[str, Any], token: str | None = None) -> dict[str, Any]:
    """What a POST of this is answered with."""
    head = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), head)
    with urllib.request.urlopen(request, timeout=60) as answer:
        made: dict[str, Any] = json.load(answer)
        return made


def log_in(url: str) -> str:
    """The token of a new account."""
    who = {
        "username": "carol",
        "email": "carol@example.org",
        "password": "correct horse",
    }
    call(url + "/api/auth/register", who)
    token: str = call(url + "/api/auth/login", who)["access_token"]
    return token


async def joined(url: str, token: str, room: int) -> ClientConnection:
    """A socket that has joined the room."""
    address = url.replace("http", "ws") + f"/ws?token={token}"
    protocols: Any = ["coop.v1"]
    socket = await connect(address, subprotocols=protocols, compression=None)
    await socket.recv()
    await socket.send(json.dumps({"type": "join", "room": room}))
    while json.loads(await socket.recv())["type"] != "snapshot":
        pass
    return socket


async def over_websockets(url: str, token: str, messages: int) -> None:
    """The same events as frames, read by `websockets` and `json`."""
    room = (await asyncio.to_thread(call, url + "/api/chats", {"name": "den"}, token))["id"]
    sockets = [await joined(url, token, room) for _ in range(READERS)]

    async def receive(socket: ClientConnection) -> None:
        left = messages
        while left:
            left -= json.loads(await socket.recv()).get("kind") == "message_posted"

    sender = await joined(url, token, room)
    before = cpu()
    reading = [asyncio.create_task(receive(socket)) for socket in sockets]
    for number in range(messages):
        await sender.send(
            json.dumps(
                {
                    "type": "send",
                    "room": room,
                    "text": f"message {number}",
                    "ref": number,
                }
            )
        )
        while json.loads(await sender.recv()).get("type") != "ok":
            pass
    await asyncio.gather(*reading)
    say(
        "64 sockets with `websockets`: CPU an event, client only",
        f"{(cpu() - before) * 1e6 / messages / READERS:.1f} µs",
    )
    for socket in (*sockets, sender):
        await socket.close()


async def burst() -> None:
    """One subscriber that finds events waiting for it: how many it takes a second."""
    rounds, each = (5, 200) if QUICK else (50, 200)
    took = 0.0
    async with coop.open() as engine:
        room, [reader] = await room_of(engine, 1)
        async with reader.subscribe() as subscription:
            await anext(subscription)
            for _ in range(rounds):
                await asyncio.gather(*(room.send("message") for _ in range(each)))
                await asyncio.sleep(0.02)
                began = time.perf_counter()
                await read(subscription, each)
                took += time.perf_counter() - began
    say("one subscriber, waiting events taken a second", f"{rounds * each / took:,.0f}")

    async with serving() as (url, token):
        room_id = (await asyncio.to_thread(call, url + "/api/chats", {"name": "den"}, token))["id"]
        socket, sender = [await joined(url, token, room_id) for _ in range(2)]
        took = 0.0
        for number in range(rounds):
            for _ in range(each):
                await sender.send(
                    json.dumps(
                        {
                            "type": "send",
                            "room": room_id,
                            "text": "message",
                            "ref": number,
                        }
                    )
                )
            heard = 0
            while heard < each:
                heard += json.loads(await sender.recv()).get("type") == "ok"
            await asyncio.sleep(0.02)
            began, left = time.perf_counter(), each
            while left:
                left -= json.loads(await socket.recv()).get("kind") == "message_posted"
            took += time.perf_counter() - began
        await socket.close()
        await sender.close()
    say(
        "one socket with `websockets`, waiting frames taken a second",
        f"{rounds * each / took:,.0f}",
    )


async def calls() -> None:
    """How many calls a second, one after another and 64 at once."""
    many = 500 if QUICK else 10_000
    async with coop.open() as engine:
        room, _ = await room_of(engine, 8)
        message = (await room.send("message")).message

        async def some(begin: Callable[[], Awaitable[object]], number: int) -> None:
            for _ in range(number):
                await begin()

        kinds: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("message()", lambda: room.message(message.id)),
            ("members() of 9", room.members),
            ("history() of 50", room.history),
            ("send()", lambda: room.send("message")),
        ]
        for name, begin in kinds:
            number = many // 5
            began = time.perf_counter()
            await some(begin, number)
            alone = number / (time.perf_counter() - began)
            began = time.perf_counter()
            await asyncio.gather(*(some(begin, many // 64) for _ in range(64)))
            together = many // 64 * 64 / (time.perf_counter() - began)
            say(
                f"{name} a second: one after another / 64 at once",
                f"{alone:,.0f} / {together:,.0f}",
            )


class Counter(asyncio.Protocol):
    """A socket that counts messages by a word in their frames: a client that costs little."""

    def __init__(self, request: bytes, done: asyncio.Semaphore) -> None:
        self.request, self.done, self.got = request, done, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks for a WebSocket."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Counts. A word that is cut in two is not counted, so nobody waits for the last ones."""
        self.got += data.count(b'"message_posted"')
        self.done.release()


async def fan_out(url: str, token: str, room: int, sockets: int, messages: int) -> float:
    """Deliveries a second of messages that one sends and so many sockets hear."""
    host, port = url.removeprefix("http://").split(":")
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET /ws?token={token} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\nsec-websocket-protocol: coop.v1\r\n\r\n"
    )
    loop, done = asyncio.get_running_loop(), asyncio.Semaphore(0)
    made = [
        await loop.create_connection(lambda: Counter(head.encode(), done), host, int(port))
        for _ in range(sockets)
    ]
    counters = [counter for _, counter in made]
    sender = await joined(url, token, room)
    await asyncio.sleep(1)
    before = sum(counter.got for counter in counters)
    began = last = time.perf_counter()
    for number in range(messages):
        await sender.send(
            json.dumps(
                {
                    "type": "send",
                    "room": room,
                    "text": f"message {number}",
                    "ref": number,
                }
            )
        )
    wanted, got, seen = messages * sockets, 0, -1
    while got < wanted and time.perf_counter() - last < 2:
        await asyncio.sleep(0.01)
        got = sum(counter.got for counter in counters) - before
        if got != seen:
            seen, last = got, time.perf_counter()
    await sender.close()
    for transport, _ in made:
        transport.close()
    return got / (last - began)


async def serve() -> None:
    """1,000 sockets on an engine whose Python bot computes in slices of 50 ms, beside the same without, and beside another
    process that takes as much of the machine."""
    if "--client" in sys.argv:
        url, token, room = sys.argv[sys.argv.index("--client") + 1 :][:3]
        print(await fan_out(url, token, int(room), 100 if QUICK else 1_000, 20 if QUICK else 200))
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    computing = False
    async with (
        coop.open() as engine,
        coop.serve(engine, port=0, limits="off") as server,
    ):

        @engine.bot("computes", max_bytes=1 << 30)
        async def bot(turn: coop.Turn) -> AsyncIterator[str]:
            while computing:
                end = time.monotonic() + 0.05
                while time.monotonic() < end:
                    pass
                yield "."
                await asyncio.sleep(0)

        token = await asyncio.to_thread(log_in, server.url)
        den = (await asyncio.to_thread(call, server.url + "/api/chats", {"name": "den"}, token))["id"]
        lab = await (await engine.create_user("alice")).create_room("lab")
        rates: dict[str, list[float]] = {"beside nothing": [], OTHER: [], BOT: []}
        for _ in range(1 if QUICK else 3):
            for beside, of in rates.items():
                computing = beside == BOT
                turn = (await lab.send("/computes x")).turn
                busy = [sys.executable, "-c", "while True: pass" if beside == OTHER else "pass"]
                other = await asyncio.create_subprocess_exec(*busy)
                program = [sys.executable, __file__, "serve", "--client", server.url, token, str(den)]
                program += ["--quick"] if QUICK else []
                client = await asyncio.create_subprocess_exec(*program, stdout=subprocess.PIPE)
                out, _ = await client.communicate()
                of.append(float(out))
                if turn is not None:
                    await turn.stop()
                if other.returncode is None:
                    other.kill()
                await other.wait()
        for beside, of in rates.items():
            say(f"1,000 sockets served {beside}: deliveries a second", f"{sorted(of)[len(of) // 2]:,.0f}")


async def main() -> None:
    """Those that are named, or all."""
    wheels = sorted(Path(__file__).parent.parent.parent.glob("target/wheels/*.whl"))
    parts = {"events": events, "burst": burst, "calls": calls, "serve": serve}
    named = [word for word in sys.argv[1:] if word in parts]
    for name in named or parts:
        await parts[name]()
    if not named and wheels:
        say("the wheel", f"{wheels[-1].stat().st_size / 1e6:.1f} MB")


asyncio.run(main())
