"""A process that starts others, which die at a given place: `python -m tests.crash.child`.

Orders come in as lines of JSON. For each it forks a process that plays all there is to play and
kills itself at the place it was told; the answer, a line as well, says whether it came that far.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy.orm import configure_mappers

from stabilize import QueueProcessor, QueueProcessorConfig
from tests.crash.shapes import AtOnce, Log, Places, builders, queue_at, registry_for


def play(url: str, queue_name: str, log: str, deadly: int, say: Callable[[str], None]) -> None:
    """Play everything in the queue; die on the way if `deadly` is a place there is."""
    queue = queue_at(url, queue_name)

    def die(where: str, in_driver: bool) -> None:
        say(where)
        os.kill(os.getpid(), signal.SIGKILL)

    places = Places(deadly, die)
    places.watch(queue.database)
    processor = QueueProcessor(
        queue,
        QueueProcessorConfig(max_workers=4, poll_frequency_ms=60_000),  # a poll is a matter of time
        task_registry=registry_for(queue, Log(Path(log))),
        executor=AtOnce(),
        builders=builders(),
    )
    processor.process_all(timeout=10)
    say(str(places.passed))


def _write(pipe: int, text: str) -> None:
    os.write(pipe, text.encode())


def serve() -> None:
    configure_mappers()  # once, and not in each of those that are forked
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
