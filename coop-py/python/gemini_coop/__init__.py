"""Group chat with AI bots: people and bots share rooms, and a bot's answer streams live to everybody in the room.

>>> import asyncio
>>> import gemini_coop as coop
>>> async def main():
...     async with coop.open() as engine:
...         @engine.bot("echo")
...         async def echo(turn):
...             for word in turn.prompt.split():
...                 yield word + " "
...         alice = await engine.create_user("alice")
...         room = await alice.create_room("lab")
...         answer = await room.ask("echo", "one answer, live for everyone")
...         return answer.text
>>> asyncio.run(main())
'one answer, live for everyone '
"""

from . import testing
from ._bots import (
    Bot,
    BotFunction,
    BotSettings,
    BuiltinBot,
    Context,
    ContextTurn,
    GeminiBot,
    MockBot,
    Reply,
    ScribeBot,
    Turn,
)
from ._engine import AnyBot, Engine, Opening, Stats, open, serve
from ._errors import (
    BadRequestError,
    BotError,
    BotTimeoutError,
    BudgetExceededError,
    BusyError,
    ClosedError,
    ConflictError,
    CoopError,
    ForbiddenError,
    ForkedProcessError,
    InternalError,
    InUseError,
    NewerSchemaError,
    NotADatabaseError,
    NotFoundError,
    RateLimitedError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    WrongLoopError,
)
from ._literals import EndStatus, MessageStatus, Role, TurnStatus
from ._logging import disable_logging, enable_logging
from ._native import (
    Account,
    Author,
    Delta,
    Event,
    Gone,
    Member,
    MemberJoined,
    MemberLeft,
    Message,
    MessageDeleted,
    MessageEdited,
    MessagePosted,
    Presence,
    ReadMark,
    RoomEntry,
    RoomGained,
    RoomInfo,
    RoomUpdated,
    Snapshot,
    Tape,
    TurnEnd,
    TurnEnded,
    TurnInfo,
    TurnQueued,
    TurnStarted,
    Typing,
    Usage,
)
from ._rooms import Room, RoomSettings, Sent, TurnHandle, User
from ._serve import Server
from ._subscription import Position, Subscription

__all__ = [
    "Account",
    "AnyBot",
    "Author",
    "BadRequestError",
    "Bot",
    "BotError",
    "BotFunction",
    "BotSettings",
    "BotTimeoutError",
    "BudgetExceededError",
    "BuiltinBot",
    "BusyError",
    "ClosedError",
    "ConflictError",
    "Context",
    "ContextTurn",
    "CoopError",
    "Delta",
    "EndStatus",
    "Engine",
    "Event",
    "ForbiddenError",
    "ForkedProcessError",
    "GeminiBot",
    "Gone",
    "InUseError",
    "InternalError",
    "Member",
    "MemberJoined",
    "MemberLeft",
    "Message",
    "MessageDeleted",
    "MessageEdited",
    "MessagePosted",
    "MessageStatus",
    "MockBot",
    "NewerSchemaError",
    "NotADatabaseError",
    "NotFoundError",
    "Opening",
    "Position",
    "Presence",
    "RateLimitedError",
    "ReadMark",
    "Reply",
    "Role",
    "Room",
    "RoomEntry",
    "RoomGained",
    "RoomInfo",
    "RoomSettings",
    "RoomUpdated",
    "ScribeBot",
    "Sent",
    "Server",
    "Snapshot",
    "Stats",
    "Subscription",
    "Tape",
    "TooLargeError",
    "Turn",
    "TurnEnd",
    "TurnEnded",
    "TurnHandle",
    "TurnInfo",
    "TurnQueued",
    "TurnStarted",
    "TurnStatus",
    "Typing",
    "UnauthorizedError",
    "UnavailableError",
    "Usage",
    "User",
    "WrongLoopError",
    "disable_logging",
    "enable_logging",
    "open",
    "serve",
    "testing",
]
