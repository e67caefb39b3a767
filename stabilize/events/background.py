"""A thread that does one thing again and again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from stabilize.errors import StabilizeError, in_short
from stabilize.tasks.backoff import Backoff

logger = logging.getLogger(__name__)

_PATIENCE = Backoff(base=0.05, factor=4, cap=5)


class Background:
    """Calls `work` again at once while there is something to do (it returns more than 0).

    Then it waits for `pause` seconds, or for `wake` if that is None; when the database is in
    trouble, for growing times.
    """

    def __init__(self, name: str, work: Callable[[], int], pause: float | None = None) -> None:
        self.name = name
        self.stopping = False
        self._work = work
        self._pause = pause
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """There may be something to do; begin, if it is not at it."""
        self._wake.set()
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self.stopping = False
            name = f"stabilize-{self.name}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    def stop(self, timeout: float) -> None:
        """End after what is at hand, and wait for that."""
        self.stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        failures = 0
        while not self.stopping:
            self._wake.clear()
            try:
                done = self._work()
                failures = 0
            except (SQLAlchemyError, StabilizeError) as error:
                done, failures = 0, failures + 1
                logger.warning("%s failed, trying again: %s", self.name, in_short(error))
            if not done:
                self._wake.wait(_PATIENCE.seconds(failures) if failures else self._pause)
