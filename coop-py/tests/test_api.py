"""Everything a script does with people, rooms and messages."""

from __future__ import annotations

import asyncio
import json
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gemini_coop as coop
import pytest
from conftest import Lab
from gemini_coop import _errors, _native
from websockets.asyncio.client import connect


async def test_people(lab: Lab) -> None:
    assert (lab.alice.name, str(lab.bob)) == ("alice", "bob")
    assert await lab.engine.find_user("Alice") == lab.alice != lab.bob
    assert len({await lab.engine.user(lab.bob.id), lab.bob}) == 1
    assert [found.name for found in await lab.alice.search("bo")] == ["bob"]
    carol = await lab.engine.register("carol", "carol@example.org", "correct horse")
    assert await lab.engine.authenticate("carol", "correct horse") == carol
    await carol.set_password("battery staple")
    with pytest.raises(coop.UnauthorizedError) as wrong:
        await lab.engine.authenticate("carol", "correct horse")
    assert isinstance(wrong.value, PermissionError) and wrong.value.code == "unauthorized"
    with pytest.raises(coop.ConflictError):
        await lab.engine.create_user("alice")
    with pytest.raises(coop.BadRequestError) as bad:
        await lab.engine.create_user("not a name!")
    assert isinstance(bad.value, ValueError) and not bad.value.retryable
    with pytest.raises(LookupError):
        await lab.engine.find_user("nobody")


async def test_messages(lab: Lab) -> None:
    sent = await lab.room.send("Hello!", client_id="c1", meta={"mood": "gut ☺", "n": [1, None]})
    again = await lab.room.send("Hello!", client_id="c1", meta={"mood": "gut ☺", "n": [1, None]})
    assert again.duplicate and not sent.duplicate and again.message == sent.message and sent.turn is None
    message = sent.message
    assert message.meta == {"mood": "gut ☺", "n": [1, None]} and message.client_id == "c1"
    assert (message.author.name, message.author.user, message.author.bot) == ("alice", lab.alice.id, None)
    assert abs((datetime.now(UTC) - message.created_at).total_seconds()) < 60
    with pytest.raises(coop.ConflictError):
        await lab.room.send("Other", client_id="c1")
    answer = await lab.bobs.send("Hi!", reply_to=message)
    assert answer.message.reply_to == message.id
    edited = await lab.room.edit(message, "Hello, all!")
    assert (edited.text, edited.edits) == ("Hello, all!", 1) and edited.edited_at is not None
    assert await lab.bobs.message(message.id) == edited != message
    with pytest.raises(coop.ForbiddenError):
        await lab.bobs.edit(message.id, "mine")
    await lab.bobs.delete(answer.message)
    with pytest.raises(coop.NotFoundError):
        await lab.room.message(answer.message.id)
    for text in ("", "  ", "a\0b"):
        with pytest.raises(coop.BadRequestError):
            await lab.room.send(text)
    with pytest.raises(coop.TooLargeError):
        await lab.room.send("x" * 70_000)
    with pytest.raises(coop.TooLargeError):
        await lab.room.send("x", meta={"much": "x" * 5_000})
    with pytest.raises(TypeError):
        await lab.room.send("x", meta={"no json": object()})
    with pytest.raises(TypeError):
        await lab.room.send(5)  # type: ignore[arg-type]
    with pytest.raises(coop.BadRequestError, match="out of range"):
        await lab.room.message(1 << 70)
    with pytest.raises(coop.NotFoundError):
        await lab.room.message(-1)


async def test_history_and_search(lab: Lab) -> None:
    for number in range(450):
        await lab.room.send(f"message {number}")
    newest = await lab.room.history(limit=3)
    assert [message.text for message in newest] == ["message 447", "message 448", "message 449"]
    before = await lab.room.history(2, before=newest[0])
    assert [message.text for message in before] == ["message 445", "message 446"]
    assert [m.text for m in await lab.room.history(1, after=before[0].seq)] == ["message 446"]
    rows = [message.to_dict() async for message in lab.bobs.iter_history()]
    assert [row["text"] for row in rows] == [f"message {number}" for number in range(450)]
    backwards = [message.text async for message in lab.bobs.iter_history(newest_first=True)]
    assert backwards == [row["text"] for row in reversed(rows)]
    assert [m.text for m in await lab.room.search("MESS 44")] == [
        f"message {n}" for n in [44, *range(440, 450)]
    ]
    for limit in (0, -1, 201, 1 << 40):
        with pytest.raises(coop.BadRequestError):
            await lab.room.history(limit=limit)
    with pytest.raises(coop.BadRequestError):
        await lab.room.history(before=9, after=3)
    with pytest.raises(coop.BadRequestError):
        await lab.room.search("  ")


async def test_rooms_and_members(lab: Lab) -> None:
    carol = await lab.engine.create_user("carol")
    with pytest.raises(coop.NotFoundError, match="no such room"):
        await carol.room(lab.room.id)
    await lab.bobs.invite(carol)
    assert [member.name for member in await lab.room.members()] == ["alice", "bob", "carol"]
    assert [member.role for member in await lab.room.members()] == ["owner", "member", "member"]
    carols = await carol.room(lab.room.id)
    await lab.room.remove(carol)
    with pytest.raises(LookupError):
        await carols.send("still here?")
    with pytest.raises(coop.ForbiddenError):
        await lab.bobs.rename("mine")
    await lab.room.rename("workshop")
    await lab.room.hand_over(lab.bob)
    await lab.room.leave()
    entry = await lab.bobs.entry()
    assert (entry.name, entry.role, entry.info.owner) == ("workshop", "owner", lab.bob.id)
    den = await lab.bob.create_room(members=[carol, lab.alice])
    assert (await den.entry()).name == "bob, carol, alice"
    assert {room.name for room in await lab.bob.rooms()} == {"workshop", "bob, carol, alice"}
    await den.delete_room()
    assert [room.name for room in await lab.bob.rooms()] == ["workshop"]


async def test_read_marks_typing_and_presence(lab: Lab) -> None:
    sent = await lab.room.send("one")
    await lab.room.send("two")
    assert (await lab.bobs.entry()).unread == 2
    async with lab.room.subscribe() as events:
        await lab.bobs.set_typing()
        await lab.bobs.set_presence(True)
        await lab.bobs.mark_read(sent.message)
        seen: list[coop.Event] = []
        async for event in events:
            seen.append(event)
            if isinstance(event, coop.ReadMark):
                break
    kinds = [type(event) for event in seen]
    assert kinds == [coop.Snapshot, coop.Typing, coop.Presence, coop.ReadMark]
    match seen[1:]:
        case [coop.Typing(name="bob"), coop.Presence(here=True), coop.ReadMark(read=read)]:
            assert read == sent.message.seq
        case other:
            pytest.fail(repr(other))
    assert (await lab.bobs.entry()).unread == 1
    await lab.bobs.mark_read()
    while (await lab.bobs.entry()).unread:
        await asyncio.sleep(0.01)


async def test_a_user_hears_of_all_their_rooms(lab: Lab) -> None:
    async with lab.bob.subscribe() as events:
        first = await anext(events)
        assert isinstance(first, coop.RoomGained) and first.entry.id == lab.room.id
        assert events.position is None
        den = await lab.alice.create_room("den", members=[lab.bob])
        gained = await anext(events)
        assert isinstance(gained, coop.RoomGained) and gained.entry.name == "den"
        await den.send("welcome")
        await den.remove(lab.bob)
        kinds: list[str] = []
        async for event in events:
            kinds.append(type(event).__name__)
            if isinstance(event, coop.Gone):
                assert (event.reason, event.by, event.room) == ("removed", lab.alice.id, den.id)
                break
        assert kinds in (["MessagePosted", "Gone"], ["Gone"]), kinds


async def test_a_position_is_taken_up_in_the_middle_of_an_answer(lab: Lab) -> None:
    halfway = asyncio.Event()
    go_on = asyncio.Event()

    @lab.engine.bot("teller")
    async def _(turn: coop.Turn) -> Any:
        yield "The beginning"
        halfway.set()
        await go_on.wait()
        yield ", the middle and the end."

    text = ""
    async with lab.bobs.subscribe() as events:
        await lab.room.send("/teller go on")
        async for event in events:
            if isinstance(event, coop.Delta):
                text += event.text
                if text == "The beginning":
                    break
        position = events.position
    assert position is not None and list(position.tapes.values()) == [len(text)]
    kept = coop.Position.from_dict(json.loads(json.dumps(position.to_dict())))
    assert kept == position
    async with lab.bobs.subscribe(after=kept) as events:
        go_on.set()
        async for event in events:
            match event:
                case coop.Delta(text=piece, offset=offset):
                    assert offset == len(text)
                    text += piece
                case coop.TurnEnded(text=whole):
                    assert text == whole == "The beginning, the middle and the end."
                    break
                case other:
                    pytest.fail(repr(other))
    async with lab.bobs.subscribe(after=1) as events:
        event = await anext(events)
        assert event.seq == 2, "from the log as it is, behind a seq"


async def test_events_are_what_the_wire_says(lab: Lab) -> None:
    """Each event of a room, beside the frames of a socket that has joined it."""

    @lab.engine.bot("echo")
    async def _(turn: coop.Turn) -> str:
        return turn.prompt

    await lab.engine.register("carol", "carol@example.org", "correct horse")
    carol = await lab.engine.find_user("carol")
    await lab.room.invite(carol)
    here = await carol.room(lab.room.id)
    async with coop.serve(lab.engine, port=0) as server:
        token = await _token(server, "carol", "correct horse")
        url = server.url.replace("http", "ws") + "/ws"
        protocols: Any = ["coop.v1", f"bearer.{token}"]
        async with connect(url, subprotocols=protocols) as socket, here.subscribe() as events:
            assert json.loads(await socket.recv())["type"] == "ready"
            await socket.send(json.dumps({"type": "join", "room": lab.room.id}))
            frames: list[dict[str, Any]] = [json.loads(await socket.recv())]
            said = [(await anext(events)).to_dict()]
            # Beside what happens: with the room goes what was not read of it.
            reading = asyncio.create_task(_rest(events))
            sent = await lab.room.send("Hello!", meta={"n": 1}, client_id="c")
            await lab.room.edit(sent.message, "Hallo!")
            await lab.room.delete(sent.message)
            await lab.room.rename("den")
            await lab.room.remove(lab.bob)
            await lab.room.set_typing()
            await lab.room.ask("echo", "Hi")
            await asyncio.sleep(0.1)
            await lab.room.delete_room()
            for event in await reading:
                assert event.type == event.to_dict()["type"] and event.room == lab.room.id
                said.append(event.to_dict())
            while frames[-1]["type"] != "gone":
                frames.append(json.loads(await socket.recv()))
    # What a socket has been given in pieces it is not given again at the end.
    for heard in (*said, *frames):
        if heard.get("kind") == "turn_ended":
            heard.pop("text", None)
            heard.pop("end", None)
    # That the socket has come is told to everybody but itself.
    assert said.pop(1)["kind"] == "presence"
    hints = [[one for one in heard if one["type"] == "hint"] for heard in (said, frames)]
    rest = [[event for event in heard if event["type"] != "hint"] for heard in (said, frames)]
    assert rest[0] == rest[1] and hints[0] == hints[1] and len(hints[0]) == 1


async def _rest(events: coop.Subscription) -> list[coop.Event]:
    return [event async for event in events]


async def _token(server: coop.Server, name: str, password: str) -> str:
    body = json.dumps({"username": name, "password": password}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"POST /api/auth/login HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    writer.write(f"{head}content-type: application/json\r\n\r\n".encode() + body)
    answer = (await reader.read()).decode()
    writer.close()
    token: str = json.loads(answer[answer.index("{") :])["access_token"]
    return token


async def test_values_are_frozen_equal_and_shown(lab: Lab) -> None:
    message = (await lab.room.send("Hello!")).message
    assert message == await lab.room.message(message.id) and hash(message) == hash(
        await lab.room.message(message.id)
    )
    assert "text='Hello!'" in repr(message) and "author=Author(name='alice'" in repr(message)
    with pytest.raises(AttributeError):
        message.text = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        message.other = 1  # type: ignore[attr-defined]
    assert message.to_dict()["author"] == {"user": lab.alice.id, "name": "alice"}
    position = coop.Position(epoch=1, seq=2, tapes={3: 4})
    assert pickle.loads(pickle.dumps(position)) == position


async def test_files(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    engine = await coop.open(str(path))
    room = await (await engine.create_user("alice")).create_room("lab")
    await room.send("kept")
    with pytest.raises(coop.InUseError):
        await coop.open(str(path))
    await engine.aclose()
    await engine.aclose()
    async with coop.open(f"sqlite:{path}", migrate=False) as engine:
        alice = await engine.find_user("alice")
        assert [m.text for m in await (await alice.room(room.id)).history()] == ["kept"]
    with pytest.raises(coop.BadRequestError, match="migrate=False"):
        await coop.open(str(tmp_path / "new.db"), migrate=False)
    (tmp_path / "letter.txt").write_text("no database, but long enough to be mistaken for one" * 100)
    with pytest.raises(coop.NotADatabaseError):
        await coop.open(str(tmp_path / "letter.txt"))
    with pytest.raises(coop.BadRequestError):
        await coop.open("mysql://host/name")
    with pytest.raises(coop.BadRequestError):
        await coop.open(bus="redis://127.0.0.1:1")


async def test_two_engines_hear_of_each_other(postgres: str, redis: str) -> None:
    async with coop.open(postgres, bus=redis) as one, coop.open(postgres, bus=redis) as two:
        while one.stats().bus != "up":
            await asyncio.sleep(0.01)
        here = await (await one.create_user("alice")).create_room("lab")
        there = await (await two.find_user("alice")).room(here.id)
        async with there.subscribe() as events:
            await here.send("across")
            async for event in events:
                if isinstance(event, coop.MessagePosted):
                    assert event.message.text == "across"
                    break


def test_there_is_an_exception_for_each_kind_of_error() -> None:
    for code in _native.error_codes():
        error = _errors.of(code, "words", False, 1.5)
        assert (error.code, str(error), error.retryable, error.retry_after) == (code, "words", False, 1.5)
        assert getattr(coop, type(error).__name__) is type(error)
    assert len({type(_errors.of(code, "", False, None)) for code in _native.error_codes()}) == len(
        _native.error_codes()
    )
    assert (
        "unavailable" in coop.BotError.CODES
        and coop.BotError("x", code="quota_exhausted").code == "quota_exhausted"
    )
