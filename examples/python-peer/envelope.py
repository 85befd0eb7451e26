"""The envelope in which services speak to a node over Redis lists: how it is read, answered and made."""

from __future__ import annotations

import json
import math
import re
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Mapping, Optional

TIERS = ("free", "advance", "professional", "enterprise")

# A reply that nobody fetches must not stay for ever.
REPLY_TTL_SECONDS = 300
# What a node takes; larger bodies are refused on both sides.
MAX_ACTION_BYTES = 4 * 1024 * 1024

ID_PATTERN = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
TYPE_PATTERN = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
TIME_PATTERN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", re.ASCII)
QUEUE_PATTERN = re.compile(r"[\x21-\x7e]{1,512}")

# Copied from an action into its reply.
COPIED = ("task_id", "tenant_id", "tenant_tier", "session_id", "agent_id", "correlation_id", "trace_id")
IDS = ("action_id", "task_id", "session_id", "user_id", "agent_id", "correlation_id", "trace_id")

Data = Mapping[str, Any]


class Malformed(Exception):
    """A body that is no action. Its text says what is wrong and quotes nothing of the body."""


@dataclass(frozen=True)
class Action:
    """One action, checked: ids are ids, `data` is a map. `fields` is the envelope without nulls."""

    type: str
    tenant_id: str
    data: Data
    callback_queue: Optional[str]
    fields: Data

    def get(self, name: str) -> Optional[str]:
        """An id of the envelope; older senders put some of them into `data`."""
        value = self.fields.get(name, self.data.get(name))
        return value if isinstance(value, str) and ID_PATTERN.fullmatch(value) else None

    @property
    def timestamp(self) -> str:
        """When it was made, as far as that can be read."""
        value = self.fields.get("timestamp")
        return value if isinstance(value, str) and TIME_PATTERN.fullmatch(value) else now()


def parse_action(body: bytes) -> Action:
    """Reads a JSON body. Raises Malformed for everything else, msgpack included."""
    fields = _object(body)
    data = fields.get("data", fields.get("payload", {}))
    if not isinstance(data, dict):
        raise Malformed("data must be an object")
    action_type = _checked(fields, "action_type", TYPE_PATTERN)
    tenant_id = _checked(fields, "tenant_id", ID_PATTERN)
    if action_type is None or tenant_id is None:
        raise Malformed("action_type and tenant_id are needed")
    for name in IDS:
        _checked(fields, name, ID_PATTERN)
    fields.setdefault("callback_queue", fields.get("callback_queue_name"))
    callback_queue = _checked(fields, "callback_queue", QUEUE_PATTERN)
    return Action(action_type, tenant_id, data, callback_queue, fields)


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_ACTION_BYTES:
        raise Malformed(f"larger than {MAX_ACTION_BYTES} bytes")
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Malformed("not JSON (this peer reads no msgpack: PEER_ENCODING=json)") from error
    if not isinstance(value, dict):
        raise Malformed("not an object")
    return {name: each for name, each in value.items() if each is not None}


def _no_constant(_name: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number too large")
    return number


def _checked(fields: Data, name: str, pattern: re.Pattern[str]) -> Optional[str]:
    value = fields.get(name)
    if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
        raise Malformed(f"{name} is not what it must be")
    return value


def reply_type(action_type: str) -> str:
    """`query.request` and `embedding.request` are answered by callbacks, all others by responses."""
    if action_type in ("query.request", "embedding.request"):
        return action_type.replace(".request", ".callback")
    return f"{action_type}.response"


def reply_to(action: Action, data: Data) -> dict[str, Any]:
    """The reply to an action; `data` says whether it succeeded."""
    copied = {name: action.fields[name] for name in COPIED if name in action.fields}
    return {**copied, **_new(reply_type(action.type), action.tenant_id, data)}


def new_action(action_type: str, tenant_id: str, data: Data, **fields: Optional[str]) -> dict[str, Any]:
    """An action of our own; fields that are None are left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    return {**given, **_new(action_type, tenant_id, data)}


def _new(action_type: str, tenant_id: str, data: Data) -> dict[str, Any]:
    return {
        "action_id": str(uuid.uuid4()),
        "action_type": action_type,
        "tenant_id": tenant_id,
        "data": data,
        "metadata": {},
        "timestamp": now(),
    }


def now() -> str:
    """The time as the protocol writes it: ISO 8601 in UTC with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encoded(message: Data) -> bytes:
    """A message as JSON. Only ASCII is written: half a surrogate pair survives as the escape that it came as."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii")
