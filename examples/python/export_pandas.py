"""A room's history as a pandas data frame: who says how much, and how long the bot's answers are."""

import asyncio

import gemini_coop as coop
import pandas as pd


async def export(room: coop.Room) -> pd.DataFrame:
    """All messages, one row each."""
    rows = [message.to_dict() async for message in room.iter_history()]
    frame = pd.json_normalize(rows, sep="_")
    frame["created_at"] = pd.to_datetime(frame["created_at"])
    return frame


async def main() -> None:
    async with coop.open(bots=[coop.MockBot("parrot", echo=True, first_delay=0, delay=0)]) as engine:
        alice = await engine.create_user("alice")
        bob = await engine.create_user("bob")
        room = await alice.create_room("lab", members=[bob])
        for number in range(300):
            await room.send(f"Message {number}")
        await (await bob.room(room.id)).send("That is a lot.")
        await room.ask("parrot", "What was that?")

        frame = await export(room)
        frame["characters"] = frame["text"].str.len()
        counted = frame.groupby("author_name").agg({"id": "count", "characters": "sum"})
        counted.columns = pd.Index(["messages", "characters"])
        print(counted.sort_values("messages", ascending=False).to_string())


asyncio.run(main())
