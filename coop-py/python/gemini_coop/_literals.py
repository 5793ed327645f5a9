"""The words for how things stand."""

from typing import Literal, TypeAlias

MessageStatus: TypeAlias = Literal["streaming", "done", "stopped", "failed", "interrupted"]
TurnStatus: TypeAlias = Literal["queued", "streaming", "done", "stopped", "failed", "interrupted"]
EndStatus: TypeAlias = Literal["done", "stopped", "failed", "interrupted"]
Role: TypeAlias = Literal["owner", "member"]
