"""A service beside a node: answers the actions that a node puts on the lists of its external services.

    REDIS_URL=redis://127.0.0.1:6379 python3 peer.py

Needs redis-py (Debian: python3-redis) and Redis 6.2 or later. REDIS_URL: see redis.Redis.from_url. PEER_NAME (default
`peer`): peers that run side by side need names of their own, since a start takes back what the name's last start left.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import sys
import threading
import time
import traceback
import uuid
from pathlib import Path
from typing import Any, Optional

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from answers import Answers, Refusal
from envelope import (
    ID_PATTERN,
    MAX_ACTION_BYTES,
    REPLY_TTL_SECONDS,
    TIERS,
    Action,
    Data,
    Malformed,
    encoded,
    parse_action,
    reply_to,
)

# How long one BLMOVE waits, and so how long a peer without work takes to stop.
BLOCK_SECONDS = 1
# How long Redis may take to answer. Above BLOCK_SECONDS, or every idle second would look like a broken connection.
ANSWER_SECONDS = 10
PAUSE_SECONDS = 0.5
# Starts that an action may bring down before it counts as poison, and for how long they are remembered.
MAX_DELIVERIES = 3
DELIVERIES_TTL_SECONDS = 3_600
# As a node keeps its own, so that they are listed and replayed alike.
DEAD_QUEUES = "nooble:dead-queues"
MAX_DEAD_LETTERS = 10_000
MAX_DEAD_BYTES = 4_096

_printing = threading.Lock()


def log(event: str, **fields: Any) -> None:
    """One line of JSON. Never given what a message says."""
    line = json.dumps({"at": round(time.time(), 3), "event": event, **fields})
    with _printing:
        print(line, flush=True)


class Desk:
    """Takes from one list, one action at a time, and answers.

    Each list has a thread and a connection of its own that waits in BLMOVE: the one command that waits and, in the
    same step, keeps what it took (in the processing list, until it is answered). BLMPOP and BRPOP wait at many lists
    at once, but hand the action to the connection alone: it is lost where that breaks, or this process dies. Asking
    twenty lists in turn would wait at each for all others. Twenty idle threads cost next to nothing, and a slow answer
    holds up its own list only.

    An action may therefore be worked on twice, and is never lost.
    """

    def __init__(self, client: redis.Redis, answers: Answers, service: str, tier: str, name: str) -> None:
        self._redis = client
        self._answers = answers
        self._service = service
        self.queue = f"{service}_service:{tier}:default"
        self._processing = f"{self.queue}:processing:{name}"

    def give_back(self) -> int:
        """Puts what was taken and not answered to the front of the list again, in its order; returns how many."""
        count = 0
        while (body := self._redis.lindex(self._processing, 0)) is not None:
            deliveries = f"python-peer:deliveries:{hashlib.sha256(body).hexdigest()}"
            times = self._redis.incr(deliveries)
            self._redis.expire(deliveries, DELIVERIES_TTL_SECONDS)
            if times >= MAX_DELIVERIES:
                self._bury(body, "POISON", "It was taken several times and never answered.")
            else:
                # The newest first: the oldest has to be the one at the right end.
                self._redis.lmove(self._processing, self.queue, "LEFT", "RIGHT")
                count += 1
        return count

    def serve(self, stopping: threading.Event) -> None:
        """Answers until told to stop; what was taken by then is answered still."""
        broken = False
        while not stopping.is_set():
            try:
                if broken:
                    # The connection may have broken after Redis had moved an action for us.
                    self.give_back()
                    log("redis_back", queue=self.queue)
                broken = False
                body = self._redis.blmove(self.queue, self._processing, BLOCK_SECONDS, "RIGHT", "LEFT")
                if body is not None:
                    self._take(body)
            except redis.RedisError as error:
                if not broken:
                    log("redis_away", queue=self.queue, error=type(error).__name__)
                broken = True
                stopping.wait(PAUSE_SECONDS)

    def _take(self, body: bytes) -> None:
        began = time.monotonic()
        try:
            action = parse_action(body)
        except Malformed as problem:
            self._bury(body, "INVALID_REQUEST", f"The action is malformed: {problem}.")
            return
        data, outcome = self._answered(action)
        if not self._settle(body, action, data):
            outcome = "reply_refused"
        ids = {name: action.get(name) for name in ("action_id", "task_id", "trace_id")}
        spent = round((time.monotonic() - began) * 1_000, 1)
        log(
            "action",
            action_type=action.type,
            queue=self.queue,
            tenant_id=action.tenant_id,
            **ids,
            outcome=outcome,
            duration_ms=spent,
        )

    def _answered(self, action: Action) -> tuple[Data, str]:
        """The reply's data and, for the log, `ok` or the code of the error."""
        try:
            data: Data = {"success": True, **self._answers.answer(self._service, action)}
            if len(encoded(data)) > MAX_ACTION_BYTES - 16_384:
                raise Refusal("TOO_LARGE", "The answer is larger than an action may be.")
            return data, "ok"
        except Refusal as refusal:
            return _failed(refusal.code, refusal.message), refusal.code
        except Exception as error:  # a mistake of ours: whoever asks is told, and the next action is served
            # Not the error's own text: it may quote a message.
            where = traceback.extract_tb(error.__traceback__)[-1]
            log("crashed", error=type(error).__name__, file=where.filename, line=where.lineno)
            return _failed("INTERNAL", "The service made a mistake; it has been logged."), "INTERNAL"

    def _settle(self, body: bytes, action: Action, data: Data) -> bool:
        """Sends the reply and lets go of the action in one step: no death can come between the two."""
        reply_queue = action.callback_queue
        step = self._redis.pipeline(transaction=True)
        if reply_queue is not None:
            step.lpush(reply_queue, encoded(reply_to(action, data)))
            if ":responses:" in reply_queue or reply_queue.startswith("nooble:replies:"):
                step.expire(reply_queue, REPLY_TTL_SECONDS)
        step.lrem(self._processing, 1, body)
        results = step.execute(raise_on_error=False)
        # A key of another type, for one: it would be refused every time.
        return not any(isinstance(result, redis.ResponseError) for result in results)

    def _bury(self, body: bytes, code: str, message: str) -> None:
        letter = encoded(dead_letter(self.queue, body, code, message))
        step = self._redis.pipeline(transaction=True)
        step.lpush(f"{self.queue}:dead", letter)
        step.ltrim(f"{self.queue}:dead", 0, MAX_DEAD_LETTERS - 1)
        step.sadd(DEAD_QUEUES, self.queue)
        step.lrem(self._processing, 1, body)
        step.execute()
        log("dead", queue=self.queue, code=code, bytes=len(body))


def _failed(code: str, message: str) -> Data:
    return {"success": False, "error": {"code": code, "message": message}}


def dead_letter(queue: str, body: bytes, code: str, message: str) -> Data:
    """A body with the reason why nobody works on it, in the form in which a node keeps its own."""
    whole = len(body) <= MAX_ACTION_BYTES
    kept = body if whole else body[:MAX_DEAD_BYTES]
    try:
        encoding, text = "utf8", kept.decode("utf-8")
    except UnicodeDecodeError:
        encoding, text = "base64", base64.b64encode(kept).decode("ascii")
    return {
        "id": str(uuid.uuid4()),
        "queue": queue,
        "error": {"code": code, "message": message, "retryable": False},
        "diedAtMs": int(time.time() * 1_000),
        "size": len(body),
        "encoding": encoding,
        "body": text,
        "replayable": whole,
    }


def connect(url: str) -> redis.Redis:
    """A client that reports every broken connection instead of asking again: see Desk.serve."""
    return redis.Redis.from_url(
        url,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        client_name="python-peer",
    )


def desks_of(client: redis.Redis, answers: Answers, name: str) -> list[Desk]:
    return [Desk(client, answers, service, tier, name) for service in answers.services for tier in TIERS]


def take_back(desks: list[Desk], stopping: threading.Event) -> None:
    """Gives back what the last start left; waits for Redis where it is away."""
    waiting = False
    while not stopping.is_set():
        try:
            count = sum(desk.give_back() for desk in desks)
            log("given_back", count=count)
            return
        except redis.RedisError as error:
            if not waiting:
                log("redis_away", error=type(error).__name__)
            waiting = True
            stopping.wait(PAUSE_SECONDS)


def stop_on_signals(stopping: threading.Event) -> None:
    """SIGTERM and SIGINT end the peer once what it has taken is answered; a second one ends it at once."""

    def stop(number: int, _frame: Optional[object]) -> None:
        if stopping.is_set():
            os._exit(1)
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def main() -> int:
    """Serves until a signal; 2 where a setting is wrong."""
    name = os.environ.get("PEER_NAME", "peer")
    try:
        client = connect(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
        if not ID_PATTERN.fullmatch(name):
            raise ValueError("PEER_NAME must be 1 to 128 characters out of A-Z a-z 0-9 . _ : @ -")
        answers = Answers(Path(__file__).resolve().parent)
    except (ValueError, OSError) as error:
        print(f"the peer can not start: {error}", file=sys.stderr)
        return 2
    stopping = threading.Event()
    stop_on_signals(stopping)
    desks = desks_of(client, answers, name)
    take_back(desks, stopping)
    threads = [threading.Thread(target=desk.serve, args=(stopping,), name=desk.queue) for desk in desks]
    for thread in threads:
        thread.start()
    log("ready", queues=len(threads), pid=os.getpid())
    stopping.wait()
    for thread in threads:
        thread.join()
    log("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
