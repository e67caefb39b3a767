"""Workflows of random shape, and what each of them must come to, by a way of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from stabilize import JoinType, SplitType, StageExecution, TaskExecution, Workflow, WorkflowStatus

S = WorkflowStatus
LIVE, DEAD, FAILED, HALT = "live", "dead", "failed", "halt"
FLAGS: dict[str, dict[str, bool]] = {
    "fails the workflow": {},
    "goes on": {"continuePipelineOnFailure": True},
    "stops its branch": {"failPipeline": False},
}


@dataclass
class Node:
    """A stage on paper."""

    name: str
    before: list[str]
    join: JoinType = JoinType.AND
    threshold: int = 0
    fails: bool = False
    on_failure: str = "fails the workflow"
    retries: int = 0
    ms: int = 0
    skipped: bool = False
    chosen: set[str] | None = None
    """The branches its split takes; None for all."""
    after: list[str] = field(default_factory=list)


def draw(rng: random.Random) -> list[Node]:
    """A graph: each stage after up to three earlier ones."""
    nodes = [_node(rng, n) for n in range(rng.randint(2, 9))]
    for n, node in enumerate(nodes):
        if n and rng.random() > 0.1:
            recent = nodes[max(0, n - 5) : n]
            node.before = [
                up.name for up in rng.sample(recent, min(len(recent), rng.choice([1, 1, 2, 2, 3])))
            ]
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        for up in node.before:
            by_name[up].after.append(node.name)
    for node in nodes:
        _decide(rng, node)
    return nodes


def _node(rng: random.Random, n: int) -> Node:
    return Node(
        name=f"s{n}",
        before=[],
        fails=rng.random() < 0.12,
        on_failure=rng.choice(list(FLAGS)),
        retries=rng.choice([0] * 7 + [1, 2]),
        ms=rng.choice([0, 0, 5, 20, 60]),
        skipped=rng.random() < 0.05,
    )


def _decide(rng: random.Random, node: Node) -> None:
    if len(node.before) > 1:
        joins = [JoinType.AND] * 3 + [JoinType.OR, JoinType.DISCRIMINATOR, JoinType.N_OF_M]
        # What follows a stage that runs several times runs several times as well: only at the end.
        node.join = rng.choice(joins if node.after else [*joins, JoinType.MULTI_MERGE])
        if node.join is JoinType.N_OF_M:
            node.threshold = rng.randint(1, len(node.before))
        elif node.join is JoinType.MULTI_MERGE:
            node.retries = 0  # the next run goes on with the context of the one before
    if len(node.after) > 1 and rng.random() < 0.3:
        node.chosen = set(rng.sample(node.after, rng.randint(1, len(node.after) - 1)))


def build(nodes: list[Node]) -> Workflow:
    """The same as a workflow."""
    return Workflow.create("random", "random", [_stage(node) for node in nodes])


def _stage(node: Node) -> StageExecution:
    context = {"fails": node.fails, "retries": node.retries, "ms": node.ms}
    stage = StageExecution(
        ref_id=node.name,
        name=node.name,
        context={**context, **FLAGS[node.on_failure]},
        requisite_stage_ref_ids=set(node.before),
        tasks=[TaskExecution.create("body", "body")],
        join_type=node.join,
        join_threshold=node.threshold,
    )
    if node.skipped:
        stage.context["stageEnabled"] = False
    if node.chosen is not None:
        stage.split_type = SplitType.OR
        stage.split_conditions = {
            name: "1 == 1" if name in node.chosen else "1 == 2" for name in node.after
        }
    return stage


@dataclass
class Expected:
    """What a workflow may come to, and how often each body runs if nobody is killed."""

    statuses: set[WorkflowStatus]
    executions: dict[str, int]


def expect(nodes: list[Node]) -> Expected:
    """Work the graph out from the start to the end, as one would on paper."""
    tokens: dict[tuple[str, str], str] = {}
    executions: dict[str, int] = {}
    by_name = {node.name: node for node in nodes}
    absorbed = unabsorbed = False
    for node in nodes:
        times, out = _comes(node, [tokens[up, node.name] for up in node.before])
        if times:
            executions[node.name] = 0 if node.skipped else times * (1 + node.retries)
            out = LIVE if node.skipped or not node.fails else _failing(node)
        ended_failing = out == FAILED and (times > 0 or _lacks(node, tokens))
        if ended_failing and _is_absorbed(node, by_name):
            absorbed = True
        elif ended_failing:
            unabsorbed = True
        for name in node.after:
            taken = out != LIVE or node.chosen is None or name in node.chosen
            tokens[node.name, name] = out if taken else DEAD
    if unabsorbed:
        return Expected({S.TERMINAL}, executions)
    return Expected({S.TERMINAL, S.SUCCEEDED} if absorbed else {S.SUCCEEDED}, executions)


def _comes(node: Node, came: list[str]) -> tuple[int, str]:
    """How often the stage runs, and what it passes on if it does not."""
    if not came:
        return 1, LIVE
    live = came.count(LIVE)
    if node.join in (JoinType.AND, JoinType.OR):
        for bad in (FAILED, HALT):
            if bad in came:
                return 0, bad
        return (1, LIVE) if live else (0, DEAD)
    if node.join is JoinType.MULTI_MERGE:
        return (live, LIVE) if live else (0, FAILED if FAILED in came else DEAD)
    if live >= max(1, node.threshold):
        return 1, LIVE
    return (0, _failing(node)) if live else (0, DEAD)


def _lacks(node: Node, tokens: dict[tuple[str, str], str]) -> bool:
    """It fails because too few branches can still come."""
    live = sum(tokens[up, node.name] == LIVE for up in node.before)
    return node.join is JoinType.N_OF_M and 0 < live < node.threshold


def _failing(node: Node) -> str:
    return {"goes on": LIVE, "stops its branch": HALT}.get(node.on_failure, FAILED)


def _is_absorbed(node: Node, by_name: dict[str, Node]) -> bool:
    """Every way on leads to a join that counts a failed branch as one that does not come."""
    return bool(node.after) and all(
        by_name[name].join in (JoinType.DISCRIMINATOR, JoinType.N_OF_M)
        or _is_absorbed(by_name[name], by_name)
        for name in node.after
    )
