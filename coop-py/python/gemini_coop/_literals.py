"""The words for how things stand."""

from typing import Literal

MessageStatus = Literal["streaming", "done", "stopped", "failed", "interrupted"]
TurnStatus = Literal["queued", "streaming", "done", "stopped", "failed", "interrupted"]
EndStatus = Literal["done", "stopped", "failed", "interrupted"]
Role = Literal["owner", "member"]
