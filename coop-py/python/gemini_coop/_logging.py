"""What the engine's threads have to tell, as records of :mod:`logging`."""

from __future__ import annotations

import logging

from . import _native


def enable_logging(level: int | str = logging.INFO) -> None:
    """Has the engine's own records, from this level on, go to :mod:`logging`, under the logger ``gemini_coop``. They come
    with the loop, in batches, and never from another thread.

    >>> coop.enable_logging("WARNING")
    """
    number = logging.getLevelNamesMapping()[level.upper()] if isinstance(level, str) else level
    if not _native.enable_logging(max(0, min(number, 254))):
        raise RuntimeError("another part of this process has taken the engine's records")


def disable_logging() -> None:
    """Has them go nowhere again.

    >>> coop.disable_logging()
    """
    _native.disable_logging()
