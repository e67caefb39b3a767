"""Going on at another stage: back, to itself, forward."""

from __future__ import annotations

from typing import Any

import pytest

from stabilize import StageExecution, TaskResult
from tests.support.builders import Body, Engine, Recorder, Script, fails, puts, stage


def jumps(times: int, target: str, **fields: Any) -> Script:
    """Jump so many times, then succeed."""
    return Script(*[TaskResult.jump_to(target, **fields)] * times, TaskResult.success())


def test_a_jump_back_runs_the_target_and_what_follows_it_again(engine: Engine) -> None:
    a, b, d = Recorder(), Recorder(), Recorder()

    ran = engine.run(
        stage("a", does=a),
        stage("b", after="a", does=b),
        stage("c", after="b", does=jumps(2, "b")),
        stage("d", after="c", does=d),
    )

    assert ran.status == "SUCCEEDED"
    assert (a.calls, b.calls, d.calls) == (1, 3, 1)
    assert ran.runs("b") == ran.runs("c") == ["SUCCEEDED"] * 3


def test_a_jump_into_one_branch_of_a_join_that_has_run_ends(engine: Engine) -> None:
    """a -> (b, c) -> d -> e, and e jumps to b: d meets c's old outcome again."""
    bodies = {ref: Recorder() for ref in "abcd"}

    ran = engine.run(
        stage("a", does=bodies["a"]),
        stage("b", after="a", does=bodies["b"]),
        stage("c", after="a", does=bodies["c"]),
        stage("d", after=["b", "c"], does=bodies["d"]),
        stage("e", after="d", does=jumps(1, "b")),
    )

    assert ran.status == "SUCCEEDED"
    assert {ref: body.calls for ref, body in bodies.items()} == {"a": 1, "b": 2, "c": 1, "d": 2}
    assert ran.runs("d") == ["SUCCEEDED", "SUCCEEDED"]


def test_a_join_that_ran_again_inherits_from_both_branches(engine: Engine) -> None:
    join = Recorder()

    engine.run(
        stage("b", does=puts(b=1)),
        stage("c", does=puts(c=1)),
        stage("d", after=["b", "c"], does=join),
        stage("e", after="d", does=jumps(1, "b")),
    )

    assert [(context["b"], context["c"]) for context in join.contexts] == [(1, 1), (1, 1)]


def test_a_jump_to_itself_runs_the_stage_again(engine: Engine) -> None:
    body = jumps(3, "a")

    ran = engine.run(stage("a", does=body), stage("b", after="a"))

    assert (ran.status, body.calls) == ("SUCCEEDED", 4)
    assert ran.runs("a") == ["SUCCEEDED"] * 4
    assert ran.runs("b") == ["SUCCEEDED"]


def test_a_jump_forward_passes_over_what_lies_between(engine: Engine) -> None:
    between, target = Recorder(), Recorder()

    ran = engine.run(
        stage("a", does=Script(TaskResult.jump_to("c", context={"why": "short cut"}))),
        stage("b", after="a", does=between),
        stage("c", after="b", does=target),
        stage("d", after="c"),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.statuses == {"a": "SUCCEEDED", "b": "SKIPPED", "c": "SUCCEEDED", "d": "SUCCEEDED"}
    assert (between.calls, target.calls) == (0, 1)
    assert target.contexts[0]["why"] == "short cut"


def test_a_jump_forward_into_a_join_starts_it_whatever_its_other_branches_do(
    engine: Engine,
) -> None:
    ran = engine.run(
        stage("a", does=Script(TaskResult.jump_to("d"))),
        stage("b", after="a"),
        stage("x"),
        stage("c", after="x"),
        stage("d", after=["b", "c"]),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.statuses["b"] == "SKIPPED"
    assert ran.statuses["d"] == "SUCCEEDED"


def test_eleven_executions_are_the_limit_of_a_stage_that_jumps_to_itself(engine: Engine) -> None:
    body = Script(TaskResult.jump_to("a"))

    ran = engine.run(stage("a", does=body), stage("b", after="a"))

    assert body.calls == 11
    assert (ran.status, ran.statuses["b"]) == ("TERMINAL", "NOT_STARTED")
    assert ran["a"].context["jump_error"] == "Max jump count exceeded: 10/10"
    assert ran.tasks("a") == ["TERMINAL"]


@pytest.mark.parametrize("limit", [0, 2])
def test_the_workflow_sets_its_own_limit_of_jumps(engine: Engine, limit: int) -> None:
    body = Script(TaskResult.jump_to("a"))

    ran = engine.run(
        stage("a", does=body, context={"_max_jumps": 5}), context={"_max_jumps": limit}
    )

    assert body.calls == limit + 1
    assert ran.status == "TERMINAL"
    assert f"{limit}/{limit}" in ran["a"].context["jump_error"]


def test_a_stage_sets_its_own_limit_of_jumps(engine: Engine) -> None:
    body = Script(TaskResult.jump_to("a"))

    engine.run(stage("a", does=body, context={"_max_jumps": 1}))

    assert body.calls == 2


def test_a_jump_to_nowhere_fails_its_stage_and_names_the_target(engine: Engine) -> None:
    ran = engine.run(stage("a", does=Script(TaskResult.jump_to("nowhere"))), stage("b", after="a"))

    assert (ran.status, ran.statuses) == ("TERMINAL", {"a": "TERMINAL", "b": "NOT_STARTED"})
    assert ran["a"].context["jump_error"] == "Target stage not found: nowhere"


@pytest.mark.parametrize("more", [0, 100], ids=["small", "large"])
def test_a_jump_to_a_name_that_is_nearly_one_says_which(engine: Engine, more: int) -> None:
    ran = engine.run(
        stage("a", does=Script(TaskResult.jump_to("revew"))),
        *[stage(f"between_{n}", after="a") for n in range(more)],
        stage("review", after="a"),
    )

    assert ran.status == "TERMINAL"
    assert ran.error("a") == "Target stage not found: revew; did you mean 'review'?"


def test_the_target_is_given_what_the_jump_brings(engine: Engine) -> None:
    target = Recorder()
    jump = TaskResult.jump_to("a", context={"reason": "tests failed"}, outputs={"seen": 3})

    ran = engine.run(
        stage("a", does=target, context={"reason": "none", "own": 1}),
        stage("b", after="a", does=Script(jump, TaskResult.success())),
    )

    first, second = target.contexts
    assert (first["reason"], second["reason"], second["own"]) == ("none", "tests failed", 1)
    assert second["_jump_outputs"] == {"seen": 3}
    assert second["_jump_count"] == 1
    assert second["_jump_history"] == [
        {"from_stage": "b", "to_stage": "a", "jump_number": 1, "context_keys": ["reason"]}
    ]
    assert ran.workflow.jumps == 1


def test_fresh_outputs_replace_those_of_the_round_before(engine: Engine) -> None:
    seen: list[Any] = []
    count = iter(range(10))

    def produce(stage: StageExecution) -> TaskResult:
        return TaskResult.success(outputs={"n": next(count)})

    def consume(stage: StageExecution) -> TaskResult:
        seen.append(stage.context["n"])
        return TaskResult.success() if len(seen) == 3 else TaskResult.jump_to("a")

    ran = engine.run(stage("a", does=produce), stage("b", after="a", does=consume))

    assert seen == [0, 1, 2]
    assert ran["a"].outputs == {"n": 2}


def test_every_round_keeps_its_history(engine: Engine) -> None:
    ran = engine.run(
        stage("a", does=puts(n=1)),
        stage("b", after="a", does=jumps(1, "a", outputs={"left": True})),
    )

    runs = [s for s in ran.workflow.stage_runs if s.ref_id == "b"]
    assert [s.outputs for s in runs] == [{"left": True}, {}]
    assert [s.run for s in runs] == [1, 2]
    assert runs[0].generation < runs[1].generation


def test_tasks_after_the_one_that_jumps_do_not_run_in_that_round(engine: Engine) -> None:
    after = Recorder()

    ran = engine.run(stage("a", does=[jumps(1, "a"), after]))

    assert after.calls == 1
    first = ran.workflow.stage_runs[0]
    assert [task.status.name for task in first.tasks] == ["SUCCEEDED", "SKIPPED"]
    assert ran.tasks("a") == ["SUCCEEDED", "SUCCEEDED"]


def test_a_jump_does_not_touch_branches_beside(engine: Engine) -> None:
    beside = Recorder()

    ran = engine.run(stage("a"), stage("b", after="a", does=jumps(2, "a")), stage("x", does=beside))

    assert ran.status == "SUCCEEDED"
    assert beside.calls == 1


def test_a_jump_out_of_a_failure_comes_too_late(engine: Engine) -> None:
    ran = engine.run(stage("a", does=fails), stage("b", after="a", does=jumps(1, "a")))

    assert ran.runs("a") == ["TERMINAL"]


def _until(number: int) -> Body:
    rounds = iter(range(100))

    def body(stage: StageExecution) -> TaskResult:
        if next(rounds) < number:
            return TaskResult.jump_to("start")
        return TaskResult.success()

    return body


@pytest.mark.parametrize("rounds", [1, 5, 10])
def test_a_loop_over_a_fan_in_ends_after_any_number_of_rounds(engine: Engine, rounds: int) -> None:
    ran = engine.run(
        stage("start"),
        stage("l", after="start"),
        stage("r", after="start"),
        stage("join", after=["l", "r"]),
        stage("again", after="join", does=_until(rounds)),
        stage("end", after="again"),
    )

    assert ran.status == "SUCCEEDED"
    assert ran.runs("join") == ["SUCCEEDED"] * (rounds + 1)
    assert ran.runs("end") == ["SUCCEEDED"]
