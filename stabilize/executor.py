"""Where user code runs: threads that a hung body cannot use up, processes that a dead one can't."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from queue import SimpleQueue
from typing import Any

_Job = Callable[[], None]
_SHORT_SECONDS = 0.005
_AHEAD = 4
"""So many times its size a pool is given while its jobs are short: turns are shared by more."""
_CARRIES = 100


class BodyThreads:
    """A pool of daemon threads that grows on demand up to `size` busy ones.

    A body that hangs can be given up with `abandon`: its thread is replaced, and does not keep the
    process from ending. (`ThreadPoolExecutor` can do neither.) So many the pool `carries`; what
    hangs beyond that keeps its place.
    """

    def __init__(self, size: int, carries: int = _CARRIES) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._size, self._carries = size, carries
        self._threads = 0
        self._idle = 0
        self._abandoned = 0
        self._closed = False
        self._typical = _SHORT_SECONDS

    @property
    def ahead(self) -> int:
        """How many times its size it may be given at once."""
        return _AHEAD if self._typical < _SHORT_SECONDS else 1

    @property
    def stuck(self) -> int:
        """How many places are taken by bodies given up."""
        return max(0, self._abandoned - self._carries)

    def call(self, job: _Job) -> None:
        """Run `job`, which must not raise, as soon as a thread is free."""
        with self._lock:
            if self._closed:
                raise RuntimeError("these threads have been shut down")
            self._jobs.put(job)
            if self._idle > 0:
                self._idle -= 1
            else:
                self._grow()

    def _grow(self) -> None:
        if self._threads < self._size + min(self._abandoned, self._carries):
            self._threads += 1
            threading.Thread(target=self._work, name="stabilize-body", daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            began = time.monotonic()
            job()
            self._typical += 0.1 * (time.monotonic() - began - self._typical)
            del job
            with self._lock:
                if self._threads > self._size + min(self._abandoned, self._carries):
                    self._threads -= 1
                    return
                if self._jobs.empty():
                    self._idle += 1

    def abandon(self) -> None:
        """Give one busy thread up; another may take its place."""
        with self._lock:
            self._abandoned += 1
            if not self._closed and not self._jobs.empty():
                self._grow()

    def recover(self) -> None:
        """A thread given up has come back after all."""
        with self._lock:
            self._abandoned -= 1

    def shutdown(self) -> None:
        """Let the threads end as they become free."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._jobs.put(None)


class Lent:
    """The threads of an executor that was given: what hangs there keeps its thread."""

    ahead = 1
    stuck = 0

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def call(self, job: _Job) -> None:
        self._executor.submit(job)

    def abandon(self) -> None:
        """Nobody else can take the place of its thread."""

    def recover(self) -> None:
        """It was never given up."""

    def shutdown(self) -> None:
        """Whoever gave it shuts it down."""


class Processes:
    """A pool of processes, replaced by one of its kind when a task has killed one of them."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._given = self._pool = pool
        self._lock = threading.Lock()

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        pool = self._pool
        try:
            return pool.submit(call, *args, **kwargs)
        except BrokenProcessPool:
            with self._lock:
                if self._pool is pool:
                    self._pool = _like(pool)
            return self._pool.submit(call, *args, **kwargs)

    def shutdown(self) -> None:
        if self._pool is not self._given:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _like(pool: Any) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(  # how it was made a pool tells only under private names
        pool._max_workers,
        pool._mp_context,
        pool._initializer,
        pool._initargs,
        max_tasks_per_child=pool._max_tasks_per_child,
    )
