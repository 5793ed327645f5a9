"""The examples in docstrings and in the README, which run as they stand.

They are written for `python -m asyncio`, where one awaits without a function around; `engine`, `alice`, `bob` and `room` are
there.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import doctest
import inspect
import io
import pkgutil
import re
import sys
import types
from pathlib import Path
from typing import Any

import gemini_coop as coop
import pytest
from conftest import Lab

ROOT = Path(__file__).parent.parent


def _documented() -> list[tuple[str, str]]:
    """Everything with a docstring that has an example."""
    found: dict[str, str] = {}
    modules = [
        coop,
        *(sys.modules[f"gemini_coop.{module.name}"] for module in pkgutil.iter_modules(coop.__path__)),
    ]
    for module in modules:
        things: list[tuple[str, object]] = [(module.__name__, module)]
        for name, thing in vars(module).items():
            if isinstance(thing, (type, types.FunctionType)) and thing.__module__ == module.__name__:
                things.append((f"{module.__name__}.{name}", thing))
                if isinstance(thing, type):
                    things += [
                        (f"{module.__name__}.{name}.{part}", value) for part, value in vars(thing).items()
                    ]
        for name, thing in things:
            text = inspect.getdoc(thing) if not isinstance(thing, (str, int)) else None
            if text is not None and ">>>" in text:
                found[name] = text
    return sorted(found.items())


@pytest.mark.parametrize(("name", "text"), _documented(), ids=lambda value: value.split("\n")[0][:60])
async def test_examples_in_docstrings(
    lab: Lab, name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @lab.engine.bot("echo")
    async def _(turn: coop.Turn) -> str:
        return turn.prompt

    globs: dict[str, Any] = {"asyncio": asyncio, "coop": coop} | vars(lab)
    globs |= {"__name__": "__main__", "__builtins__": builtins}
    for example in doctest.DocTestParser().get_examples(text):
        out = io.StringIO()
        code = compile(example.source, name, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        shown: list[object] = []
        monkeypatch.setattr(sys, "displayhook", shown.append)
        with contextlib.redirect_stdout(out):
            if code.co_flags & inspect.CO_COROUTINE:
                await types.FunctionType(code, globs)()
            elif "asyncio.run(" in example.source:
                await asyncio.to_thread(eval, code, globs)
            else:
                eval(code, globs)
        monkeypatch.undo()
        got = out.getvalue() + "".join(f"{value!r}\n" for value in shown if value is not None)
        checker = doctest.OutputChecker()
        flags = doctest.ELLIPSIS
        assert checker.check_output(example.want, got, flags), (
            f"{example.source}wanted {example.want}got {got}"
        )


def test_everything_public_is_documented() -> None:
    for name in coop.__all__:
        thing = getattr(coop, name)
        if isinstance(thing, (type, types.FunctionType)):
            assert thing.__doc__, name
            for part, value in vars(thing).items():
                if not part.startswith("_") and isinstance(value, (types.FunctionType, property)):
                    assert value.__doc__, f"{name}.{part}"


def test_the_readme_is_one_program() -> None:
    """The README's first program, told to end as soon as it serves."""
    import os
    import signal
    import subprocess
    import tempfile
    import urllib.request

    import parts

    text = (ROOT / "README.md").read_text()
    [program, *_] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    port = parts.free_port()
    program = program.replace("port=8000", f"port={port}")
    assert str(port) in program
    with tempfile.TemporaryDirectory() as folder:
        running = subprocess.Popen(
            [sys.executable, "-c", program], cwd=folder, stderr=subprocess.PIPE, env=os.environ
        )
        page = b""
        for _ in range(200):
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    page = answer.read()
                break
            assert running.poll() is None, running.stderr and running.stderr.read()
            import time

            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=20)
    assert b"<!doctype html>" in page.lower()
    assert (running.returncode, err) == (0, b"")
