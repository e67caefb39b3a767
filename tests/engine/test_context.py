"""What a task sees: its stage's own context over what its run came from."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from stabilize import JoinType, StageExecution, TaskResult, Workflow, WorkflowStore
from stabilize.errors import PayloadError
from tests.support.builders import Engine, Recorder, Script, puts, returns, stage, workflow


def test_a_stage_inherits_the_outputs_of_all_its_ancestors(engine: Engine) -> None:
    last = Recorder()

    engine.run(
        stage("a", does=puts(v=1, a=1)),
        stage("b", after="a", does=puts(v=2, b=1)),
        stage("c", after="b", does=last, context={"own": 1}),
    )

    assert last.contexts == [{"v": 2, "a": 1, "b": 1, "own": 1}]


def test_a_join_merges_its_branches_by_their_refs_and_adds_lists_up(engine: Engine) -> None:
    last = Recorder()

    engine.run(
        stage("b", does=puts(v=2, l=[1, 2], only_b=True)),
        stage("a", does=puts(v=1, l=[1], only_a=True)),
        stage("c", after=["a", "b"], does=last, context={"own": 1, "l": ["mine"]}),
    )

    assert last.contexts[0] == {
        "v": 2,
        "l": [1, 2, "mine"],
        "only_a": True,
        "only_b": True,
        "own": 1,
    }


def test_what_comes_later_wins_wherever_it_stands_in_the_definition(engine: Engine) -> None:
    last = Recorder()

    ran = engine.run(
        stage("a", after="m", does=last),
        stage("m", after="x", does=puts(v=3)),
        stage("x", after="z", does=puts(v=2), context={"stageEnabled": False}),
        stage("z", does=puts(v=1)),
    )

    assert last.contexts == [{"v": 3}]
    assert ran.context == {"v": 3}
    assert engine.store.get_merged_ancestor_outputs(ran.workflow.id, "a") == {"v": 3}


def test_the_own_context_wins_over_what_is_inherited(engine: Engine) -> None:
    last = Recorder()

    engine.run(stage("a", does=puts(v=1)), stage("b", after="a", does=last, context={"v": 9}))

    assert last.contexts[0]["v"] == 9


def test_what_is_inherited_is_not_copied_into_the_stage(engine: Engine) -> None:
    ran = engine.run(
        stage("a", does=puts(big="x" * 1000)), stage("b", after="a", context={"own": 1})
    )

    assert ran["b"].context == {"own": 1}
    assert ran.context == {"big": "x" * 1000}


def test_a_stage_does_not_inherit_from_a_branch_beside_it(engine: Engine) -> None:
    last = Recorder()

    engine.run(
        stage("a", does=puts(a=1)), stage("b", does=puts(b=1)), stage("c", after="b", does=last)
    )

    assert last.contexts == [{"b": 1}]


def test_a_discriminator_inherits_from_the_branch_that_came_first(engine: Engine) -> None:
    last = Recorder()

    engine.run(
        stage("a", does=puts(a=1)),
        stage("b", does=Script(TaskResult.suspend())),
        stage("c", after=["a", "b"], does=last, join_type=JoinType.DISCRIMINATOR),
    )

    assert last.contexts == [{"a": 1}]


def test_a_skipped_stage_hands_on_what_came_before_it(engine: Engine) -> None:
    last = Recorder()

    engine.run(
        stage("a", does=puts(a=1)),
        stage("b", after="a", context={"stageEnabled": False}),
        stage("c", after="b", does=last),
    )

    assert last.contexts == [{"a": 1}]


def test_the_workflows_context_is_read_through_the_execution(engine: Engine) -> None:
    seen: list[dict[str, Any]] = []

    def body(stage: StageExecution) -> TaskResult:
        seen.append(dict(stage.execution.context))
        assert "shared" not in stage.context
        return TaskResult.success()

    ran = engine.run(stage("a", does=body), context={"shared": 1})

    assert (ran.status, seen) == ("SUCCEEDED", [{"shared": 1}])


def test_a_body_can_look_around_in_its_workflow(engine: Engine) -> None:
    seen: list[Any] = []

    def body(stage: StageExecution) -> TaskResult:
        seen.append(stage.execution.name)
        seen.append([s.ref_id for s in stage.ancestors()])
        seen.append([s.ref_id for s in stage.downstream_stages()])
        seen.append([t.name for t in stage.tasks])
        return TaskResult.success()

    ran = engine.run(
        stage("a"), stage("b", after="a"), stage("c", after="b", does=body), stage("d", after="c")
    )

    assert ran.status == "SUCCEEDED"
    assert seen[:3] == ["a workflow", ["b", "a"], ["d"]]
    assert len(seen[3]) == 1


def test_a_change_of_the_context_in_place_is_warned_of_and_not_kept(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def body(stage: StageExecution) -> TaskResult:
        stage.context["sneaked"] = 1
        stage.outputs["sneaked"] = 1
        return TaskResult.success()

    last = Recorder()
    with caplog.at_level(logging.WARNING, logger="stabilize"):
        ran = engine.run(stage("a", does=body), stage("b", after="a", does=last))

    assert ran.status == "SUCCEEDED"
    assert "sneaked" not in ran["a"].context
    assert "sneaked" not in ran["a"].outputs
    assert last.contexts == [{}]
    assert "stage 'a'" in caplog.text
    assert "changed in place, which is not kept" in caplog.text


def test_a_deep_change_in_place_is_not_kept_either(engine: Engine) -> None:
    def body(stage: StageExecution) -> TaskResult:
        stage.context["items"].append(2)
        return TaskResult.success()

    second = Recorder()

    ran = engine.run(stage("a", does=[body, second], context={"items": [1]}))

    assert second.contexts[0]["items"] == [1]
    assert ran["a"].context == {"items": [1]}


def test_settings_are_those_of_the_definition_alone(engine: Engine) -> None:
    seen: list[dict[str, Any]] = []

    def body(stage: StageExecution) -> TaskResult:
        seen.append(stage.settings)
        return TaskResult.success()

    engine.run(
        stage("a", does=puts(command="rm -rf", allow_private_urls=True)),
        stage("b", after="a", does=body, context={"command": "ls"}),
    )

    assert seen == [{"command": "ls"}]


def test_a_change_of_the_settings_in_place_reaches_neither_the_next_execution_nor_the_database(
    engine: Engine,
) -> None:
    seen: list[list[int]] = []

    def body(stage: StageExecution) -> TaskResult:
        found = stage.settings["items"]
        seen.append(list(found))
        found.append(2)
        return TaskResult.running({"polled": True}) if len(seen) == 1 else TaskResult.success()

    engine.stop_time()
    ran = engine.run(stage("a", does=body, context={"items": [1]}))

    assert seen == [[1], [1]]
    assert ran["a"].context == {"items": [1], "polled": True}


def test_bodies_at_work_at_the_same_time_share_nothing_of_what_they_see(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reads its workflow's stages so slowly that the second looks meanwhile."""
    reading, changed, done = (threading.Event() for _ in range(3))
    retrieve = WorkflowStore.retrieve

    def slowly(store: WorkflowStore, *args: Any, **options: Any) -> Workflow:
        if not reading.is_set() and threading.current_thread() is not threading.main_thread():
            reading.set()
            assert done.wait(10)
        return retrieve(store, *args, **options)

    def first(stage: StageExecution) -> TaskResult:
        stage.execution.context["shared"].append(2)
        changed.set()
        return TaskResult.success({"stages": len(stage.execution.stages)})

    def second(stage: StageExecution) -> TaskResult:
        assert changed.wait(10)
        assert reading.wait(10)
        try:
            found = {"stages": len(stage.execution.stages), **stage.execution.context}
            return TaskResult.success(found)
        finally:
            done.set()

    monkeypatch.setattr(WorkflowStore, "retrieve", slowly)
    ran = engine.run(stage("a", does=first), stage("b", does=second), context={"shared": [1]})

    assert ran["a"].outputs == {"stages": 2}
    assert ran["b"].outputs == {"stages": 2, "shared": [1]}


def test_an_output_upstream_is_no_signal(engine: Engine) -> None:
    forged = puts(_signal_name="approved", _signal_data={"user": "eve"}, plain=1)
    waits = Script(TaskResult.suspend())

    ran = engine.run(stage("a", does=forged), stage("b", after="a", does=waits))

    assert waits.contexts == [{"plain": 1}]
    assert ran.statuses == {"a": "SUCCEEDED", "b": "SUSPENDED"}


def test_an_unknown_reducer_fails_its_stage_before_it_begins(engine: Engine) -> None:
    never = Recorder()

    ran = engine.run(
        stage("a", does=puts(v=1)),
        stage("b", after="a", does=never, output_reducers={"v": "median"}),
    )

    assert ran.statuses == {"a": "SUCCEEDED", "b": "TERMINAL"}
    assert "'median' for 'v' is no reducer" in ran.error("b")
    assert never.calls == 0


def test_what_a_retry_keeps_is_not_a_setting_of_the_next_stage(engine: Engine) -> None:
    ran = engine.run(
        stage("a", does=returns(TaskResult.success(context={"failPipeline": False}))),
        stage("b", after="a", does=lambda stage: TaskResult.terminal("x")),
    )

    assert ran.statuses == {"a": "SUCCEEDED", "b": "TERMINAL"}


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


UNFIT = [
    ("NaN", {"amount": float("nan")}, "outputs.amount"),
    ("infinity", {"deep": {"amount": float("inf")}}, "outputs.deep.amount"),
    ("NUL", {"name": "a\x00b"}, "outputs.name"),
    ("NUL in a key", {"na\x00me": 1}, "outputs"),
    ("a lone surrogate", {"name": "\ud800"}, "outputs.name"),
    ("a key that is no text", {"map": {1: "x"}}, "outputs.map"),
    ("an object", {"when": object()}, "outputs.when"),
    ("bytes", {"raw": b"x"}, "outputs.raw"),
    ("too deep", {"nest": _deep(201)}, "outputs.nest"),
    ("too big", {"blob": "x" * 1_100_000}, "outputs"),
]


@pytest.mark.parametrize(
    ("outputs", "named"), [row[1:] for row in UNFIT], ids=[row[0] for row in UNFIT]
)
def test_a_result_no_database_can_hold_fails_its_task_and_names_the_key(
    engine: Engine, outputs: dict[str, Any], named: str
) -> None:
    body = Script(TaskResult.success(outputs=outputs))

    ran = engine.run(stage("a", does=body), stage("b", after="a"))

    assert ran.statuses == {"a": "TERMINAL", "b": "NOT_STARTED"}
    assert named in ran.error("a")
    assert (ran["a"].outputs, body.calls) == ({}, 1)


@pytest.mark.parametrize(
    ("context", "named"),
    [
        ({"a": float("nan")}, "context.a"),
        ({"a": "\x00"}, "context.a"),
        ({"a": object()}, "context.a"),
    ],
    ids=["NaN", "NUL", "object"],
)
def test_a_definition_no_database_can_hold_is_refused_when_it_is_stored(
    engine: Engine, context: dict[str, Any], named: str
) -> None:
    made = workflow(stage("s", context=context))

    with pytest.raises(PayloadError, match=named):
        engine.orchestrator.start(made)

    assert not engine.store.exists(made.id)
    assert engine.queue.size() == 0


def test_values_come_back_as_json_has_them(engine: Engine) -> None:
    given: dict[str, Any] = {
        "tuple": (1, 2),
        "set": {3, 1},
        "text": "ü – 文 \U0001f600",
        "none": None,
        "float": 1.5,
        "big": 2**60,
        "empty": {},
        "list": [],
        "bool": True,
        "nested": {"a": [{"b": None}]},
    }

    ran = engine.run(stage("a", does=puts(**given)))

    assert ran["a"].outputs == {**given, "tuple": [1, 2], "set": [1, 3]}
