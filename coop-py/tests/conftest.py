"""What tests share: an engine in memory, two people and a room; and a note of what could not be tested here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import gemini_coop as coop
import parts
import pytest
import pytest_asyncio


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


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of these tests' own: its address."""
    with parts.postgres(tmp_path_factory.mktemp("postgres")) as address:
        yield address


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of these tests' own: its address."""
    with parts.redis(tmp_path_factory.mktemp("redis")) as address:
        yield address


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What was skipped is told with everything else that was."""
    skips = os.environ.get("COOP_SKIPS")
    if report.skipped and skips is not None and isinstance(report.longrepr, tuple):
        with Path(skips).open("a") as table:
            table.write(f"coop-py: {report.nodeid}\t{report.longrepr[2]}\n")
