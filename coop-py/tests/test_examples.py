"""Each example runs, and says what it should."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import parts
import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "python"


def run(name: str, folder: Path, **environment: str) -> str:
    """What it prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_quickstart(tmp_path: Path) -> None:
    assert run("quickstart.py", tmp_path) == (
        "alice: /echo one answer, live for everyone\none answer, live for everyone [done]\n"
    )


def test_cancellation(tmp_path: Path) -> None:
    said = run("cancellation.py", tmp_path).splitlines()
    assert said == ["stop!", "The pad is free again.", "'10 … ' was said, then it was stopped."]


def test_export_to_pandas(tmp_path: Path) -> None:
    _, _, *rows = run("export_pandas.py", tmp_path).splitlines()
    counted = {row[:14].strip(): row[14:].split() for row in rows}
    many = sum(len(f"Message {number}") for number in range(300)) + len("/parrot What was that?")
    assert counted == {"alice": ["301", str(many)], "bob": ["1", "14"], "parrot (mock)": ["1", "14"]}


@pytest.mark.timeout(180)
def test_notebook() -> None:
    # Neither is typed.
    nbformat, nbclient = (importlib.import_module(name) for name in ("nbformat", "nbclient"))
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=60).execute()
    printed: list[str] = [
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert "".join(text for text in printed if "[done]" in text or "word" in text).startswith(
        "one word after another [done]"
    )
    assert printed[-1] == "['/slowly one word after another', 'one word after another ']"


class Model(BaseHTTPRequestHandler):
    """What speaks as a model's service does."""

    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        """Streams an answer of three pieces and the tokens it took, or refuses."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for piece in ("In ", "Ljubljana", "."):
            self.say({"choices": [{"index": 0, "delta": {"content": piece}}]})
        usage = {"prompt_tokens": 31, "completion_tokens": 3, "total_tokens": 34}
        self.say({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def say(self, piece: dict[str, Any]) -> None:
        """One event of the stream."""
        whole = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"} | piece
        self.wfile.write(f"data: {json.dumps(whole)}\n\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quietly."""


def test_a_bot_over_an_llm_sdk(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    handler = type("Handler", (Model,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        threading.Thread(target=service.serve_forever).start()
        url = f"http://127.0.0.1:{service.server_port}/v1"
        said = run("llm_stream.py", tmp_path, OPENAI_BASE_URL=url, OPENAI_API_KEY="none")
        service.shutdown()
    assert said == "Model: In Ljubljana.\ndone, 31 tokens read and 3 written\n"
    first = asked[0]["messages"]
    assert first[0]["role"] == "system" and "Be brief." in first[0]["content"]
    assert "on Tuesday" in first[-1]["content"] and "Where do we meet?" in first[-1]["content"]
    assert [message["role"] for message in asked[1]["messages"]] == ["system", "user", "assistant", "user"]
    away = subprocess.run(
        [sys.executable, EXAMPLES / "llm_stream.py"],
        env=os.environ
        | {"OPENAI_BASE_URL": f"http://127.0.0.1:{parts.free_port()}", "OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert away.returncode == 1 and "The model cannot be reached." in away.stderr


@contextlib.contextmanager
def serving(command: list[str], folder: Path, **environment: str) -> Generator[subprocess.Popen[str]]:
    """A program that serves until the end of the block, which is told to end then."""
    program = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield program
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=30)
        assert program.returncode == 0, err
    finally:
        program.kill()
        program.communicate()


def fetch(url: str, body: dict[str, str] | None = None) -> Any:
    """JSON from there, as soon as there is somebody."""
    data = None if body is None else json.dumps(body).encode()
    for _ in range(400):
        with contextlib.suppress(ConnectionError, urllib.error.URLError):
            request = urllib.request.Request(url, data, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        time.sleep(0.05)
    raise TimeoutError(url)


def test_serving(tmp_path: Path) -> None:
    port = parts.free_port()
    with serving([sys.executable, str(EXAMPLES / "serving.py")], tmp_path, PORT=str(port)):
        url = f"http://127.0.0.1:{port}"
        assert fetch(url + "/health")["status"] == "healthy"
        made = fetch(
            url + "/api/auth/register",
            {"username": "carol", "email": "carol@example.org", "password": "correct horse"},
        )
        assert made["username"] == "carol"
    assert (tmp_path / "chat.db").exists()


def test_beside_fastapi(tmp_path: Path) -> None:
    port, chat = parts.free_port(), parts.free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "beside_fastapi:app",
        "--app-dir",
        str(EXAMPLES),
        "--port",
        str(port),
    ]
    with serving(command, tmp_path, CHAT_PORT=str(chat)):
        url = f"http://127.0.0.1:{port}"
        assert fetch(url) == {"chat": f"http://127.0.0.1:{chat}"}
        order = {"id": "order-1", "what": "three apples"}
        first, again = fetch(url + "/orders", order), fetch(url + "/orders", order)
        assert first == again and first["message"] > 0
        assert fetch(f"http://127.0.0.1:{chat}/health")["status"] == "healthy"
