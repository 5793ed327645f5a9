"""Bots that are written in Python: what they may be, how they are stopped, and what happens when they go wrong."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import gemini_coop as coop
import pytest
from conftest import Lab
from gemini_coop import testing


async def test_what_a_bot_may_be(lab: Lab) -> None:
    @lab.engine.bot("pieces", about="I speak in pieces.")
    async def pieces(turn: coop.Turn) -> AsyncIterator[str]:
        for word in turn.prompt.split():
            yield word + " "

    @lab.engine.bot("whole")
    async def whole(turn: coop.Turn) -> str:
        return turn.prompt.upper()

    class Object:
        name = "object"
        settings = coop.BotSettings(name="The Object", system="Be brief.")

        async def reply(self, turn: coop.Turn) -> str:
            return f"{turn.asked_by} in {turn.context.system.splitlines()[0]!r}"

    async def prefixed(prefix: str, turn: coop.Turn) -> str:
        return prefix + turn.prompt

    lab.engine.add_bot(Object())
    lab.engine.bot("partial", functools.partial(prefixed, "> "))
    lab.engine.add_bot(coop.MockBot("parrot", echo=True, first_delay=0, delay=0))
    lab.engine.add_bot(coop.ScribeBot())
    assert lab.engine.stats().bots == ("pieces", "whole", "object", "partial", "parrot", "scribe")
    assert (await lab.room.ask("pieces", "a b c")).text == "a b c "
    assert (await lab.room.ask("whole", "a b c")).text == "A B C"
    assert (await lab.room.ask("whole", "")).text == ""
    before = await lab.room.history()
    with pytest.raises(coop.NotFoundError, match="the engine has pieces, whole"):
        await lab.room.ask("nobody", "a b c")
    assert await lab.room.history() == before, "nothing was said"
    answer = await lab.room.ask("object", "who?")
    assert answer.text == "alice in 'Be brief.'" and answer.author.name == "The Object"
    assert (await lab.room.ask("partial", "quoted")).text == "> quoted"
    assert (await lab.room.ask("parrot", "again")).text == "again"
    assert (await lab.room.ask("scribe", "help")).author.bot == "scribe"
    # Still functions, which a test may call.
    assert [piece async for piece in pieces(testing.turn("x y"))] == ["x ", "y "]
    assert await whole(testing.turn("x")) == "X"


async def test_built_in_bots_are_configured() -> None:
    bots = [
        coop.MockBot("fixed", text="Always this.", first_delay=0, delay=0),
        coop.MockBot("script", script=[(0.0, "One, "), (0.01, "two.")]),
        coop.MockBot(
            "broken", text="one two three four", words=1, first_delay=0, delay=0, breaks_off_after=2
        ),
    ]
    async with testing.engine(bots=bots) as engine:
        room = await (await engine.create_user("alice")).create_room("lab")
        assert (await room.ask("fixed", "x")).text == "Always this."
        assert (await room.ask("script", "x")).text == "One, two."
        with pytest.raises(coop.BotError) as failed:
            await room.ask("broken", "x")
        assert failed.value.code == "truncated" and failed.value.message is not None
        assert failed.value.message.text == "one two " and failed.value.message.status == "failed"
    with pytest.raises(ValueError):
        coop.GeminiBot("")
    with pytest.raises(ValueError):
        coop.GeminiBot("key", base_url="ftp://x")
    with pytest.raises(ValueError):
        coop.MockBot(delay=-1)
    assert repr(coop.GeminiBot("secret-key", name="gem")) == "GeminiBot('gem')"


async def test_what_is_no_bot(lab: Lab) -> None:
    def plain(turn: coop.Turn) -> str:
        return turn.prompt

    with pytest.raises(TypeError, match="make it `async def`"):
        lab.engine.bot("plain", plain)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="async def"):
        lab.engine.bot("text", "text")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="needs a `name`"):
        lab.engine.add_bot(object())  # type: ignore[arg-type]

    async def good(turn: coop.Turn) -> str:
        return turn.prompt

    with pytest.raises(coop.BadRequestError):
        lab.engine.bot("Not A Handle", good)
    with pytest.raises(TypeError):
        lab.engine.bot("good", good, colour="red")  # type: ignore[call-overload]
    with pytest.raises(ValueError):
        lab.engine.bot("good", good, timeout=-1.0)
    lab.engine.bot("good", good)
    with pytest.raises(coop.ConflictError):
        lab.engine.bot("good", good)
    assert (await lab.room.ask("good", "still here")).text == "still here"


async def test_stopping_cancels_at_the_await_and_runs_finally_at_once(lab: Lab) -> None:
    began = asyncio.Event()
    cleaned = asyncio.Event()
    caught: list[str] = []

    @lab.engine.bot("slow")
    async def _(turn: coop.Turn) -> AsyncIterator[str]:
        try:
            yield "Wait"
            began.set()
            await asyncio.sleep(3600)
            yield "never"
        except asyncio.CancelledError:
            caught.append("cancelled")
            raise
        finally:
            cleaned.set()

    for stop in ("turn", "message", "id"):
        began.clear()
        cleaned.clear()
        sent = await lab.room.send("/slow x")
        assert sent.turn is not None
        await began.wait()
        info = await sent.turn.info()
        assert info.status == "streaming" and info.message is not None
        before = time.monotonic()
        match stop:
            case "turn":
                await sent.turn.stop()
            case "message":
                await lab.bobs.stop(await lab.bobs.message(info.message))
            case _:
                await lab.bobs.stop(sent.turn.id)
        await asyncio.wait_for(cleaned.wait(), 5)
        assert time.monotonic() - before < 0.1
        end = await sent.turn
        assert end.status == "stopped" and end.by in (lab.alice.id, lab.bob.id)
        assert (await lab.room.message(info.message)).text == "Wait"
    assert caught == ["cancelled"] * 3


async def test_a_bot_that_goes_on_after_it_was_stopped(lab: Lab) -> None:
    """It swallows the cancellation and yields again: nothing of that is shown, and it is closed."""
    began = asyncio.Event()
    closed = asyncio.Event()

    @lab.engine.bot("stubborn")
    async def _(turn: coop.Turn) -> AsyncIterator[str]:
        yield "one"
        began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
        try:
            while True:
                yield "more"
        finally:
            closed.set()

    sent = await lab.room.send("/stubborn x")
    await began.wait()
    assert sent.turn is not None
    await sent.turn.stop()
    await asyncio.wait_for(closed.wait(), 5)
    await sent.turn
    info = await sent.turn.info()
    assert info.message is not None and (await lab.room.message(info.message)).text == "one"


async def test_to_stop_waiting_does_not_stop_the_bot(lab: Lab) -> None:
    go_on = asyncio.Event()

    @lab.engine.bot("patient")
    async def _(turn: coop.Turn) -> str:
        await go_on.wait()
        return "done"

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await lab.room.ask("patient", "x")
    [turn] = await lab.room.turns()
    assert turn.status == "streaming"
    go_on.set()
    async with lab.room.subscribe() as events:
        async for event in events:
            if isinstance(event, coop.TurnEnded):
                assert event.text == "done"
                break
            if isinstance(event, coop.Snapshot) and not event.turns:
                break
    again = await (await lab.room.retry(turn.id))
    assert again.status == "done"


async def test_a_bots_exception_arrives_with_its_cause(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    @lab.engine.bot("broken")
    async def _(turn: coop.Turn) -> AsyncIterator[str]:
        yield "half"
        raise KeyError("the key")

    @lab.engine.bot("polite")
    async def _(turn: coop.Turn) -> str:
        raise coop.BotError("The weather service is away.", code="unavailable")

    with pytest.raises(coop.BotError) as failed:
        await lab.room.ask("broken", "x")
    assert isinstance(failed.value.__cause__, KeyError) and failed.value.code == "internal"
    assert failed.value.message is not None and failed.value.message.text == "half"
    assert "KeyError" not in str(failed.value), "people are told only that it failed"
    assert any("bot broken failed" in record.message for record in caplog.records)
    caplog.clear()
    with pytest.raises(coop.BotError, match="weather service") as refused:
        await lab.room.ask("polite", "x")
    assert refused.value.code == "unavailable" and isinstance(refused.value.__cause__, coop.BotError)
    assert not caplog.records, "it was said on purpose"


async def _five(turn: coop.Turn) -> Any:
    return 5


async def _nothing(turn: coop.Turn) -> None:
    turn.report_usage(total=1)


async def _bytes(turn: coop.Turn) -> AsyncIterator[Any]:
    yield b"bytes"


@pytest.mark.parametrize(
    ("bot", "words"),
    [(_five, "returned int: return"), (_nothing, "returned NoneType"), (_bytes, "yielded bytes: yield str")],
)
async def test_what_is_no_answer(lab: Lab, bot: Callable[[coop.Turn], Awaitable[str]], words: str) -> None:
    lab.engine.bot("wrong", bot)
    with pytest.raises(coop.BotError) as failed:
        await lab.room.ask("wrong", "x")
    assert isinstance(failed.value.__cause__, TypeError) and words in str(failed.value.__cause__)


async def test_an_object_whose_reply_is_no_answer(lab: Lab) -> None:
    class Odd:
        name = "odd"

        async def __call__(self, turn: coop.Turn) -> str:
            return "called"

    lab.engine.bot("callable", Odd())
    assert (await lab.room.ask("callable", "x")).text == "called"


async def test_a_bot_that_yields_nothing_or_never_ends(lab: Lab) -> None:
    @lab.engine.bot("silent")
    async def _(turn: coop.Turn) -> AsyncIterator[str]:
        nothing: tuple[str, ...] = ()
        for piece in nothing:
            yield piece

    @lab.engine.bot("endless", max_bytes=1_000)
    async def _(turn: coop.Turn) -> AsyncIterator[str]:
        while True:
            yield "and so on "

    @lab.engine.bot("late", timeout=0.2)
    async def _(turn: coop.Turn) -> str:
        await asyncio.sleep(3600)
        return "too late"

    assert (await lab.room.ask("silent", "x")).text == ""
    answer = await lab.room.ask("endless", "x")
    assert answer.status == "done" and len(answer.text) == 1_000
    with pytest.raises(coop.BotTimeoutError) as late:
        await lab.room.ask("late", "x")
    assert isinstance(late.value, TimeoutError)


async def test_a_bot_that_blocks_the_loop_is_told(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """The engine and its own bots go on meanwhile; the words name the mend."""
    lab.engine.add_bot(coop.MockBot("quick", text="Not blocked.", first_delay=0, delay=0))

    @lab.engine.bot("blocks")
    async def _(turn: coop.Turn) -> AsyncIterator[str]:
        yield "now "
        time.sleep(1.3)  # noqa: ASYNC251
        yield "later"

    blocked, quick = await asyncio.gather(lab.room.ask("blocks", "x"), lab.room.ask("quick", "x"))
    assert (blocked.text, quick.text) == ("now later", "Not blocked.")
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert any(
        "asyncio.to_thread" in record.getMessage() and "bot blocks" in record.getMessage() for record in told
    )

    @lab.engine.bot("forever", timeout=0.3)
    async def _(turn: coop.Turn) -> str:
        time.sleep(1.5)  # noqa: ASYNC251
        return "too late"

    with pytest.raises(coop.BotTimeoutError) as late:
        await lab.room.ask("forever", "x")
    assert "asyncio.to_thread" in "".join(late.value.__notes__)


async def test_a_bot_that_waits_for_long_blocks_nothing(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    @lab.engine.bot("thinks")
    async def _(turn: coop.Turn) -> AsyncIterator[str]:
        yield "hm "
        await asyncio.sleep(1.3)
        yield "yes"

    assert (await lab.room.ask("thinks", "x")).text == "hm yes"
    assert not caplog.records


async def test_a_bot_that_never_waits_lets_others_run(lab: Lab) -> None:
    stop = False

    @lab.engine.bot("busy", max_bytes=10_000_000)
    async def _(turn: coop.Turn) -> AsyncIterator[str]:
        while not stop:
            yield "x"

    sent = await lab.room.send("/busy x")
    for _number in range(50):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    stop = True
    assert sent.turn is not None and (await sent.turn).status == "done"


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_a_context_variable_is_visible_in_a_bot(lab: Lab) -> None:
    variable.set("where the bot was added")

    @lab.engine.bot("looks")
    async def _(turn: coop.Turn) -> str:
        seen = variable.get()
        variable.set("of this turn alone")
        return seen

    variable.set("changed later")
    for _number in range(2):
        assert (await lab.room.ask("looks", "x")).text == "where the bot was added"


async def test_what_a_bot_reads(lab: Lab) -> None:
    turns: list[coop.Turn] = []

    @lab.engine.bot("reader", context_messages=10)
    async def _(turn: coop.Turn) -> str:
        turns.append(turn)
        turn.report_usage(input=7, output=2, total=9)
        return "read"

    await lab.bobs.send("before")
    sent = await lab.room.send("/reader what was said?")
    assert sent.turn is not None
    end = await sent.turn
    assert end.usage is not None and (end.usage.input, end.usage.total, end.usage.estimated) == (7, 9, False)
    [turn] = turns
    assert turn.prompt == "what was said?" and turn.asked_by.name == "alice" and turn.ask == sent.message.id
    assert (turn.room, turn.bot, turn.attempt) == (lab.room.id, "reader", 1)
    assert turn.context.turns[-1].side == "user" and "before" in turn.context.turns[0].parts[0]
    with pytest.raises(AttributeError):
        turn.prompt = "x"  # type: ignore[misc]


async def test_settings_govern_bots(lab: Lab) -> None:
    @lab.engine.bot("one")
    async def _(turn: coop.Turn) -> str:
        return "one"

    @lab.engine.bot("two")
    async def _(turn: coop.Turn) -> str:
        return "two"

    assert await lab.room.settings() == coop.RoomSettings()
    changed = await lab.room.configure(default_bot="two", who_may_stop="owner")
    assert changed == await lab.bobs.settings() == coop.RoomSettings(default_bot="two", who_may_stop="owner")
    sent = await lab.room.send("/bot which?")
    assert sent.turn is not None and sent.turn.bot == "two"
    await sent.turn
    for wrong in ({"colour": "red"}, {"policy": "random"}, {"default_bot": "three"}):
        with pytest.raises(coop.BadRequestError):
            await lab.room.configure(**wrong)
    with pytest.raises(coop.ForbiddenError):
        await lab.bobs.configure(policy="interrupt")
    assert (await lab.room.send("/one quiet", ask=False)).turn is None


async def test_with_the_engine_bots_end(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []
    engine = await coop.open()

    @engine.bot("slow")
    async def _(turn: coop.Turn) -> str:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(turn.prompt)
        return "never"

    @engine.bot("stuck")
    async def _(turn: coop.Turn) -> str:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if ended and ended[-1] == "enough":
                    raise

    room = await (await engine.create_user("alice")).create_room("lab")
    await room.send("/slow one")
    await room.send("/stuck two")
    await asyncio.sleep(0.05)
    await engine.aclose(grace=0.1)
    assert ended == ["one"]
    assert any("must not swallow CancelledError" in record.getMessage() for record in caplog.records)
    ended.append("enough")
