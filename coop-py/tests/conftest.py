"""What tests share: an engine in memory, two people and a room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest_asyncio

import gemini_coop as coop


@dataclass
class Lab:
    """Alice owns the room, Bob is in it."""

    engine: coop.Engine
    alice: coop.User
    bob: coop.User
    room: coop.Room
    bobs: coop.Room


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    async with coop.open() as engine:
        alice = await engine.create_user("alice")
        bob = await engine.create_user("bob")
        room = await alice.create_room("lab", members=[bob])
        yield Lab(engine, alice, bob, room, await bob.room(room.id))
