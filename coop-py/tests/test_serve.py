"""The server on an engine of a script's."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gemini_coop as coop
import pytest
from conftest import Lab


def get(url: str, **body: str) -> tuple[int, str]:
    """What is answered to a GET, or to a POST of this body."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


async def test_a_script_and_a_browser_share_a_room(lab: Lab) -> None:
    async with coop.serve(lab.engine, port=0) as server:
        assert (await asyncio.to_thread(get, server.url))[0] == 200, "the web client"
        assert await asyncio.to_thread(get, server.url + "/health") == (200, '{"status":"healthy"}')
        made, _ = await asyncio.to_thread(
            get,
            server.url + "/api/auth/register",
            username="carol",
            email="carol@example.org",
            password="correct horse",
        )
        assert made == 200
        assert (await lab.engine.find_user("carol")).name == "carol"
        assert "127.0.0.1" in repr(server)
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(get, server.url)
    assert (await lab.room.send("the engine goes on")).message.seq > 0


async def test_settings_are_heeded(lab: Lab) -> None:
    settings: dict[str, Any] = {
        "web": False,
        "registration": False,
        "secret": b"x" * 32,
        "limits": {"asks_in_flight": "1"},
    }
    async with coop.serve(lab.engine, port=0, cors_origins=["https://example.org"], **settings) as server:
        assert (await asyncio.to_thread(get, server.url))[0] == 404
        refused, _ = await asyncio.to_thread(
            get,
            server.url + "/api/auth/register",
            username="carol",
            email="carol@example.org",
            password="correct horse",
        )
        assert refused == 403
    wrongs: list[dict[str, Any]] = [
        {"secret": "short"},
        {"limits": {"no_such": "1"}},
        {"limits": {"asks_in_flight": "many"}},
        {"token_ttl": -1.0},
        {"trusted_proxies": ["nowhere"]},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError):
            async with coop.serve(lab.engine, port=0, **wrong):
                pass


async def test_a_port_that_is_taken_is_an_os_error(lab: Lab) -> None:
    with sockets.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError) as refused:
            await coop.serve(lab.engine, port=taken.getsockname()[1])
        assert refused.value.errno is not None
    with pytest.raises(OSError):
        await coop.serve(lab.engine, host="no.such.host.invalid", port=0)
    server = coop.serve(lab.engine, port=0)
    with pytest.raises(RuntimeError, match="has not begun"):
        _ = server.url
    async with server:
        with pytest.raises(RuntimeError, match="begun already"):
            await server


async def test_serving_ends_when_it_is_cancelled_and_with_the_engine() -> None:
    engine = await coop.open()
    serving = asyncio.ensure_future(_serve(coop.serve(engine, port=0)))
    await asyncio.sleep(0.1)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    async with coop.serve(engine, port=0) as server:
        url = server.url
        await engine.aclose()
        with pytest.raises(urllib.error.URLError):
            await asyncio.to_thread(get, url)


async def _serve(server: coop.Server) -> None:
    await server


CLIENTS = """
    import asyncio, json, pathlib, sys, urllib.request
    from websockets.asyncio.client import connect

    url, done, many, messages = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

    def call(path, body, token=None):
        head = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(url + path, json.dumps(body).encode(), head)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    async def read(token, room, here):
        protocols = ["coop.v1", f"bearer.{token}"]
        async with connect(url.replace("http", "ws") + "/ws", subprotocols=protocols, compression=None) as socket:
            await socket.recv()
            await socket.send(json.dumps({"type": "join", "room": room}))
            await socket.recv()
            here.release()
            got = 0
            while got < messages:
                got += json.loads(await socket.recv()).get("kind") == "message_posted"

    async def main():
        who = {"username": "carol", "email": "carol@example.org", "password": "correct horse"}
        call("/api/auth/register", who)
        token = call("/api/auth/login", who)["access_token"]
        room = call("/api/chats", {"name": "den"}, token)["id"]
        here = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            for _ in range(many):
                group.create_task(read(token, room, here))
            for _ in range(many):
                await here.acquire()
            print("all here", flush=True)
            async with connect(url.replace("http", "ws") + "/ws", subprotocols=["coop.v1", f"bearer.{token}"]) as socket:
                for number in range(messages):
                    await socket.send(json.dumps({"type": "send", "room": room, "text": f"message {number}"}))
                while True:
                    if len(asyncio.all_tasks()) < 5:
                        break
                    await asyncio.sleep(0.05)
        done.touch()

    asyncio.run(main())
"""


async def test_a_bot_that_computes_slows_no_socket(lab: Lab, tmp_path: Path) -> None:
    """A Python bot computes in slices of 50 ms, and never lets go of the loop, until 1,000 sockets have joined a room and
    each has been given 20 messages there: if any of that needed the loop or the interpreter it would not end."""
    done = tmp_path / "done"
    slices = 0

    @lab.engine.bot("computes")
    async def _(turn: coop.Turn) -> AsyncIterator[str]:
        nonlocal slices
        yield "Computing. "
        began = time.monotonic()
        while not done.exists() and time.monotonic() - began < 90:
            slices += 1
            end = time.monotonic() + 0.05
            while time.monotonic() < end:
                pass
        yield "Done."

    async with coop.serve(lab.engine, port=0, limits="off") as server:
        program = [sys.executable, "-c", textwrap.dedent(CLIENTS), server.url, str(done), "1000", "20"]
        clients = await asyncio.create_subprocess_exec(*program, stdout=subprocess.PIPE)
        answer = await lab.room.ask("computes", "x")
        assert await clients.wait() == 0
    assert answer.text == "Computing. Done." and done.exists() and slices > 5
