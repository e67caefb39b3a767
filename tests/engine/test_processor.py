"""Playing by hand and in the background."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from stabilize import (
    ConfigurationError,
    QueueProcessor,
    QueueProcessorConfig,
    StageExecution,
    TaskResult,
    Workflow,
)
from stabilize.handlers import Handler
from stabilize.handlers.workflow import StartWorkflowHandler
from stabilize.queue.messages import StartWorkflow
from stabilize.turn import Turn
from tests.support.backends import BackendUnderTest
from tests.support.builders import (
    Engine,
    Gate,
    Recorder,
    Script,
    eventually,
    ok,
    sequence,
    stage,
    workflow,
)


def test_parallel_stages_overlap_under_process_all(engine: Engine) -> None:
    """Each of two bodies waits until the other is at work too."""
    both = threading.Barrier(2, timeout=10)

    def body(stage: StageExecution) -> TaskResult:
        both.wait()
        return TaskResult.success()

    ran = engine.run(
        stage("setup"),
        stage("test", after="setup", does=body),
        stage("lint", after="setup", does=body),
        stage("deploy", after=["test", "lint"]),
    )

    assert ran.status == "SUCCEEDED"


def test_two_bodies_of_0_4_seconds_take_less_than_0_6(engine: Engine) -> None:
    spans: list[tuple[float, float]] = []

    def body(stage: StageExecution) -> TaskResult:
        began = time.monotonic()
        threading.Event().wait(0.4)
        spans.append((began, time.monotonic()))
        return TaskResult.success()

    engine.run(
        stage("setup"),
        stage("test", after="setup", does=body),
        stage("lint", after="setup", does=body),
        stage("deploy", after=["test", "lint"]),
    )

    assert max(end for _, end in spans) - min(begin for begin, _ in spans) < 0.6


def test_process_all_says_how_much_it_did_and_nothing_the_second_time(engine: Engine) -> None:
    engine.submit(workflow(stage("a")))

    assert engine.play() >= 1
    assert engine.play() == 0


def test_process_all_returns_when_its_time_is_over_and_gives_the_body_back(engine: Engine) -> None:
    gate = Gate()
    made = workflow(stage("a", does=gate))
    engine.submit(made)
    try:
        engine.play(timeout=0.2)
        assert engine.look(made).tasks("a") == ["RUNNING"]
        assert gate.entered.is_set()
    finally:
        gate.opened.set()

    assert engine.go_on(made).status == "SUCCEEDED"


def test_process_one_handles_what_goes_first(engine: Engine) -> None:
    made = [workflow(stage("a")), workflow(stage("a"))]
    engine.submit(*made)
    processor = engine.processor()

    handled = 0
    while processor.process_one():
        handled += 1

    assert handled >= 2
    assert [engine.status(one) for one in made] == ["SUCCEEDED", "SUCCEEDED"]
    assert not processor.process_one()


def test_a_second_process_all_at_the_same_time_does_nothing(engine: Engine) -> None:
    processor = engine.processor()
    results: list[int] = []

    def body(stage: StageExecution) -> TaskResult:
        results.append(processor.process_all(5))
        return TaskResult.success()

    engine.submit(made := workflow(stage("a", does=body)))
    processor.process_all(20)

    assert results == [0]
    assert engine.status(made) == "SUCCEEDED"


def test_a_started_processor_plays_what_is_submitted_later(engine: Engine) -> None:
    with engine.started() as processor:
        assert processor.is_running
        made = [workflow(*sequence("a", "b")) for _ in range(5)]
        engine.submit(*made)
        eventually(lambda: all(engine.status(one) == "SUCCEEDED" for one in made))
    assert not processor.is_running


def _has_succeeded(engine: Engine, made: Workflow) -> bool:
    return engine.status(made) == "SUCCEEDED"


def test_a_processor_is_a_context_manager_and_starts_again(engine: Engine) -> None:
    processor = engine.processor()
    for _ in range(2):
        with processor:
            engine.submit(made := workflow(stage("a")))
            eventually(partial(_has_succeeded, engine, made))
        assert not processor.is_running


def test_stop_waits_for_the_body_and_records_its_result(engine: Engine) -> None:
    gate = Gate()
    made = workflow(stage("a", does=gate), stage("b", after="a"))
    engine.submit(made)
    processor = engine.processor()
    processor.start()
    assert gate.entered.wait(10)
    assert processor.active_count == 1

    processor.request_stop()
    gate.opened.set()
    left = processor.stop(timeout=20)

    ran = engine.look(made)
    assert left == 0
    assert ran.tasks("a") == ["SUCCEEDED"]
    assert engine.go_on(made).status == "SUCCEEDED"
    assert gate.calls == 1


def test_a_body_that_does_not_end_in_time_is_given_back_when_the_processor_stops(
    backend: BackendUnderTest,
) -> None:
    gate = Gate()
    with Engine(backend.url, config=QueueProcessorConfig(shutdown_timeout=0.1)) as engine:
        made = workflow(stage("a", does=gate))
        engine.submit(made)
        processor = engine.processor()
        processor.start()
        assert gate.entered.wait(10)

        assert processor.stop(timeout=20) == 1
        gate.opened.set()

        assert engine.go_on(made).status == "SUCCEEDED"
        assert gate.calls == 2


def test_a_processor_that_runs_refuses_to_be_started_by_hand_too(engine: Engine) -> None:
    with engine.started() as processor:
        assert processor.process_all(1) == 0
        processor.start()  # a second start does nothing
    engine.submit(made := workflow(stage("a")))
    assert processor.process_all(10) > 0
    assert engine.status(made) == "SUCCEEDED"


def test_no_more_bodies_run_at_once_than_there_are_workers(backend: BackendUnderTest) -> None:
    lock, most, running = threading.Lock(), 0, 0

    def body(stage: StageExecution) -> TaskResult:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1
        return TaskResult.success()

    with Engine(backend.url, config=QueueProcessorConfig(max_workers=3)) as engine:
        ran = engine.run(*[stage(f"s{n}", does=body) for n in range(12)])

    assert ran.status == "SUCCEEDED"
    assert most <= 3


def test_a_long_running_body_is_held_by_heartbeats(backend: BackendUnderTest) -> None:
    from datetime import timedelta

    gate = Gate()
    with Engine(backend.url, lock_duration=timedelta(seconds=1.6)) as engine:
        made = workflow(stage("a", does=gate))
        engine.submit(made)
        with engine.started(), Engine(backend.url) as second:
            second.learn(*made.stages)
            with second.started():
                assert gate.entered.wait(10)
                threading.Event().wait(4)  # two leases and a half
                gate.opened.set()
                eventually(lambda: engine.status(made) == "SUCCEEDED")

    assert gate.calls == 1


def test_two_processors_of_one_process_share_the_work(engine: Engine) -> None:
    bodies = Recorder()
    made = [workflow(*sequence("a", "b", "c", does=bodies)) for _ in range(10)]
    with engine.started(), engine.started():
        engine.submit(*made)
        eventually(lambda: all(engine.status(one) == "SUCCEEDED" for one in made))

    assert bodies.calls == 30


def test_bodies_run_in_the_executor_that_is_given(engine: Engine) -> None:
    names: list[str] = []

    def body(stage: StageExecution) -> TaskResult:
        names.append(threading.current_thread().name)
        return TaskResult.success()

    with ThreadPoolExecutor(2, thread_name_prefix="mine") as pool:
        engine.executor = pool
        ran = engine.run(stage("a", does=body), stage("b", after="a", does=body))

    assert ran.status == "SUCCEEDED"
    assert all(name.startswith("mine") for name in names)


def test_bodies_run_in_other_processes_when_asked(engine: Engine) -> None:
    from tests.support.bodies import Adds, tells_its_process

    engine.registry.register("tell", tells_its_process)
    engine.registry.register("add", Adds)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        engine.executor = pool
        ran = engine.run(
            stage("a", does="tell", context={"n": 1}),
            stage("b", after="a", does="add"),
            stage("c", after="b", does="fails"),
        )

    import os

    assert ran.statuses == {"a": "SUCCEEDED", "b": "SUCCEEDED", "c": "TERMINAL"}
    assert ran["a"].outputs["pid"] != os.getpid()
    assert ran["b"].outputs == {"sum": 3}


def test_time_limits_hold_in_other_processes_too(engine: Engine) -> None:
    from tests.support.bodies import Sleeps, SleepsInVain

    engine.registry.register("sleeps", Sleeps)
    engine.registry.register("in vain", SleepsInVain)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        engine.executor = pool
        ran = engine.run(stage("a", does="sleeps"))
        other = engine.run(stage("a", does="in vain"))

    assert (ran.status, other.status) == ("TERMINAL", "TERMINAL")
    assert "exceeded its timeout of 1 s" in ran.error("a")
    assert "exceeded its timeout of 1 s" in other.error("a")


def test_a_task_that_kills_its_process_is_buried_and_takes_no_other_with_it(
    engine: Engine, tmp_path: Path
) -> None:
    """Whoever is at work beside it dies as well, and runs once more."""
    from tests.support.bodies import Dies, Outlives

    engine.registry.register("dies", Dies)
    engine.registry.register("outlives", Outlives)
    bad = workflow(stage("bad", does="dies", context={"folder": str(tmp_path)}))
    good = workflow(stage("good", does="outlives", context={"folder": str(tmp_path)}))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.2, 0.2]))  # a pool that still grows may overlook a death
        engine.executor = pool
        engine.submit(bad, good)
        engine.play(60)

    assert [engine.status(good), engine.status(bad)] == ["SUCCEEDED", "TERMINAL"]
    assert "took 3 workers with it" in engine.look(bad).error("bad")
    assert [letter["reason"] for letter in engine.queue.list_dlq()] == ["deaths"]
    begun = sorted(path.name.split(".")[0] for path in tmp_path.iterdir())
    assert begun == ["bad", "bad", "bad", "good", "good"]


def test_a_task_of_another_process_that_cannot_tell_its_limit_fails_alone(engine: Engine) -> None:
    from tests.support.bodies import Unsure

    engine.registry.register("unsure", Unsure)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        engine.executor = pool
        ran = engine.run(stage("a", does="unsure"))

    assert ran.status == "TERMINAL"
    assert "nobody knows" in ran.error("a")


def test_a_handler_is_replaced_and_a_second_one_refused(engine: Engine) -> None:
    seen: list[str] = []

    class Mine(Handler[StartWorkflow]):
        def handle(self, message: StartWorkflow, turn: Turn) -> None:
            seen.append(message.execution_id)
            StartWorkflowHandler().handle(message, turn)

    processor = engine.processor()
    with pytest.raises(ValueError, match="replace_handler"):
        processor.register_handler(Mine())
    processor.replace_handler(Mine())
    engine.submit(made := workflow(stage("a")))
    processor.process_all(10)

    assert seen == [made.id]
    assert engine.status(made) == "SUCCEEDED"


@pytest.mark.parametrize("field", ["max_workers", "poll_frequency_ms", "batch", "task_timeout"])
def test_a_configuration_that_makes_no_sense_is_refused(field: str) -> None:
    with pytest.raises(ConfigurationError, match=field):
        QueueProcessorConfig(**{field: 0})


def test_the_quick_start_runs_with_the_classes_of_any_database(
    empty_backend: BackendUnderTest,
) -> None:
    from stabilize import Orchestrator, Queue, TaskRegistry, WorkflowStore

    store = WorkflowStore(empty_backend.url, create_tables=True)
    queue = Queue(empty_backend.url)
    queue._create_table()
    registry = TaskRegistry()
    registry.register("ok", ok)
    processor = QueueProcessor(queue, store=store, task_registry=registry)
    made = workflow(stage("a", does="ok"))
    store.store(made)
    Orchestrator(queue).start(made)
    processor.process_all(timeout=10.0)

    assert store.retrieve(made.id).status.name == "SUCCEEDED"
    store.close()


def test_a_workflow_of_many_stages_goes_through_bounded_turns(engine: Engine) -> None:
    refs = [f"s{n}" for n in range(300)]

    ran = engine.run(
        stage("first"), *[stage(r, after="first", does=ok) for r in refs], stage("last", after=refs)
    )

    assert ran.status == "SUCCEEDED"
    assert len(ran.statuses) == 302


def test_a_small_workflow_moves_on_beside_a_wide_one(backend: BackendUnderTest) -> None:
    order: list[str] = []

    def body(stage: StageExecution) -> TaskResult:
        order.append(stage.ref_id)
        return TaskResult.success()

    config = QueueProcessorConfig(max_workers=1)
    with Engine(backend.url, config=config) as engine:
        engine.registry.register("body", body)
        wide = workflow(*[stage(f"w{n}", does="body") for n in range(200)])
        small = workflow(stage("small", does="body"))
        engine.submit(wide, small)
        engine.play()
        assert [engine.status(wide), engine.status(small)] == ["SUCCEEDED", "SUCCEEDED"]

    assert order.index("small") < 190


def test_the_signal_that_wakes_a_started_processor_is_not_a_poll(backend: BackendUnderTest) -> None:
    config = QueueProcessorConfig(poll_frequency_ms=60_000)
    with Engine(backend.url, config=config) as engine, engine.started():
        body = Script(TaskResult.suspend(), TaskResult.success())
        made = workflow(stage("a", does=body))
        engine.submit(made)
        eventually(lambda: engine.look(made).statuses["a"] == "SUSPENDED")
        engine.orchestrator.signal(made, made.stages[0].id, "go")
        eventually(lambda: engine.status(made) == "SUCCEEDED")
