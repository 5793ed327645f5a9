"""Servers that tests start for themselves, on loopback and with nothing kept."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import pytest


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError("it does not listen")


@contextlib.contextmanager
def _running(command: list[str], port: int, user: str | None = None) -> Generator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user)
    try:
        _until_it_listens(port, process)
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def redis(folder: Path) -> Generator[str]:
    """A Redis that is there for the time of the block."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server")
    port = free_port()
    settings = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with _running([program, *settings], port):
        yield f"redis://127.0.0.1:{port}"


@contextlib.contextmanager
def postgres(folder: Path) -> Generator[str]:
    """A PostgreSQL that is there for the time of the block."""
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not folders:
        pytest.skip("there is no PostgreSQL under /usr/lib/postgresql")
    user = None
    if os.getuid() == 0:
        # It refuses to run as root.
        user = "postgres"
        owner = pwd.getpwnam(user)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        for above in (folder, *folder.parents):
            if above.owner() == "root" and not above.stat().st_mode & 0o001:
                above.chmod(above.stat().st_mode | 0o011)
    data, port = folder / "data", free_port()
    made = [
        "--username=coop",
        "--auth=trust",
        "--encoding=UTF8",
        "--no-locale",
        "--no-sync",
        f"--pgdata={data}",
    ]
    subprocess.run([f"{folders[-1]}/initdb", *made], check=True, stdout=subprocess.DEVNULL, user=user)
    settings = [
        "-D",
        str(data),
        "-p",
        str(port),
        "-k",
        str(folder),
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "fsync=off",
    ]
    with _running([f"{folders[-1]}/postgres", *settings], port, user):
        yield f"postgres://coop@127.0.0.1:{port}/postgres"
