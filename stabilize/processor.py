"""The processor: what plays the messages of a queue in this process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from sqlalchemy.exc import DBAPIError

from stabilize.clock import new_id
from stabilize.coordinator import Coordinator
from stabilize.database import WAKE_CHANNEL
from stabilize.errors import ConcurrencyError, ConfigurationError
from stabilize.events.recorder import get_event_recorder
from stabilize.flights import Flights
from stabilize.handlers import Handler, default_handlers
from stabilize.heartbeat import Heartbeat
from stabilize.queue.messages import BUILDER, Message
from stabilize.queue.queue import Queue
from stabilize.queue.taking import Taking
from stabilize.stages.builder import StageDefinitionBuilderFactory, get_default_factory
from stabilize.store import WorkflowStore
from stabilize.tasks.registry import TaskRegistry, get_default_registry
from stabilize.turn import Turn
from stabilize.work import Worker

logger = logging.getLogger(__name__)

_MISSED = 20
"""After so many turns that got nothing of what is due, somebody looks why."""


@dataclass(frozen=True, kw_only=True)
class QueueProcessorConfig:
    """How a processor works; times in seconds unless they say otherwise.

    `max_workers`: bodies at once. `poll_frequency_ms`: how often it looks for messages nobody told
    it of. `batch`: messages one turn takes. `task_timeout`: for bodies that set none themselves.
    `unknown_task_grace`: how long a started processor waits for a worker that knows a task type.
    `shutdown_timeout`: how long `stop` waits for bodies before it gives their messages back.
    """

    max_workers: int = 10
    poll_frequency_ms: int = 50
    batch: int = 64
    task_timeout: float = 14_400.0
    unknown_task_grace: float = 60.0
    shutdown_timeout: float = 60.0

    def __post_init__(self) -> None:
        for name in ("max_workers", "poll_frequency_ms", "batch", "task_timeout"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(
                    f"QueueProcessorConfig({name}={getattr(self, name)}): it has to be above 0"
                )


class QueueProcessor:
    """Plays the messages of `queue`: by hand with `process_all`, or in threads with `start`.

    `executor` runs the bodies of tasks: threads by default; a `ProcessPoolExecutor` keeps them
    apart from this process. Many processors, in many processes, may share one database.
    """

    def __init__(
        self,
        queue: Queue,
        config: QueueProcessorConfig | None = None,
        store: WorkflowStore | None = None,
        task_registry: TaskRegistry | None = None,
        *,
        executor: Executor | None = None,
        builders: StageDefinitionBuilderFactory | None = None,
    ) -> None:
        if store is not None and store.database is not queue.database:
            raise ConfigurationError(
                f"store and queue use different databases ({store.database!r} and "
                f"{queue.database!r}): give both the same URL or engine"
            )
        self.queue = queue
        self.database = queue.database
        self.config = config or QueueProcessorConfig()
        self.store = store or WorkflowStore(self.database)
        self.registry = task_registry or get_default_registry()
        self.builders = builders or get_default_factory()
        self._executor = executor
        self._handlers: dict[type[Message], Callable[[Any, Turn], None]] = default_handlers()
        self._id = new_id()
        self._playing = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._listener: threading.Thread | None = None
        self._coordinator: Coordinator | None = None
        self._heartbeat: Heartbeat | None = None
        self._unknown_checked = time.monotonic()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- handlers ---------------------------------------------------------------------------

    def register_handler(self, handler: Handler[Any]) -> None:
        """Add a handler for a message that has none; `ValueError` when it has one."""
        if handler.message_type in self._handlers:
            raise ValueError(
                f"{handler.message_type.__name__} has a handler already: use replace_handler"
            )
        self._handlers[handler.message_type] = handler.handle

    def replace_handler(self, handler: Handler[Any]) -> None:
        self._handlers[handler.message_type] = handler.handle

    def _handler_of(self, message: Message) -> Callable[[Message, Turn], None]:
        try:
            return self._handlers[type(message)]
        except KeyError:
            raise ConfigurationError(
                f"no handler for {type(message).__name__}: register one with register_handler"
            ) from None

    # --- the parts --------------------------------------------------------------------------

    def _open(self, *, by_hand: bool, limit: int | None = None) -> Coordinator:
        self.database.require_tables()
        names = self.registry.known_names()
        worker = Worker(
            id=self._id,
            lease_ms=self.queue.lease_ms,
            knows=self._knows,
            overrides=self.registry.overrides,
            has_builder=self.builders.has,
            task_names=names,
            routes=[*names, *(BUILDER + type for type in self.builders.known_types())],
            fails_unknown=by_hand,
            limit=limit or self.config.batch,
        )
        poll = self.config.poll_frequency_ms / 1000
        coordinator = Coordinator(self.queue, worker, self._handler_of, self._flights, poll)
        self._coordinator = coordinator
        self._heartbeat = Heartbeat(coordinator, self.config.max_workers, announce=not by_hand)
        self._heartbeat.start()
        self.database.on_wake(coordinator.wake)
        recorder = get_event_recorder()
        if recorder is not None:
            recorder.attach(self.database)
        return coordinator

    def _knows(self, name: str) -> bool:
        if name.startswith(BUILDER):
            return self.builders.has(name.removeprefix(BUILDER))
        return self.registry.has(name)

    def _flights(self, coordinator: Coordinator) -> Flights:
        return Flights(
            self._executor,
            self.config.max_workers,
            self.registry,
            self.builders,
            coordinator,
            self.config.task_timeout,
        )

    def _close(self) -> None:
        coordinator, heartbeat = self._coordinator, self._heartbeat
        self._coordinator = self._heartbeat = None
        if heartbeat is not None:
            heartbeat.stop()
        if coordinator is not None:
            self.database.off_wake(coordinator.wake)
            if self.database.desks.get(self.queue.name) is coordinator.desk:
                del self.database.desks[self.queue.name]
            coordinator.desk.close()
            self._give_back(coordinator.flights)
            coordinator.close()
            coordinator.flights.shutdown()

    def _give_back(self, flights: Flights) -> None:
        held = [*flights.held(), *(done.message for done in flights.drain())]
        try:
            if held:
                self.queue.give_back([message.row_id for message in held], self._id)
        except (DBAPIError, ConcurrencyError) as error:
            logger.warning("%d messages are not given back, their leases end: %s", len(held), error)

    def _known_elsewhere(self) -> set[str]:
        assert self._heartbeat is not None
        return self._heartbeat.known_elsewhere()

    # --- by hand ----------------------------------------------------------------------------

    def process_all(self, timeout: float = 60.0) -> int:
        """Play until nothing is left that comes due within `timeout` seconds.

        Turns are played in this thread, bodies in the executor, several at once. Returns how many
        messages were handled; 0 when another thread is at it already.
        """
        return self._process(timeout)

    def process_one(self) -> bool:
        """Handle the message that goes first and what comes of it at once; say whether there was
        one."""
        return self._process(self.config.task_timeout, limit=1) > 0

    def _process(self, timeout: float, limit: int | None = None) -> int:
        if not self._playing.acquire(blocking=False):
            return 0
        try:
            coordinator = self._open(by_hand=True, limit=limit)
            worker = coordinator.worker
            worker.elsewhere = elsewhere = self._known_elsewhere()
            coordinator.taking = Taking(self.queue, None, elsewhere.difference(worker.routes))
            end = time.monotonic() + timeout
            handled = self._play_until(coordinator, end, stops_at_once=limit is not None)
            recorder = get_event_recorder()
            if recorder is not None:
                left = max(0.0, end - time.monotonic())
                recorder.drain(self.database, left if limit is None else min(left, 5.0))
            return handled
        finally:
            self._close()
            self._playing.release()

    def _play_until(self, coordinator: Coordinator, end: float, *, stops_at_once: bool) -> int:
        handled = 0
        while True:
            played = coordinator.step()
            handled += played
            # asked first: what lands from here on has put out its messages before we look for them
            idle = coordinator.flights.are_idle
            now = time.monotonic()
            if now >= end or (stops_at_once and handled and idle):
                return handled
            if played or coordinator.flights.finished:
                continue
            wait = self._wait(coordinator)
            if idle and (wait is None or now + wait > end):
                return handled
            coordinator.wait(min(wait or 0.0, end - now, self.config.poll_frequency_ms / 1000))

    def _wait(self, coordinator: Coordinator) -> float | None:
        """Seconds until something is due or comes back; None when nothing is left to wait for."""
        if coordinator.trouble:
            return 0.05
        try:
            return self._seconds_left(coordinator)
        except DBAPIError as error:
            if not self.database.backend.is_trouble(error):
                raise
            return 0.05

    def _seconds_left(self, coordinator: Coordinator) -> float | None:
        flights = coordinator.flights
        if coordinator.missed >= _MISSED and not len(flights):
            coordinator.missed = 0
            self.queue.sweep()  # it is due and nobody takes it
        if coordinator.may_have_work:
            return 0.0
        # nothing ends on an old look: what the last turn put off for later is not in it
        due = coordinator.next_at if len(flights) else coordinator.look()
        if due is not None:
            left = (due - coordinator.now()) / 1000
            return left if left > 0 else 0.05  # what was due at the last look has been seen to
        if len(flights):
            return self.config.task_timeout
        if not flights.finished:
            self.queue.sweep()
        return None

    # --- in threads -------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def active_count(self) -> int:
        """How many bodies are being executed."""
        return 0 if self._coordinator is None else len(self._coordinator.flights)

    @property
    def turns_played(self) -> int:
        """How many turns this processor has committed since it was started."""
        return 0 if self._coordinator is None else self._coordinator.turns

    def start(self) -> None:
        """Play in the background until `stop`."""
        if self.is_running:
            return
        if not self._playing.acquire(blocking=False):
            raise ConfigurationError(
                "process_all is at work: wait for it, or use another processor"
            )
        try:
            self._stopping.clear()
            coordinator = self._open(by_hand=False)
        except BaseException:
            self._close()
            self._playing.release()
            raise
        self.database.desks[self.queue.name] = coordinator.desk
        self._thread = threading.Thread(
            target=self._run, args=(coordinator,), name="stabilize-coordinator", daemon=True
        )
        self._thread.start()
        if self.database.backend.can_notify:
            self._listener = threading.Thread(
                target=self._listen, args=(coordinator,), name="stabilize-listener", daemon=True
            )
            self._listener.start()

    def _run(self, coordinator: Coordinator) -> None:
        poll = self.config.poll_frequency_ms / 1000
        end: float | None = None
        while True:
            if self._stopping.is_set():
                end = end or time.monotonic() + self.config.shutdown_timeout
                coordinator.closing = True
                if time.monotonic() >= end or coordinator.flights.are_idle:
                    return
            try:
                if coordinator.step() == 0 and not coordinator.flights.finished:
                    self._look_for_unknown(coordinator)
                    coordinator.wait(poll)
            except Exception:
                logger.exception("the coordinator met an error it did not expect; it goes on")
                time.sleep(0.5)

    def _listen(self, coordinator: Coordinator) -> None:
        def heard(sender: str) -> None:
            if sender != self.database.token:
                coordinator.wake()

        while not self._stopping.is_set():
            try:
                engine, stopped = self.database.engine, self._stopping.is_set
                self.database.backend.listen(engine, WAKE_CHANNEL, heard, stopped)
                return
            except DBAPIError as error:
                logger.debug("the listener lost its connection: %s", error)
                self._stopping.wait(1.0)

    def _look_for_unknown(self, coordinator: Coordinator) -> None:
        """Fail the tasks of types that no live worker has had for too long."""
        grace = self.config.unknown_task_grace
        if time.monotonic() - self._unknown_checked < max(0.5, grace / 10):
            return
        self._unknown_checked = time.monotonic()
        coordinator.fail_unknown(self._known_elsewhere(), int(grace * 1000))
        self.queue.sweep()

    def request_stop(self) -> None:
        """Take nothing new from now on; `stop` waits for the end."""
        self._stopping.set()
        if self._coordinator is not None:
            self._coordinator.wake()

    def stop(self, wait: bool = True, timeout: float | None = None) -> int:
        """Stop; bodies may end within `shutdown_timeout`, the rest is given back.

        Returns how many bodies were still being executed.
        """
        thread = self._thread
        if thread is None:
            return 0
        self.request_stop()
        if wait:
            thread.join(timeout)
        left = self.active_count
        if not thread.is_alive():
            self._thread = None
            listener, self._listener = self._listener, None
            if listener is not None:
                listener.join(timeout=2)
            self._close()
            self._playing.release()
        return left


__all__ = ["QueueProcessor", "QueueProcessorConfig"]
