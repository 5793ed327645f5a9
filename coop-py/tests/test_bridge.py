"""The way between the engine's threads and the loop: waits that are cancelled, loops and processes that are wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import threading
from collections.abc import Awaitable, Callable

import gemini_coop as coop
import pytest
from conftest import Lab


async def test_no_event_is_lost_to_a_cancelled_wait(lab: Lab) -> None:
    """3,000 messages, each awaited under a time limit that is mostly too short."""
    many = 3_000
    got: list[str] = []
    timeouts = 0

    async def send() -> None:
        for number in range(many):
            await lab.room.send(str(number))

    async with lab.bobs.subscribe() as events:
        sending = asyncio.create_task(send())
        while len(got) < many:
            try:
                async with asyncio.timeout(0.0002):
                    event = await anext(events)
            except TimeoutError:
                timeouts += 1
                continue
            if isinstance(event, coop.MessagePosted):
                got.append(event.message.text)
        await sending
    assert got == [str(number) for number in range(many)]
    assert timeouts > 100, "waits were cancelled at all"


async def test_each_awaitable_is_cancelled_before_and_after_it_is_done(lab: Lab) -> None:
    @lab.engine.bot("echo")
    async def _(turn: coop.Turn) -> str:
        return turn.prompt

    message = (await lab.room.send("Hello!")).message
    asked = (await lab.room.send("/echo Hello!")).turn
    assert asked is not None
    await asked
    names = iter(range(10_000))
    room = lab.room
    awaitables: dict[str, Callable[[], Awaitable[object]]] = {
        "create_user": lambda: lab.engine.create_user(f"user{next(names)}"),
        "user": lambda: lab.engine.user(lab.bob.id),
        "find_user": lambda: lab.engine.find_user("bob"),
        "create_room": lambda: lab.alice.create_room("den"),
        "room": lambda: lab.alice.room(room.id),
        "rooms": lambda: lab.alice.rooms(),
        "search people": lambda: lab.alice.search("bob"),
        "send": lambda: room.send("Hello!"),
        "ask": lambda: room.ask("echo", "Hello!"),
        "edit": lambda: room.edit(message, "Hallo!"),
        "message": lambda: room.message(message.id),
        "history": lambda: room.history(),
        "search": lambda: room.search("hello"),
        "entry": lambda: room.entry(),
        "members": lambda: room.members(),
        "turns": lambda: room.turns(),
        "turn": lambda: _wait_for(asked),
        "info": lambda: asked.info(),
        "invite": lambda: room.invite(lab.bob),
        "rename": lambda: room.rename("den"),
        "mark_read": lambda: room.mark_read(),
        "typing": lambda: room.set_typing(),
        "presence": lambda: room.set_presence(True),
        "settings": lambda: room.settings(),
        "configure": lambda: room.configure(system="x"),
        "subscribe": lambda: room.subscribe().__aenter__(),
        "subscribe as user": lambda: lab.bob.subscribe().__aenter__(),
        "next": lambda: anext(room.subscribe()),
        "retry": lambda: room.retry(asked),
    }
    for name, begin in awaitables.items():
        for steps in (0, 1, 2, 5):
            task = asyncio.ensure_future(begin())
            for _step in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
                raise asyncio.CancelledError(f"{name} was quicker than its cancellation")
        done = asyncio.ensure_future(begin())
        await done
        assert not done.cancel(), name
    assert lab.engine.stats().calls == 0
    assert (await room.send("all is well")).message.text == "all is well"


async def _wait_for(turn: coop.TurnHandle) -> coop.TurnEnd:
    return await turn


async def test_ten_thousand_subscriptions_leave_nothing(lab: Lab) -> None:
    async def some(many: int) -> None:
        for _number in range(many):
            async with lab.bobs.subscribe() as events:
                await anext(events)

    await some(1_000)
    gc.collect()
    before, tasks = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(asyncio.all_tasks())
    await some(10_000)
    gc.collect()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 8_000, f"{grown} KiB more"
    assert lab.engine.stats().subscriptions == 0 and len(asyncio.all_tasks()) == tasks


async def test_a_subscription_that_is_forgotten_is_ended(lab: Lab) -> None:
    events = lab.bobs.subscribe()
    await anext(events)
    assert lab.engine.stats().subscriptions == 1
    del events
    # The loop holds what this step was woken by.
    await asyncio.sleep(0)
    gc.collect()
    assert lab.engine.stats().subscriptions == 0


async def test_one_reads_a_subscription_at_a_time(lab: Lab) -> None:
    async with lab.bobs.subscribe() as events:
        await anext(events)
        reading = asyncio.create_task(_next(events))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one task reads it"):
            await anext(events)
        await lab.room.send("Hello!")
        assert isinstance(await reading, coop.MessagePosted)


async def _next(events: coop.Subscription) -> coop.Event | None:
    return await anext(events, None)


async def test_closing_a_subscription_ends_the_wait_for_it(lab: Lab) -> None:
    events = lab.bobs.subscribe()
    await anext(events)
    reading = asyncio.create_task(_next(events))
    await asyncio.sleep(0.01)
    await events.aclose()
    await events.aclose()
    assert await reading is None
    never = lab.bobs.subscribe()
    await never.aclose()
    assert [event async for event in never] == []


async def test_a_busy_subscription_lets_others_run(lab: Lab) -> None:
    for number in range(500):
        await lab.room.send(str(number))
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    async with lab.bobs.subscribe(after=2) as events:
        await asyncio.sleep(0.1)
        running = asyncio.create_task(other())
        many = 0
        async for event in events:
            many += 1
            assert event.seq is not None
            if many == 480:
                break
        running.cancel()
    assert others >= 5


async def test_a_closed_engine_says_so_and_hands_over_what_is_left(lab: Lab) -> None:
    engine = await coop.open()
    alice = await engine.create_user("alice")
    room = await alice.create_room("lab")
    events = room.subscribe()
    await anext(events)
    waiting = room.subscribe()
    await anext(waiting)
    ended = asyncio.create_task(_rest(waiting))
    for number in range(10):
        await room.send(str(number))
    await engine.aclose()
    assert [event.message.text for event in await _rest(events) if isinstance(event, coop.MessagePosted)] == [
        str(number) for number in range(10)
    ]
    assert len(await ended) == 10
    assert events.position is not None and events.position.seq >= 10
    for call in (room.send("x"), alice.rooms(), engine.create_user("bob"), room.history(), _wait(room)):
        with pytest.raises(coop.ClosedError, match="open another") as closed:
            await call
        assert isinstance(closed.value, RuntimeError) and not closed.value.retryable
    with pytest.raises(coop.ClosedError):
        engine.stats()
    with pytest.raises(coop.ClosedError):
        coop.serve(engine)
    assert repr(engine) == "<Engine, closed>"


async def _wait(room: coop.Room) -> None:
    async with room.subscribe():
        pass


async def _rest(events: coop.Subscription) -> list[coop.Event]:
    return [event async for event in events]


async def test_calls_that_wait_when_the_engine_closes_are_told(lab: Lab) -> None:
    engine = await coop.open()

    @engine.bot("slow")
    async def _(turn: coop.Turn) -> str:
        await asyncio.sleep(3600)
        return "never"

    room = await (await engine.create_user("alice")).create_room("lab")
    turn = (await room.send("/slow x")).turn
    assert turn is not None
    waiting = asyncio.ensure_future(_wait_for(turn))
    await asyncio.sleep(0.01)
    closing = [asyncio.create_task(engine.aclose(grace=0.05)) for _number in range(3)]
    closing[0].cancel()
    await asyncio.gather(*closing, return_exceptions=True)
    try:
        assert (await waiting).status == "interrupted"
    except coop.ClosedError:
        pass
    with pytest.raises(coop.ClosedError):
        await room.history()


def test_the_wrong_loop_says_so() -> None:
    async def opened() -> tuple[coop.Engine, coop.Room, coop.Subscription]:
        engine = await coop.open()
        room = await (await engine.create_user("alice")).create_room("lab")
        events = room.subscribe()
        await anext(events)
        return engine, room, events

    async def elsewhere(room: coop.Room, engine: coop.Engine, events: coop.Subscription) -> None:
        for call in (room.send("x"), room.history(), engine.aclose(), anext(events)):
            with pytest.raises(coop.WrongLoopError, match="run_coroutine_threadsafe"):
                await call
        for now in (lambda: room.subscribe(), engine.stats, lambda: coop.serve(engine)):
            with pytest.raises(coop.WrongLoopError):
                now()

    with asyncio.Runner() as runner:
        engine, room, events = runner.run(opened())
        with asyncio.Runner() as other:
            other.run(elsewhere(room, engine, events))
        thread = threading.Thread(target=lambda: asyncio.run(elsewhere(room, engine, events)))
        thread.start()
        thread.join()
        with pytest.raises(coop.WrongLoopError):
            engine.stats()

        async def from_a_thread() -> str:
            loop = asyncio.get_running_loop()

            def send() -> str:
                return (
                    asyncio.run_coroutine_threadsafe(room.send("from a thread"), loop).result().message.text
                )

            return await asyncio.to_thread(send)

        assert runner.run(from_a_thread()) == "from a thread"
        runner.run(engine.aclose())


async def test_a_forked_child_says_so(lab: Lab) -> None:
    events = lab.bobs.subscribe()
    await anext(events)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        words = "nothing was raised"
        try:
            for call in (lab.room.send("x"), anext(events)):
                try:
                    call.send(None)
                except coop.ForkedProcessError as error:
                    words = str(error)
                finally:
                    call.close()
            lab.bobs = lab.room
            del events
            gc.collect()
            os.write(writer, words.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        words = await asyncio.to_thread(pipe.read)
    assert "spawn" in words
    assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)
    assert (await lab.room.send("the parent goes on")).message.text == "the parent goes on"


async def test_several_engines_share_a_loop() -> None:
    async with coop.open() as one, coop.open() as two:
        for engine in (one, two):
            alice = await engine.create_user("alice")
            assert (await (await alice.create_room("lab")).send("Hello!")).message.id == 1
        assert await one.find_user("alice") != await two.find_user("alice")


async def test_records_of_the_engine_go_to_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "gemini_coop"):
        coop.enable_logging("DEBUG")
        try:
            async with coop.open() as engine:
                room = await (await engine.create_user("alice")).create_room("lab")
                engine.add_bot(
                    coop.MockBot("broken", text="one two", first_delay=0, delay=0, breaks_off_after=1)
                )
                with pytest.raises(coop.BotError):
                    await room.ask("broken", "x")
        finally:
            coop.disable_logging()
    records = [record for record in caplog.records if record.name.startswith("gemini_coop.coop_core.")]
    assert any(
        record.levelno == logging.WARNING and "a bot failed" in record.getMessage() for record in records
    ), records
    assert all(record.thread == threading.get_ident() for record in records)
    many = len(caplog.records)
    async with coop.open() as engine:
        await engine.create_user("alice")
    assert len(caplog.records) == many
