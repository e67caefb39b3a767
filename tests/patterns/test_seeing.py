"""What people are shown of a workflow: why a stage is not running, and a drawing."""

from __future__ import annotations

import pytest

from stabilize import JoinType, SplitType
from stabilize.models.triggers import Signal, Timer
from tests.patterns.catalog import PATTERNS, Pattern
from tests.support.builders import Engine, fails, stage, workflow


def test_a_stage_that_waits_is_explained(engine: Engine) -> None:
    made = workflow(
        stage("s"),
        stage("a", after="s"),
        stage("b", after="s", does="waits", mutex_key="k"),
        stage("c", after="s", trigger=Signal("paid")),
        stage("d", after="a", milestone_ref_id="b", milestone_status="SUCCEEDED"),
        stage("join", after=["a", "b"]),
    )
    engine.submit(made)
    engine.play()

    why = engine.orchestrator.explain(made.id)

    assert why["b"] == "it waits for a signal: orchestrator.signal wakes it"
    assert why["c"] == "it waits for the signal 'paid'"
    assert why["d"] == "it waits until 'b' is SUCCEEDED; it is SUSPENDED"
    assert why["join"] == "'a' came; it waits for 'b' (SUSPENDED)"
    assert "join (NOT_STARTED): 'a' came" in str(why)


def test_who_holds_a_mutex_is_explained(engine: Engine) -> None:
    made = workflow(
        stage("a", does="waits", mutex_key="k"), stage("b", does="waits", mutex_key="k")
    )
    engine.submit(made)
    engine.play()
    held = {s.ref_id: s.status.name for s in engine.look(made).workflow.stages}
    holder, waiter = sorted(held, key=lambda ref: held[ref] != "SUSPENDED")

    why = engine.orchestrator.explain(made.id)

    assert why[waiter] == f"it waits for the mutex 'k', which {holder!r} holds"


def test_what_a_failure_kept_from_starting_is_explained(engine: Engine) -> None:
    ran = engine.run(stage("a", does=fails), stage("b", after="a"))

    why = engine.orchestrator.explain(ran.workflow.id)

    assert why["a"] == "boom"
    assert why["b"] == "the workflow ended (TERMINAL) before it was reached"


def test_why_a_branch_did_not_run_is_explained(engine: Engine) -> None:
    ran = engine.run(
        stage("s", split_type=SplitType.XOR, split_conditions={"a": "x == 1"}, split_default="b"),
        stage("a", after="s"),
        stage("b", after="s", context={"stageEnabled": False}),
        stage("c", after="a"),
    )

    why = engine.orchestrator.explain(ran.workflow.id)

    assert why.why == "it has ended"
    assert why["a"] == "it did not run: no branch to it was taken: 's' took another way"
    assert why["b"] == "it did not run: stageEnabled is false"
    assert why["c"] == "it did not run: no branch to it was taken: 'a' did not run"


def test_why_a_stage_was_withdrawn_is_explained(engine: Engine) -> None:
    made = workflow(
        stage("a", does="waits"),
        stage("b", deferred_choice_group="g", trigger=Signal("one")),
        stage("c", deferred_choice_group="g", trigger=Signal("two")),
        stage("d", does="waits"),
    )
    engine.submit(made)
    engine.play()
    stages = {s.ref_id: s for s in engine.look(made).workflow.stages}
    engine.orchestrator.signal(made, stages["b"].id, "one")
    engine.orchestrator.cancel_stage(stages["a"], reason="not needed any more")
    engine.play()

    why = engine.orchestrator.explain(made.id)

    assert why["a"] == "it was withdrawn while it was under way: not needed any more"
    assert why["c"] == "it did not run: the choice 'g' fell on 'b'"


def test_how_much_a_join_still_needs_is_explained(engine: Engine) -> None:
    made = workflow(
        stage("a"),
        stage("b", does="waits"),
        stage("c", does="waits"),
        stage("t", split_type=SplitType.THREADS, split_count=3),
        stage("each", after="t", mutex_key="k", does="waits"),
        stage("two", after=["a", "b", "c"], join_type=JoinType.N_OF_M, join_threshold=2),
        stage("all", after=["a", "b"], join_type=JoinType.OR, join_scope="general"),
        stage("merged", after="each", join_type=JoinType.THREADS, join_threshold=3),
    )
    engine.submit(made)
    engine.play()
    held = next(
        run
        for run in engine.look(made).workflow.stage_runs
        if run.ref_id == "each" and run.status.name == "SUSPENDED"
    )
    engine.orchestrator.signal(made, held, "go")
    engine.play()

    why = engine.orchestrator.explain(made.id)

    waits = "'b' (SUSPENDED)"
    assert why["two"] == (
        f"it needs 2 of its 3 branches; 'a' came; it waits for {waits}, 'c' (SUSPENDED)"
    )
    assert why["all"] == f"it waits until nothing more can come; 'a' came; it waits for {waits}"
    assert why["merged"].startswith("it needs 3 threads; 'each' came; it waits for 'each' (")


def test_what_each_thread_lacks_is_explained(engine: Engine) -> None:
    made = workflow(
        stage("t", split_type=SplitType.THREADS, split_count=2),
        stage("a", after="t"),
        stage("b", after="t", does="waits"),
        stage("join", after=["a", "b"]),
    )
    engine.submit(made)
    engine.play()

    why = engine.orchestrator.explain(made.id)

    lacks = "'a' came; it waits for 'b' (SUSPENDED)"
    assert why["join"] == f"thread 1: {lacks}; thread 2: {lacks}"


def test_which_stage_failed_a_workflow_is_explained(engine: Engine) -> None:
    ran = engine.run(stage("a", does=fails), stage("b", after="a"))

    assert engine.orchestrator.explain(ran.workflow).why == "stage 'a' failed: boom"


def test_a_definition_is_drawn_with_its_joins_and_splits() -> None:
    made = workflow(
        stage(
            "s", split_type=SplitType.XOR, split_conditions={"a": 'kind == "x"'}, split_default="b"
        ),
        stage("a", after="s"),
        stage("b", after="s"),
        stage("join", after=["a", "b"], join_type=JoinType.N_OF_M, join_threshold=1),
    )

    assert (
        made.to_mermaid()
        == """\
flowchart LR
    s0["s<br/>split XOR"]:::NOT_STARTED
    s1["a"]:::NOT_STARTED
    s2["b"]:::NOT_STARTED
    s3["join<br/>join N_OF_M 1 of 2"]:::NOT_STARTED
    s0 -->|"kind == #quot;x#quot;"| s1
    s0 -->|"else"| s2
    s1 --> s3
    s2 --> s3
    classDef NOT_STARTED fill:#ffffff,stroke:#555,color:#222
"""
    )
    assert '    s0 -> s1 [label="kind == \\"x\\""]' in made.to_dot()


def test_what_a_stage_waits_for_beside_others_is_drawn(engine: Engine) -> None:
    ran = engine.run(
        stage("a", deferred_choice_group="g", trigger=Signal("paid")),
        stage("b", deferred_choice_group="g", trigger=Timer("90m")),
        stage("c", mutex_key="m", milestone_ref_id="a", milestone_status="SUCCEEDED"),
    )

    drawing = ran.workflow.to_mermaid()

    assert 's0["a<br/>choice g, signal paid"]' in drawing
    assert 's1["b<br/>choice g, after 1:30:00"]' in drawing
    assert 's2["c<br/>mutex m, while a is SUCCEEDED"]' in drawing


def test_a_run_is_drawn_with_its_statuses_and_how_often_each_stage_ran(engine: Engine) -> None:
    ran = engine.run(
        stage("a"),
        stage("b"),
        stage("m", after=["a", "b"], join_type=JoinType.MULTI_MERGE),
    )

    assert 's2["m<br/>join MULTI_MERGE<br/>SUCCEEDED<br/>2 runs"]:::SUCCEEDED' in (
        ran.workflow.to_mermaid()
    )
    assert "2 runs" in ran.workflow.to_dot()


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=lambda pattern: pattern.id)
def test_every_pattern_can_be_drawn(pattern: Pattern) -> None:
    made = workflow(*pattern.stages())

    edges = sum(len(s.requisite_stage_ref_ids) for s in made.stages)
    assert made.to_mermaid().count("-->") == edges
    assert made.to_dot().count(" -> ") == edges
