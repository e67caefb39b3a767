"""A process that starts others, which die at a given place: `python -m tests.crash.child`.

Orders come in as lines of JSON. For each it forks a process that plays all there is to play and
kills itself at the place it was told; the answer, a line as well, says whether it came that far.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event

from stabilize import Database, QueueProcessor, QueueProcessorConfig
from tests.crash.shapes import AtOnce, Log, builders, queue_at, registry_for


class Places:
    """Counts where a process could die in its turns, and dies at the one it was given."""

    def __init__(self, deadly: int, say: Callable[[str], None]) -> None:
        self.passed = 0
        self._deadly = deadly
        self._say = say

    def watch(self, database: Database) -> None:
        """Pass a place before each statement of a turn, and before and after each commit."""
        database.turns = database.turns.execution_options(is_a_turn=True)
        event.listen(database.engine, "before_cursor_execute", self._before_statement)
        commit = database.engine.dialect.do_commit

        def watched(connection: Any) -> None:
            self._pass("before a commit")
            commit(connection)
            self._pass("after a commit")

        database.engine.dialect.do_commit = watched  # type: ignore[method-assign, assignment]

    def _before_statement(
        self, connection: Connection, cursor: object, statement: str, *rest: object
    ) -> None:
        if connection.get_execution_options().get("is_a_turn"):
            self._pass("before " + " ".join(statement.split())[:100])

    def _pass(self, where: str) -> None:
        if threading.current_thread().name == "stabilize-heartbeat":
            return
        self.passed += 1
        if self.passed == self._deadly:
            self._say(where)
            os.kill(os.getpid(), signal.SIGKILL)


def play(url: str, queue_name: str, log: str, deadly: int, say: Callable[[str], None]) -> None:
    """Play everything in the queue; die on the way if `deadly` is a place there is."""
    queue = queue_at(url, queue_name)
    places = Places(deadly, say)
    places.watch(queue.database)
    processor = QueueProcessor(
        queue,
        QueueProcessorConfig(max_workers=4),
        task_registry=registry_for(queue, Log(Path(log))),
        executor=AtOnce(),
        builders=builders(),
    )
    processor.process_all(timeout=10)
    say(str(places.passed))


def _write(pipe: int, text: str) -> None:
    os.write(pipe, text.encode())


def serve() -> None:
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            failed = 1
            try:
                play(**json.loads(line), say=partial(_write, writer))
                failed = 0
            finally:
                sys.stderr.flush()
                os._exit(failed)
        os.close(writer)
        with os.fdopen(reader) as said:
            text = said.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, "said": text}), flush=True)


if __name__ == "__main__":
    serve()
