"""Beside FastAPI: the application has its own routes, the chat has its own port, and both are one program on one loop.

uvicorn beside_fastapi:app
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import gemini_coop as coop
from fastapi import FastAPI, Request
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """The chat lives as long as the application."""
    async with coop.open("chat.db", bots=[coop.ScribeBot()]) as engine:
        try:
            robot = await engine.find_user("robot")
        except coop.NotFoundError:
            robot = await engine.create_user("robot")
        rooms = await robot.rooms()
        news = await robot.room(rooms[0].id) if rooms else await robot.create_room("news")
        port = int(os.environ.get("CHAT_PORT", "8001"))
        origin = os.environ.get("APP_ORIGIN", "http://127.0.0.1:8000")
        async with coop.serve(engine, port=port, cors_origins=[origin]) as server:
            app.state.news, app.state.url = news, server.url
            yield


app = FastAPI(lifespan=lifespan)


class Order(BaseModel):
    """What the shop has sold."""

    id: str
    what: str


@app.get("/")
async def where(request: Request) -> dict[str, str]:
    """Where the chat is."""
    return {"chat": request.app.state.url}


@app.post("/orders")
async def order(order: Order, request: Request) -> dict[str, int]:
    """Tells everybody in the room of an order; of each once, however often this is called."""
    news: coop.Room = request.app.state.news
    sent = await news.send(f"An order: {order.what}", client_id=order.id, meta={"order": order.id})
    return {"message": sent.message.id}
