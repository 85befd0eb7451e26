"""What the peer knows and how it answers: agents, conversations, passages, embeddings, tools, each tenant's apart."""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from envelope import Action, Data

Vector = Sequence[float]

EMBEDDING_MODEL = "hashed-words-256"
DIMENSIONS = 256
MAX_TEXTS = 256
MAX_TEXT = 200_000
ROLES = ("user", "assistant", "system", "tool")

# Conversations are held in memory: the oldest go first.
MAX_CONVERSATIONS = 10_000
MAX_MESSAGES = 1_000
# Characters of one answered history: a reply has to fit into an action, and JSON may take twelve bytes for one.
MAX_HISTORY_TEXT = 300_000


class Refusal(Exception):
    """An answer that is no: its code is one of the protocol's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _invalid(message: str) -> Refusal:
    return Refusal("INVALID_REQUEST", message)


# --- Reading what was asked -------------------------------------------------------------------------------------


def _text(data: Data, *names: str) -> str:
    """The first of these fields that is there; it must be a text."""
    value = next((data[name] for name in names if data.get(name) is not None), None)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise _invalid(f"{names[0]} must be a text of at most {MAX_TEXT} characters")
    return value


def _texts(data: Data, name: str) -> Sequence[str]:
    value = data.get(name)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _invalid(f"{name} must be a list of texts")
    if len(value) > MAX_TEXTS or sum(map(len, value)) > MAX_TEXT:
        raise _invalid(f"{name}: at most {MAX_TEXTS} texts, {MAX_TEXT} characters in all")
    return value


def _count(data: Data, name: str, default: int, most: int) -> int:
    value = data.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _invalid(f"{name} must be a whole number above 0")
    return min(value, most)


def _number(data: Data, name: str) -> float:
    value = data.get(name)
    # A whole number may be too large to be a float, and too long to be printed.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        return value
    raise _invalid(f"{name} must be a number below 1e300")


# --- Embeddings -------------------------------------------------------------------------------------------------


def embed(text: str) -> Vector:
    """A vector of length 1 (0 for a text without words): each word adds or takes 1 at the place its hash names."""
    vector = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()
        vector[digest[0] % DIMENSIONS] += 1.0 if digest[1] % 2 else -1.0
    length = math.sqrt(sum(x * x for x in vector)) or 1.0
    return [round(x / length, 6) for x in vector]


def likeness(one: Vector, other: Vector) -> float:
    """The cosine of two vectors of length 1."""
    return sum(x * y for x, y in zip(one, other))


# --- Conversations ----------------------------------------------------------------------------------------------


class Conversations:
    """Messages by tenant and session. In memory: what has to outlive this process belongs into a database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], deque[dict[str, Any]]] = OrderedDict()

    def save(self, tenant_id: str, session_id: str, action_id: Optional[str], message: dict[str, Any]) -> bool:
        """Keeps a message; False where this action has brought it before, for actions may come twice."""
        key = (tenant_id, session_id)
        with self._lock:
            messages = self._known.setdefault(key, deque(maxlen=MAX_MESSAGES))
            self._known.move_to_end(key)
            if len(self._known) > MAX_CONVERSATIONS:
                self._known.popitem(last=False)
            if action_id is not None and any(each["action_id"] == action_id for each in messages):
                return False
            messages.append({**message, "action_id": action_id})
            return True

    def history(self, tenant_id: str, session_id: str, limit: int) -> list[dict[str, Any]]:
        """The newest `limit` messages, newest last; fewer where they are long."""
        with self._lock:
            messages = list(self._known.get((tenant_id, session_id), ()))[-limit:]
        room, kept = MAX_HISTORY_TEXT, []
        for message in reversed(messages):
            room -= len(message["content"])
            if room < 0 and kept:
                break
            kept.append({name: value for name, value in message.items() if name != "action_id"})
        return kept[::-1]


# --- Tools ------------------------------------------------------------------------------------------------------


def add(args: Data) -> Any:
    """The sum of `a` and `b`."""
    return _number(args, "a") + _number(args, "b")


def weather(args: Data) -> Any:
    """The weather in `city`, always the same: it is made up from the name."""
    city = _text(args, "city")
    digest = hashlib.sha256(city.lower().encode("utf-8", "surrogatepass")).digest()
    return {"city": city, "celsius": digest[0] % 35, "sky": ("clear", "cloudy", "rain")[digest[1] % 3]}


TOOLS: dict[str, Callable[[Data], Any]] = {"add": add, "weather": weather}


# --- Answers ----------------------------------------------------------------------------------------------------


class Answers:
    """Answers actions: `answer` returns the reply's data, or raises Refusal. Several threads may ask at once."""

    def __init__(self, folder: Path) -> None:
        """Reads agents.json (tenant → agent id → configuration) and passages.json (tenant → collection → list)."""
        self._agents: dict[str, dict[str, Data]] = json.loads((folder / "agents.json").read_text("utf-8"))
        self._passages = _indexed(json.loads((folder / "passages.json").read_text("utf-8")))
        self._conversations = Conversations()
        self._by_service: dict[str, dict[str, Callable[[Action], Data]]] = {
            "management": {"management.get_agent_config": self._agent_config},
            "conversation": {
                "conversation.get_history": self._history,
                "conversation.save_message": self._save_message,
            },
            "embedding": {"embedding.request": self._embeddings},
            "query": {"query.request": self._query},
            "tool_registry": {"tool.execute": self._tool},
        }

    @property
    def services(self) -> Sequence[str]:
        """The services it can be asked as; a service is asked for its own actions only."""
        return tuple(self._by_service)

    def answer(self, service: str, action: Action) -> Data:
        handler = self._by_service[service].get(action.type)
        if handler is None:
            raise _invalid(f"the {service} service does not know this action_type")
        return handler(action)

    def _agent_config(self, action: Action) -> Data:
        agent_id = action.get("agent_id") or "default"
        agent = self._agents.get(action.tenant_id, {}).get(agent_id)
        if agent is None:
            raise Refusal("AGENT_NOT_FOUND", "The tenant has no such agent.")
        return {"agent_config": {**agent, "id": agent_id, "tenant_id": action.tenant_id}}

    def _history(self, action: Action) -> Data:
        limit = _count(action.data, "limit", 50, MAX_MESSAGES)
        return {"messages": self._conversations.history(action.tenant_id, _session(action), limit)}

    def _save_message(self, action: Action) -> Data:
        role = action.data.get("role")
        if role not in ROLES:
            raise _invalid(f"role must be one of {', '.join(ROLES)}")
        message = {
            "role": role,
            "content": _text(action.data, "content"),
            "task_id": action.get("task_id"),
            "agent_id": action.get("agent_id"),
            "created_at": action.timestamp,
        }
        action_id = action.get("action_id")
        return {"saved": self._conversations.save(action.tenant_id, _session(action), action_id, message)}

    def _embeddings(self, action: Action) -> Data:
        one = action.data.get("text")
        texts = [_text(action.data, "text")] if one is not None else _texts(action.data, "texts")
        vectors = [embed(text) for text in texts]
        return {"embeddings": vectors, "model": EMBEDDING_MODEL, "dimensions": DIMENSIONS}

    def _query(self, action: Action) -> Data:
        wanted = embed(_text(action.data, "query", "text"))
        limit = _count(action.data, "limit" if "limit" in action.data else "top_k", 5, 50)
        mine = self._passages.get(action.tenant_id, {})
        names = _texts(action.data, "collections") if "collections" in action.data else tuple(mine)
        # A collection that is named twice is looked through once.
        passages = [each for name in dict.fromkeys(names) for each in mine.get(name, ())]
        found = [{**each, "score": round(likeness(wanted, vector), 6)} for each, vector in passages]
        best = sorted((each for each in found if each["score"] > 0), key=lambda each: -each["score"])
        return {"results": best[:limit]}

    def _tool(self, action: Action) -> Data:
        name = _text(action.data, "tool", "tool_name", "name")
        args = next((action.data[key] for key in ("args", "arguments") if key in action.data), {})
        if name not in TOOLS:
            raise Refusal("NOT_FOUND", "There is no such tool.")
        if not isinstance(args, dict):
            raise _invalid("args must be an object")
        return {"result": TOOLS[name](args)}


def _session(action: Action) -> str:
    session_id = action.get("session_id")
    if session_id is None:
        raise _invalid("session_id is needed")
    return session_id


Passages = dict[str, dict[str, list[tuple[Data, Vector]]]]


def _indexed(tenants: dict[str, dict[str, list[Data]]]) -> Passages:
    """Every passage with its collection's name and its vector."""
    return {
        tenant: {
            name: [({**each, "collection": name}, embed(each["text"])) for each in passages]
            for name, passages in collections.items()
        }
        for tenant, collections in tenants.items()
    }
