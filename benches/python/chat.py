"""A chat of one room as the package `websockets` does it: `broadcast` to all connections.

`python chat.py PORT_FILE`, or `--check` to say whether it could be started.
"""

import asyncio
import os
import sys
from pathlib import Path

from websockets import ConnectionClosed
from websockets.asyncio.server import ServerConnection, broadcast, serve

everybody: set[ServerConnection] = set()


async def converse(connection: ServerConnection) -> None:
    everybody.add(connection)
    try:
        async for message in connection:
            broadcast(everybody, message)
    except ConnectionClosed:
        pass  # Nobody says goodbye here.
    finally:
        everybody.discard(connection)


async def main(port_file: Path) -> None:
    async with serve(converse, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        draft = port_file.with_suffix(".new")
        draft.write_text(str(port))
        os.replace(draft, port_file)
        await server.serve_forever()


if sys.argv[1] != "--check":
    asyncio.run(main(Path(sys.argv[1])))
