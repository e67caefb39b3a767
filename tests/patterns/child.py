"""A process that starts workers on demand: `python -m tests.patterns.child URL`.

For each line it reads it forks a worker, which plays what the database has to play until it is
killed, and answers with its process id. Forking is what makes a new worker cheap.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from datetime import timedelta

from stabilize import Queue, QueueProcessor, QueueProcessorConfig
from tests.patterns.tasks import registry

LEASE = timedelta(seconds=1)


def work(url: str) -> None:
    """Play until somebody ends this process."""
    config = QueueProcessorConfig(max_workers=3, poll_frequency_ms=20)
    processor = QueueProcessor(Queue(url, lock_duration=LEASE), config, task_registry=registry())
    processor.start()
    threading.Event().wait()


def serve(url: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who were killed
    for _ in sys.stdin:
        worker = os.fork()
        if worker == 0:
            try:
                sys.stdin.close()
                work(url)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        print(worker, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
