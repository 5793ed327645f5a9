"""Types and style of the package, of these tests and of the examples; and that the stub says what the extension has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "tool",
    [
        ["-m", "mypy"],
        ["-m", "pyright", "--warnings", "--pythonpath", sys.executable],
        ["-m", "mypy.stubtest", "gemini_coop", "--allowlist", "tests/stubtest.txt"],
        [
            "-m",
            "ruff",
            "check",
            "--config",
            "pyproject.toml",
            "python",
            "tests",
            "../examples/python",
            "../benches/python",
        ],
        [
            "-m",
            "ruff",
            "format",
            "--check",
            "--config",
            "pyproject.toml",
            "python",
            "tests",
            "../examples/python",
            "../benches/python",
        ],
    ],
    ids=lambda tool: f"{tool[1]} {tool[2] if len(tool) > 2 else ''}".strip(),
)
@pytest.mark.timeout(300)
def test_tool(tool: list[str]) -> None:
    done = subprocess.run([sys.executable, *tool], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
