"""What the stages of the patterns do: bodies by name, which any process can look up."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

from stabilize import StageExecution, TaskRegistry, TaskResult


def ok(stage: StageExecution) -> TaskResult:
    """Succeed."""
    return TaskResult.success()


def puts(stage: StageExecution) -> TaskResult:
    """Put out what the definition says."""
    return TaskResult.success(outputs=stage.settings["puts"])


def echoes(stage: StageExecution) -> TaskResult:
    """Put out the item this run was given."""
    return TaskResult.success(outputs={"echo": stage.context["item"]})


def waits(stage: StageExecution) -> TaskResult:
    """Wait for a signal, and put out what it brings."""
    if "_signal_name" not in stage.context:
        return TaskResult.suspend()
    return TaskResult.success(outputs=stage.context["_signal_data"])


def fails(stage: StageExecution) -> TaskResult:
    """Fail for good."""
    return TaskResult.terminal("boom")


def fails_late(stage: StageExecution) -> TaskResult:
    """Wait for a signal and fail then."""
    if "_signal_name" not in stage.context:
        return TaskResult.suspend()
    return TaskResult.terminal("boom")


def jumps(stage: StageExecution) -> TaskResult:
    """Go to the stage `to` until this one has run `times` times; `round` counts."""
    done = int(stage.settings.get("round", 0)) + 1
    if done < stage.settings["times"]:
        return TaskResult.jump_to(stage.settings["to"], context={"round": done})
    return TaskResult.success()


def obeys(stage: StageExecution) -> TaskResult:
    """Wait for a signal and do what it says: go on, or jump."""
    name = stage.context.get("_signal_name")
    if name == "jump":
        return TaskResult.jump_to(stage.context["_signal_data"]["to"])
    return TaskResult.suspend() if name is None else TaskResult.success()


def counts(stage: StageExecution) -> TaskResult:
    """Add one to `n`."""
    return TaskResult.success(outputs={"n": int(stage.context.get("n", 0)) + 1})


def puts_round(stage: StageExecution) -> TaskResult:
    """Add one to `k`, which the loop hands on from round to round."""
    return TaskResult.success(outputs={"k": int(stage.context.get("k", 0)) + 1})


def terminates(stage: StageExecution) -> TaskResult:
    """Wait for a signal and end the whole workflow then."""
    if "_signal_name" not in stage.context:
        return TaskResult.suspend()
    return TaskResult.terminate(outputs={"ended_by": stage.ref_id})


def alone(stage: StageExecution) -> TaskResult:
    """Fail if another body of the same workflow is at work: the lock goes with its process."""
    path = Path(stage.execution.context["locks"]) / "alone"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return TaskResult.terminal("another one is at work")
        threading.Event().wait(0.005)
    return TaskResult.success()


BODIES = (
    ok,
    alone,
    puts,
    echoes,
    waits,
    fails,
    fails_late,
    jumps,
    obeys,
    counts,
    puts_round,
    terminates,
)


def registry() -> TaskRegistry:
    """A registry that has all of these."""
    made = TaskRegistry()
    for body in BODIES:
        made.register(body.__name__, body)
    return made
