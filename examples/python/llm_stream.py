"""A bot over the stream of a model, by the OpenAI SDK. Any service that speaks its protocol will do:

OPENAI_BASE_URL=http://localhost:11434/v1 OPENAI_API_KEY=none OPENAI_MODEL=llama3.2 python llm_stream.py
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Literal

import gemini_coop as coop
import openai
from openai.types.chat import ChatCompletionMessageParam


class Model:
    """Asks a model with everything the room has said."""

    name = "model"
    settings = coop.BotSettings(
        name="Model",
        about="Ask me anything; I can be wrong.",
        system="Be brief.",
        context_tokens=4_000,
        metered=True,
    )

    def __init__(self) -> None:
        self.model = os.environ.get("OPENAI_MODEL", "gpt-5-mini")
        self.client = openai.AsyncOpenAI(max_retries=0)

    async def reply(self, turn: coop.Turn) -> AsyncIterator[str]:
        messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": turn.context.system}]
        for said in turn.context.turns:
            role: Literal["user", "assistant"] = "user" if said.side == "user" else "assistant"
            text = "\n".join(said.parts)
            messages.append(
                {"role": "user", "content": text}
                if role == "user"
                else {"role": "assistant", "content": text}
            )
        try:
            stream = await self.client.chat.completions.create(
                model=self.model, messages=messages, stream=True, stream_options={"include_usage": True}
            )
            # A stop closes the connection, so that no more tokens are paid for.
            async with stream:
                async for chunk in stream:
                    if chunk.usage is not None:
                        turn.report_usage(
                            input=chunk.usage.prompt_tokens, output=chunk.usage.completion_tokens
                        )
                    for choice in chunk.choices:
                        if choice.delta.content:
                            yield choice.delta.content
        except openai.RateLimitError as error:
            raise coop.BotError("The model asks to slow down.", code="rate_limited") from error
        except openai.APIConnectionError as error:
            raise coop.BotError("The model cannot be reached.", code="unavailable") from error


async def main() -> None:
    async with coop.open(bots=[Model()]) as engine:
        room = await (await engine.create_user("alice")).create_room("lab")
        await room.send("We meet in Ljubljana, on Tuesday.")
        answer = await room.ask("model", "Where do we meet?")
        print(f"{answer.author}: {answer.text}")
        turn = (await room.send("/model And when?")).turn
        assert turn is not None
        end = await turn
        if end.usage is not None:
            print(f"{end.status}, {end.usage.input} tokens read and {end.usage.output} written")


asyncio.run(main())
