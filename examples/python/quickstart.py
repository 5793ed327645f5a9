"""Two people, a room, and a bot of five lines whose answer both see grow."""

import asyncio
from collections.abc import AsyncIterator

import gemini_coop as coop


async def main() -> None:
    async with coop.open("chat.db") as engine:

        @engine.bot("echo")
        async def echo(turn: coop.Turn) -> AsyncIterator[str]:
            for word in turn.prompt.split():
                yield word + " "

        alice = await engine.create_user("alice")
        bob = await engine.create_user("bob")
        room = await alice.create_room("lab")
        await room.invite(bob)

        async with (await bob.room(room.id)).subscribe() as events:
            await room.send("/echo one answer, live for everyone")
            async for event in events:
                match event:
                    case coop.MessagePosted(message=message):
                        print(f"{message.author}: {message.text}")
                    case coop.Delta(text=text):
                        print(text, end="", flush=True)
                    case coop.TurnEnded(status=status):
                        print(f"[{status}]")
                        break
                    case _:
                        pass


asyncio.run(main())
