"""The import paths that programs know, and what an import costs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import stabilize
from stabilize.persistence import create_queue, create_repository, detect_backend

ROOT = Path(__file__).parents[2]
HEAVY = ("alembic", "httpx", "rich", "sqlalchemy", "typer")
PATHS = {
    "stabilize.dag.topological": [
        "CircularDependencyError",
        "InvalidStageGraphError",
        "topological_sort",
        "validate_stage_graph",
    ],
    "stabilize.errors": ["PermanentError", "TransientError"],
    "stabilize.expressions": ["ExpressionError", "evaluate_expression"],
    "stabilize.models.stage": ["JoinType", "SplitType", "StageExecution", "SyntheticStageOwner"],
    "stabilize.models.status": ["WorkflowStatus", "can_transition", "validate_transition"],
    "stabilize.models.task": ["TaskExecution"],
    "stabilize.models.workflow": ["PausedDetails", "Trigger", "Workflow", "WorkflowType"],
    "stabilize.persistence": ["create_queue", "create_repository", "detect_backend"],
    "stabilize.persistence.sqlite": ["SqliteWorkflowStore"],
    "stabilize.persistence.store": ["WorkflowCriteria", "WorkflowStore"],
    "stabilize.queue": ["PostgresQueue", "Queue", "SqliteQueue"],
    "stabilize.queue.messages": ["CancelWorkflow", "SignalStage", "StartWorkflow"],
    "stabilize.queue.processor": ["QueueProcessor", "QueueProcessorConfig"],
    "stabilize.queue.sqlite": ["SqliteQueue"],
    "stabilize.recovery": ["RecoveryResult", "WorkflowRecovery", "recover_on_startup"],
    "stabilize.stages": ["LoopBuilder", "MultiInstanceBuilder", "StageDefinitionBuilder"],
    "stabilize.stages.builder": ["get_builder", "get_default_factory", "register_builder"],
    "stabilize.tasks.interface": ["RetryableTask", "Task"],
    "stabilize.tasks.result": ["TaskResult"],
}


@pytest.mark.parametrize("path", PATHS)
def test_the_path_leads_to_the_names(path: str) -> None:
    module = importlib.import_module(path)
    missing = [name for name in PATHS[path] if not hasattr(module, name)]
    assert not missing


@pytest.mark.parametrize("name", stabilize.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(stabilize, name) is not None


def test_the_same_class_is_behind_every_path() -> None:
    for path, names in PATHS.items():
        for name in set(names) & set(stabilize.__all__):
            assert getattr(importlib.import_module(path), name) is getattr(stabilize, name)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        f"import sys, stabilize\nprint(*sorted(name for name in {HEAVY} if name in sys.modules))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == ""


def test_store_and_queue_come_from_a_url() -> None:
    url = "sqlite:///:memory:"
    store, queue = create_repository(url), create_queue(url, "mine")
    assert store.database is queue.database
    assert queue.name == "mine"
    assert detect_backend(url) == "sqlite"
