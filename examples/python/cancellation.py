"""A bot that holds something while it answers, and lets go of it when it is stopped."""

import asyncio
from collections.abc import AsyncIterator

import gemini_coop as coop


class Countdown:
    """Counts down, one number a second, on the one launch pad there is."""

    name = "countdown"
    settings = coop.BotSettings(about="I count down.", timeout=60)

    def __init__(self) -> None:
        self.pad = asyncio.Lock()

    async def reply(self, turn: coop.Turn) -> AsyncIterator[str]:
        async with self.pad:
            try:
                for number in range(int(turn.prompt), 0, -1):
                    yield f"{number} … "
                    # This is where a stop arrives, as CancelledError.
                    await asyncio.sleep(1)
                yield "lift-off!"
            finally:
                print("The pad is free again.")


async def main() -> None:
    bot = Countdown()
    async with coop.open(bots=[bot]) as engine:
        room = await (await engine.create_user("alice")).create_room("launch site")
        async with room.subscribe() as events:
            sent = await room.send("/countdown 10")
            async for event in events:
                if isinstance(event, coop.Delta):
                    print("stop!")
                    assert sent.turn is not None
                    await sent.turn.stop()
                if isinstance(event, coop.TurnEnded):
                    print(f"{event.text!r} was said, then it was {event.status}.")
                    break
        assert not bot.pad.locked()


asyncio.run(main())
