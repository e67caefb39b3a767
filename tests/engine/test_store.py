"""Workflows written, read, searched and deleted."""

from __future__ import annotations

import sys

import pytest
from sqlalchemy import StaticPool, create_engine

from stabilize import (
    ConcurrencyError,
    ConfigurationError,
    ConflictError,
    Orchestrator,
    Queue,
    QueueProcessor,
    SchemaError,
    SqliteQueue,
    SqliteWorkflowStore,
    StageExecution,
    TaskResult,
    Trigger,
    Workflow,
    WorkflowCriteria,
    WorkflowNotFoundError,
    WorkflowStatus,
    WorkflowStore,
)
from stabilize.dag.validation import InvalidStageGraphError
from stabilize.models import MultiInstanceConfig
from stabilize.queue.messages import StartWorkflow
from tests.support.backends import BackendUnderTest, Databases
from tests.support.builders import Engine, Script, fails, ok, puts, sequence, stage, workflow


def test_what_is_stored_comes_back(engine: Engine) -> None:
    made = Workflow.create(
        "shop",
        "order",
        [
            StageExecution(
                ref_id="a",
                type="t",
                name="A",
                context={"k": [1, {"x": None}]},
                split_conditions={"b": "n > 1"},
                mutex_key="m",
                start_time_expiry=5,
                mi_config=MultiInstanceConfig(count=2),
            ),
            stage("b", after="a", does=["ok", "fails"]),
        ],
        Trigger(user="alice", parameters={"p": 1}),
        "nightly",
        {"c": 1},
    )
    engine.store.store(made)

    found = engine.store.retrieve(made.id)

    assert (found.application, found.name, found.pipeline_config_id) == ("shop", "order", "nightly")
    assert found.trigger == Trigger(user="alice", parameters={"p": 1})
    assert found.context == {"c": 1}
    a, b = found.stages
    assert (a.ref_id, a.type, a.name, a.context) == ("a", "t", "A", {"k": [1, {"x": None}]})
    assert (a.split_conditions, a.mutex_key, a.start_time_expiry) == ({"b": "n > 1"}, "m", 5)
    assert a.mi_config == MultiInstanceConfig(count=2)
    assert b.requisite_stage_ref_ids == {"a"}
    assert [task.implementing_class for task in b.tasks] == ["ok", "fails"]
    assert [(task.stage_start, task.stage_end) for task in b.tasks] == [
        (True, False),
        (False, True),
    ]


def test_a_retrieved_workflow_is_usable_without_a_session(engine: Engine) -> None:
    ran = engine.run(*sequence("a", "b", "c"))

    b = ran["b"]
    assert [s.ref_id for s in b.upstream_stages()] == ["a"]
    assert [s.ref_id for s in b.downstream_stages()] == ["c"]
    assert [s.ref_id for s in ran["c"].ancestors()] == ["b", "a"]
    assert b.execution is ran.workflow
    assert b.tasks[0].stage is b
    assert [s.ref_id for s in ran.workflow.initial_stages()] == ["a"]


def test_an_unknown_id_is_told_by_name(engine: Engine) -> None:
    with pytest.raises(WorkflowNotFoundError, match="nobody") as caught:
        engine.store.retrieve("nobody")
    assert caught.value.execution_id == "nobody"
    with pytest.raises(WorkflowNotFoundError):
        engine.store.retrieve_execution_summary("nobody")
    with pytest.raises(ValueError, match="nothing"):
        engine.store.retrieve_stage("nothing")
    assert not engine.store.exists("nobody")


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (workflow(id="x" * 65), "id has 65 characters, the limit is 64"),
        (workflow(pipeline_config_id="x" * 256), "pipeline_config_id has 256 characters"),
        (workflow(stage("a" * 256)), "ref_id has 256 characters, the limit is 255"),
        (workflow(stage("a", does="x" * 256)), "task 'x*': name has 256 characters"),
    ],
)
def test_a_text_longer_than_its_column_is_refused_by_name(
    engine: Engine, made: Workflow, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        engine.store.store(made)


@pytest.mark.parametrize(
    ("refs", "fault"),
    [
        ({"a": {"b"}}, "unknown_ref: stage 'a' requires 'b'"),
        ({"a": set(), "A": {"a", "c"}}, "unknown_ref: stage 'A' requires 'c'"),
    ],
)
def test_a_graph_nobody_checked_is_refused_when_it_is_stored(
    engine: Engine, refs: dict[str, set[str]], fault: str
) -> None:
    stages = [StageExecution(ref_id=r, requisite_stage_ref_ids=s) for r, s in refs.items()]
    with pytest.raises(InvalidStageGraphError, match=fault):
        engine.store.store(Workflow.create_orchestration("tests", "unchecked", stages))


def test_two_stages_of_one_ref_are_refused_when_they_are_stored(engine: Engine) -> None:
    stages = [StageExecution(ref_id="a"), StageExecution(ref_id="a")]
    with pytest.raises(InvalidStageGraphError, match="duplicate_ref: 'a'"):
        engine.store.store(Workflow.create_orchestration("tests", "unchecked", stages))


def _order(quantity: int = 1) -> Workflow:
    return workflow(stage("a", does="ok", context={"n": quantity}), id="order-4711")


def test_the_same_submission_under_the_same_id_is_the_one_that_is_stored(engine: Engine) -> None:
    engine.submit(_order())
    engine.play()
    engine.submit(_order())
    engine.play()

    again = engine.store.store(_order())

    assert again.status is WorkflowStatus.SUCCEEDED
    assert len(again.stage_runs) == 1
    assert engine.store.count(WorkflowCriteria()) == 1


def test_another_definition_under_the_same_id_is_a_conflict(engine: Engine) -> None:
    engine.store.store(_order())

    with pytest.raises(ConflictError, match="order-4711"):
        engine.store.store(_order(2))
    with pytest.raises(ConflictError):
        engine.orchestrator.start(_order(2))

    assert engine.store.retrieve("order-4711").stages[0].context == {"n": 1}


def test_a_retrieved_workflow_can_be_started_again_without_harm(engine: Engine) -> None:
    ran = engine.run(stage("a", does=puts(n=1)), stage("b", after="a", does=fails))

    engine.orchestrator.start(ran.workflow)
    again = engine.go_on(ran.workflow)

    assert again.runs("a") == ["SUCCEEDED"]
    assert engine.store.store(ran.workflow).status is WorkflowStatus.TERMINAL


def test_starting_twice_runs_once(engine: Engine) -> None:
    body = Script(TaskResult.success())
    made = workflow(stage("a", does=body))
    engine.submit(made)
    engine.submit(made)

    assert engine.go_on(made).status == "SUCCEEDED"
    assert body.calls == 1


def test_a_stage_changed_by_somebody_else_meanwhile_is_not_overwritten(engine: Engine) -> None:
    made = workflow(stage("a", context={"n": 0}))
    engine.store.store(made)
    mine = engine.store.retrieve_stage(made.stages[0].id)
    theirs = engine.store.retrieve_stage(made.stages[0].id)
    theirs.context = {"n": 1}
    engine.store.store_stage(theirs)

    mine.context = {"n": 2}
    with pytest.raises(ConcurrencyError, match="'a'"):
        engine.store.store_stage(mine)

    assert engine.store.retrieve_stage(mine.id).context == {"n": 1}
    assert theirs.version == 1
    assert mine.version == 0


def test_a_stage_the_engine_has_moved_meanwhile_is_not_overwritten(engine: Engine) -> None:
    made = workflow(stage("a"))
    engine.store.store(made)
    stale = engine.store.retrieve_stage(made.stages[0].id)
    engine.submit(made)
    engine.play()

    stale.context = {"n": 2}
    with pytest.raises(ConcurrencyError):
        engine.store.store_stage(stale)


def test_a_stage_is_written_only_in_the_status_that_is_expected(engine: Engine) -> None:
    made = workflow(stage("a"))
    engine.store.store(made)
    found = engine.store.retrieve_stage(made.stages[0].id)

    with pytest.raises(ConcurrencyError):
        engine.store.store_stage(found, expected_phase="RUNNING")
    engine.store.store_stage(found, expected_phase="NOT_STARTED")


def test_what_was_written_outside_is_what_the_engine_goes_on_with(engine: Engine) -> None:
    body = Script(TaskResult.suspend(), TaskResult.success())
    made = workflow(stage("a", does=body))
    engine.submit(made)
    with engine.started():
        from tests.support.builders import eventually

        eventually(lambda: engine.look(made).statuses == {"a": "SUSPENDED"})
        found = engine.store.retrieve_stage(made.stages[0].id)
        found.context = {"patched": True}
        engine.store.store_stage(found)
        engine.orchestrator.signal(made, found.id, "go on")
        eventually(lambda: engine.status(made) == "SUCCEEDED")

    assert body.contexts[-1]["patched"] is True


def test_a_transaction_of_the_store_changes_all_or_nothing(engine: Engine) -> None:
    from stabilize.queue.messages import StartWorkflow

    made = workflow(stage("a"))
    engine.store.store(made)
    found = engine.store.retrieve_stage(made.stages[0].id)

    found.context = {"n": 1}

    def fail_halfway() -> None:
        with engine.store.transaction(engine.queue) as transaction:
            transaction.store_stage(found)
            transaction.push_message(StartWorkflow(execution_id=made.id))
            raise LookupError("halfway")

    with pytest.raises(LookupError):
        fail_halfway()
    assert (found.version, engine.queue.size()) == (0, 0)
    assert engine.store.retrieve_stage(found.id).context == {}

    with engine.store.transaction(engine.queue) as transaction:
        transaction.store_stage(found)
        transaction.push_message(StartWorkflow(execution_id=made.id))
    assert (found.version, engine.queue.size()) == (1, 1)
    assert engine.store.retrieve_stage(found.id).context == {"n": 1}


def test_a_stale_workflow_status_is_not_written(engine: Engine) -> None:
    made = workflow(stage("a"))
    engine.store.store(made)
    one, two = engine.store.retrieve(made.id), engine.store.retrieve(made.id)
    one.status = WorkflowStatus.PAUSED
    engine.store.update_status(one)

    two.status = WorkflowStatus.CANCELED
    with pytest.raises(ConcurrencyError, match=made.id):
        engine.store.update_status(two)

    assert engine.status(made) == "PAUSED"


def test_a_deleted_workflow_leaves_nothing_behind(engine: Engine) -> None:
    from sqlalchemy import func, select

    from stabilize.models import StageEdge, TaskExecution, Token

    ran = engine.run(*sequence("a", "b"))
    other = engine.run(stage("x"))

    engine.store.delete(ran.workflow.id)
    engine.store.delete("nobody")

    assert not engine.store.exists(ran.workflow.id)
    assert engine.look(other.workflow).status == "SUCCEEDED"
    with engine.database.reading() as session:
        for model in (StageExecution, StageEdge, TaskExecution, Token):
            left = select(func.count()).select_from(model)
            assert session.scalar(left.where(model.workflow_id == ran.workflow.id)) == 0


def test_a_workflow_deleted_while_it_waits_leaves_the_others_alone(engine: Engine) -> None:
    made = workflow(stage("a", does=Script(TaskResult.suspend())))
    engine.submit(made)
    engine.play()

    engine.store.delete(made.id)

    assert engine.run(stage("b")).status == "SUCCEEDED"


def test_stages_are_added_and_removed_before_the_start(engine: Engine) -> None:
    made = workflow(stage("a"))
    engine.store.store(made)
    added = stage("b", after="a", does="ok")
    added.workflow_id = made.id

    engine.store.add_stage(added)
    assert engine.look(made).statuses == {"a": "NOT_STARTED", "b": "NOT_STARTED"}
    engine.store.remove_stage(made, added.id)
    assert engine.look(made).statuses == {"a": "NOT_STARTED"}


def test_a_search_narrows_by_application_name_status_and_time_in_pages(engine: Engine) -> None:
    clock = engine.stop_time()
    for number in range(5):
        clock.advance(10)
        made = Workflow.create("shop", f"w{number % 2}", [stage("a", does=ok if number else fails)])
        engine.submit(made)
        engine.play()
    engine.run(stage("a"))

    def names(**criteria: object) -> list[str]:
        return [w.name for w in engine.store.search(WorkflowCriteria(**criteria))]  # type: ignore[arg-type]

    assert names(application="shop") == ["w0", "w1", "w0", "w1", "w0"]
    assert names(application="shop", page_size=2, page=1) == ["w0", "w1"]
    assert names(application="shop", name="w1") == ["w1", "w1"]
    assert names(application="shop", statuses=[WorkflowStatus.TERMINAL]) == ["w0"]
    assert names(application="shop", start_time_after=clock.now_ms() - 15_000) == ["w0", "w1"]
    assert names(application="nothing") == []
    assert engine.store.count(WorkflowCriteria(application="shop", page_size=1)) == 5
    assert engine.store.count_by_application("shop") == 5
    assert len(engine.store.list_workflows("shop", limit=3)) == 3
    whole = list(engine.store.retrieve_by_application("shop"))
    assert [len(w.stages) for w in whole] == [1] * 5


def test_workflows_that_are_not_over_are_found(engine: Engine) -> None:
    waiting = workflow(stage("a", does=Script(TaskResult.suspend())))
    engine.submit(waiting)
    engine.run(stage("a"))

    assert [w.id for w in engine.store.get_all_pending_workflows()] == [waiting.id]


def test_merged_outputs_of_ancestors_are_read_from_the_definition(engine: Engine) -> None:
    ran = engine.run(
        stage("a", does=puts(l=[1], v=1)),
        stage("b", after="a", does=puts(l=[2], v=2)),
        stage("c", after="b"),
    )
    id = ran.workflow.id

    assert engine.store.get_merged_ancestor_outputs(id, "c") == {"l": [1, 2], "v": 2}
    assert [s.ref_id for s in engine.store.get_upstream_stages(id, "b")] == ["a"]
    assert [s.ref_id for s in engine.store.get_downstream_stages(id, "b")] == ["c"]


def test_two_stores_on_one_url_share_one_database(backend: BackendUnderTest) -> None:
    one, two = WorkflowStore(backend.url), WorkflowStore(backend.url)
    made = workflow(stage("a"))

    one.store(made)

    assert one.database is two.database
    assert two.retrieve(made.id).name == made.name


def test_store_and_queue_on_different_databases_are_refused(
    backend: BackendUnderTest, databases: Databases
) -> None:
    other = "sqlite-memory" if backend.name == "sqlite-file" else "sqlite-file"
    with databases.lend(other) as elsewhere:
        store, queue = WorkflowStore(backend.url), Queue(elsewhere.url)
        with pytest.raises(ConfigurationError, match="different databases"):
            QueueProcessor(queue, store=store)
        with pytest.raises(ConfigurationError, match="different databases"):
            Orchestrator(queue, store)
        with pytest.raises(ConfigurationError), store.transaction(queue):
            pass


@pytest.mark.parametrize("text", ["app.db", "", "user:secret@host"])
def test_what_is_no_url_is_told_with_the_remedy_and_without_a_password(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///file\.db") as caught:
        WorkflowStore(text)
    assert "secret" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(ConfigurationError, match=r"'pymysql'.*stabilize\[all\]") as caught:
        WorkflowStore("mysql://user:secret@nowhere.invalid/name")
    assert "secret" not in str(caught.value)


def test_a_database_without_tables_is_told_with_the_remedy(empty_backend: BackendUnderTest) -> None:
    store = WorkflowStore(empty_backend.url)

    with pytest.raises(SchemaError, match="create_tables=True"):
        store.store(workflow(stage("a")))
    with pytest.raises(SchemaError):
        store.retrieve("unknown")
    with pytest.raises(SchemaError):
        Queue(empty_backend.url).push(StartWorkflow(execution_id="unknown"))
    with pytest.raises(SchemaError):
        QueueProcessor(Queue(empty_backend.url)).process_all(1)


def test_creating_the_tables_twice_is_fine(empty_backend: BackendUnderTest) -> None:
    queue = Queue(empty_backend.url)
    queue._create_table()
    queue._create_table()
    WorkflowStore(empty_backend.url, create_tables=True)

    with Engine(empty_backend.url) as engine:
        assert engine.run(stage("a")).status == "SUCCEEDED"


def test_a_memory_database_is_shared_by_store_queue_and_threads() -> None:
    store = SqliteWorkflowStore("sqlite:///:memory:", create_tables=True)
    queue = SqliteQueue("sqlite:///:memory:")
    assert store.database is queue.database

    with Engine("sqlite:///:memory:") as engine:
        made = workflow(stage("a"))
        with engine.started():
            from tests.support.builders import eventually

            engine.submit(made)
            eventually(lambda: store.retrieve(made.id).status is WorkflowStatus.SUCCEEDED)


def test_an_engine_with_one_connection_for_all_is_refused_with_the_reason() -> None:
    shared = create_engine("sqlite://", poolclass=StaticPool)

    with pytest.raises(ConfigurationError, match="one connection"):
        WorkflowStore(shared)
    with pytest.raises(ConfigurationError, match="turns and tasks cannot share"):
        Queue(create_engine("sqlite://"))
    shared.dispose()


def test_a_folder_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        WorkflowStore("sqlite:////nowhere/at/all.db")


def test_an_unknown_database_is_told_with_those_that_are_known() -> None:
    with pytest.raises(Exception, match=r"oracle|sqlite"):
        WorkflowStore("oracle://host/db")


def test_a_healthy_store_says_so(engine: Engine) -> None:
    assert engine.store.is_healthy()
