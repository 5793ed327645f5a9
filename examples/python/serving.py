"""A chat server with a bot of one's own: open http://127.0.0.1:8000 in two windows."""

import asyncio
import os
import random
from collections.abc import AsyncIterator

import gemini_coop as coop


async def main() -> None:
    coop.enable_logging()
    async with coop.open("chat.db", bots=[coop.ScribeBot()]) as engine:

        @engine.bot("dice", about="/dice 3 throws three dice.")
        async def dice(turn: coop.Turn) -> AsyncIterator[str]:
            for _ in range(int(turn.prompt or "1")):
                await asyncio.sleep(0.2)
                yield random.choice("⚀⚁⚂⚃⚄⚅") + " "

        port = int(os.environ.get("PORT", "8000"))
        print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
        # Who logs in stays logged in across restarts if the secret does.
        await coop.serve(engine, port=port, secret=os.environ.get("COOP_JWT_SECRET"))


asyncio.run(main())
