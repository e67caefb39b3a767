"""Where user code runs by default: threads that a hung body cannot use up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")
_Job = Callable[[], None]


class BodyThreads(Executor):
    """A pool of daemon threads that grows on demand up to `max_workers` busy ones.

    A body that hangs can be given up with `abandon`: its thread is written off and replaced, and
    does not keep the process from ending. (`ThreadPoolExecutor` can do neither.)
    """

    def __init__(self, max_workers: int, name: str = "stabilize-body") -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._max = max_workers
        self._threads = 0
        self._idle = 0
        self._name = name
        self._closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as error:  # noqa: BLE001  # it belongs to the future
                    future.set_exception(error)
                else:
                    future.set_result(result)

        self.call(work)
        return future

    def call(self, job: _Job) -> None:
        """Run `job`, which must not raise; cheaper than a future where none is needed."""
        with self._lock:
            if self._closed:
                raise RuntimeError("these threads have been shut down")
            self._jobs.put(job)
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < self._max:
                self._start()

    def _start(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            job()
            del job
            with self._lock:
                if self._threads > self._max:
                    self._threads -= 1
                    return
                if self._jobs.empty():
                    self._idle += 1

    def abandon(self) -> None:
        """Write one busy thread off; another may take its place."""
        with self._lock:
            self._max += 1
            if not self._closed and not self._jobs.empty() and self._threads < self._max:
                self._start()

    def recover(self) -> None:
        """A thread written off has come back after all."""
        with self._lock:
            self._max -= 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._closed = True
            threads = self._threads
        for _ in range(threads):
            self._jobs.put(None)
