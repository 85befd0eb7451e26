"""Sends an execution to a node over Redis, waits for its callback and prints it: one line of JSON a callback.

    client.py [--tenant acme] [--tier professional] [--agent guide] [--session s1] "How are you?"
    client.py --batch file        one item a line: a message, or an object such as {"agent_id": …, "input": …}
    client.py --cancel task_id

REDIS_URL as in peer.py. The task's id goes to stderr, for --cancel. Exit code: 0 where it succeeded, 1 where it was
refused, failed, was cancelled or not answered in time, 2 where the command line is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import uuid
from typing import Any, Iterator, Optional

import redis

from envelope import (
    ID_PATTERN,
    MAX_ACTION_BYTES,
    TIERS,
    Malformed,
    encoded,
    new_action,
    parse_action,
)

MAX_WAIT_SECONDS = 86_400


class Failed(Exception):
    """Why there is no callback, for people to read."""


def identifier(text: str) -> str:
    """An id as the protocol has them; else argparse tells the text of the error."""
    if not ID_PATTERN.fullmatch(text):
        raise argparse.ArgumentTypeError("must be 1 to 128 characters out of A-Z a-z 0-9 . _ : @ -")
    return text


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= MAX_WAIT_SECONDS:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {MAX_WAIT_SECONDS}")
    return value


def arguments(words: Optional[list[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sends an execution to a node and waits for its callback.")
    parser.add_argument("--tenant", type=identifier, default="acme")
    parser.add_argument("--tier", choices=TIERS, default="professional")
    parser.add_argument("--agent", type=identifier, default="guide")
    parser.add_argument("--session", type=identifier, help="a conversation; without it, one of its own")
    parser.add_argument("--wait", type=seconds, default=60, metavar="SECONDS", help="deadline, default 60")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("message", nargs="?")
    what.add_argument("--batch", metavar="FILE", help="- reads standard input")
    what.add_argument("--cancel", type=identifier, metavar="TASK_ID")
    return parser.parse_args(words)


def items_of(path: str, agent: str) -> list[dict[str, Any]]:
    """The items of a batch. Raises Failed where the file can not be read, or a line is no item."""
    try:
        with sys.stdin if path == "-" else open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"the batch can not be read: {error}") from error
    items = [item_of(number, line, agent) for number, line in enumerate(lines, 1) if line]
    if not items:
        raise Failed("the batch is empty")
    return items


def item_of(number: int, line: str, agent: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {"agent_id": agent, "input": line}
    try:
        return {"agent_id": agent, **json.loads(line)}
    except (ValueError, RecursionError) as error:
        raise Failed(f"line {number} of the batch is not JSON") from error


def action_of(given: argparse.Namespace, task_id: str, callback_queue: str) -> dict[str, Any]:
    """What the command line asks for."""
    if given.cancel is not None:
        kind, data = "execution.cancel", {"task_id": given.cancel}
    elif given.batch is not None:
        kind, data = "execution.batch", {"items": items_of(given.batch, given.agent)}
    else:
        kind, data = "execution.agent_run", {"agent_id": given.agent, "input": given.message}
    return new_action(
        kind,
        given.tenant,
        data,
        tenant_tier=given.tier,
        task_id=task_id,
        session_id=given.session,
        correlation_id=task_id,
        callback_queue=callback_queue,
    )


def replies(client: redis.Redis, queue: str, task: dict[str, Any], wait: float) -> Iterator[dict[str, Any]]:
    """The replies to a task as they come, oldest first. Raises Failed when `wait` seconds have passed."""
    deadline = time.monotonic() + wait
    while (left := deadline - time.monotonic()) > 0:
        # Whole seconds at least: Redis reads 0 as "for ever".
        taken = client.brpop([queue], timeout=min(5, int(left) + 1))
        if taken is None:
            continue
        try:
            action = parse_action(taken[1])
        except Malformed as problem:
            raise Failed(f"the node's reply is malformed: {problem}") from problem
        mine = action.tenant_id == task["tenant_id"]
        if mine and action.get("correlation_id") == task["correlation_id"]:
            yield dict(action.fields)
    raise Failed(f"no callback within {wait:g} s")


def run(client: redis.Redis, given: argparse.Namespace) -> bool:
    """Sends the action and prints what comes back; whether all went well."""
    task_id = str(uuid.uuid4())
    queue = f"python_client:responses:execution:{task_id}"
    task = action_of(given, task_id, queue)
    body = encoded(task)
    if len(body) > MAX_ACTION_BYTES:
        raise Failed(f"that is larger than {MAX_ACTION_BYTES} bytes")
    client.lpush(f"execution_service:{given.tier}:default", body)
    print(f"task_id {task_id}", file=sys.stderr, flush=True)
    went_well = True
    try:
        for reply in replies(client, queue, task, given.wait):
            print(json.dumps(reply, ensure_ascii=True), flush=True)
            went_well = went_well and succeeded(reply, given)
            if given.batch is None or is_over(reply):
                return went_well
    finally:
        # What comes after the deadline makes the list anew: the node lets it expire, by its name.
        client.delete(queue)
    return False


def data_of(reply: dict[str, Any]) -> dict[str, Any]:
    return reply.get("data", reply.get("payload", {}))


def succeeded(reply: dict[str, Any], given: argparse.Namespace) -> bool:
    """A cancel succeeds when the task is cancelled, a run when it is not."""
    status = data_of(reply).get("status")
    if reply["action_type"] == "execution.batch_completed":
        return True
    wanted = "success" if given.cancel is None else "cancelled"
    return reply["action_type"] == "execution.callback" and status == wanted


def is_over(reply: dict[str, Any]) -> bool:
    """The batch has ended, or was refused as a whole: the reply to an item says which (`index`)."""
    refused = reply["action_type"] == "execution.error" and "index" not in data_of(reply)
    return refused or reply["action_type"] == "execution.batch_completed"


def main() -> int:
    given = arguments()
    try:
        url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
        client = redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=10)
        return 0 if run(client, given) else 1
    except (Failed, redis.RedisError, ValueError) as error:
        print(f"client: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
