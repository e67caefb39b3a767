"""Writes the catalog into the guide: `python -m tests.patterns.page`.

`docs/guide/flow_control.md` has two parts that are made here, between comments that say so: the
table, and a section for each pattern with a drawing, its stages and a program that can be run.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import stabilize
from stabilize import StageExecution, TaskResult, Workflow
from stabilize.queue.messages import MESSAGE_TYPES
from tests.patterns.catalog import CHAPTERS, PATTERNS, Pattern, Runs
from tests.patterns.catalog.pattern import stage
from tests.patterns.tasks import BODIES

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "flow_control.md"
COMMAND = "python -m tests.patterns.page"

PROGRAM = """\
{functions}


{definition}
workflow = Workflow.create("guide", "{name}", stages)

url = "sqlite:///:memory:"
store = WorkflowStore(url, create_tables=True)
queue = Queue(url)
orchestrator = Orchestrator(queue, store)
registry = TaskRegistry()
for body in [{bodies}]:
    registry.register(body.__name__, body)
processor = QueueProcessor(queue, store=store, task_registry=registry)

orchestrator.start(workflow)
processor.process_all(timeout=10)

{story}result = store.retrieve(workflow.id)
print(result.status)
for run in result.stage_runs:
    print(run.ref_id, run.status)
"""
APART = """\
run = {{run.ref_id: run for run in result.stages}}
spans = sorted(
    (min(run[ref_id].start_time for ref_id in group), max(run[ref_id].end_time for ref_id in group))
    for group in {groups}
)
print("one at a time:", all(end <= begin for (_, end), (begin, _) in pairwise(spans)))
"""
NOW = """\
def now(ref_id):
    return store.retrieve(workflow.id).stage_by_ref_id(ref_id)
"""

SECTION = """\
### {title}

{purpose}

Context condition: {condition}.

```mermaid
{drawing}```

```py
{shown}```

<details>
<summary>The whole program</summary>

```python alone
{program}```

</details>

```text
{printed}```
"""


# --- the parts of a program ---------------------------------------------------------------------


def definition(pattern: Pattern) -> str:
    """What the function of a pattern does, as lines of a program."""
    source = inspect.getsource(pattern.stages)
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    lines = source.splitlines()[function.body[1].lineno - 1 :]  # the first is the docstring
    body = textwrap.dedent("\n".join(lines)).strip()
    return re.sub(r"^return ", "stages = ", body, flags=re.MULTILINE) + "\n"


def story(pattern: Pattern) -> list[str]:
    """What is done while the workflow runs; comments say how things stand then."""
    return [
        "\n".join([*_standing(step.when), *step.lines, "processor.process_all(timeout=10)\n"])
        for step in pattern.meanwhile
    ]


def _standing(when: Mapping[str, Runs]) -> Iterator[str]:
    by_status: dict[str, list[str]] = defaultdict(list)
    for ref_id, runs in when.items():
        times = f" ({len(runs)} runs)" if len(runs) > 1 else ""
        by_status[runs[0]].append(ref_id + times)
    for status, names in by_status.items():
        yield f"# {status}: {', '.join(names)}"


def bodies(pattern: Pattern) -> list[Callable[..., TaskResult]]:
    """The task functions that a pattern uses."""
    used = set(_implementations(pattern.stages()))
    return [body for body in BODIES if body.__name__ in used]


def _implementations(stages: Iterable[StageExecution]) -> Iterator[str]:
    for one in stages:
        yield from (task.implementing_class for task in one.tasks)
        child = one.context.get("_sub_workflow_config", {})
        yield from _implementations(child.get("stages", ()))


def program(pattern: Pattern) -> str:
    """A program that plays a pattern and prints how its runs have ended."""
    used = bodies(pattern)
    text = PROGRAM.format(
        functions="\n\n".join(map(inspect.getsource, (*used, stage))).strip(),
        definition=definition(pattern),
        name=pattern.name,
        bodies=", ".join(body.__name__ for body in used),
        story="".join(f"{step}\n" for step in story(pattern)),
    )
    if pattern.apart:
        text += APART.format(groups=json.dumps(pattern.apart))
    for key in pattern.outputs:
        text += f'print("{key}:", result.get_context()["{key}"])\n'
    if "now(" in text:
        text = f"{NOW}\n\n{text}"
    return f"{_imports(text)}\n\n\n{text}"


def _imports(text: str) -> str:
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    lines = [
        _import("itertools", names & {"pairwise"}),
        _import("typing", names & {"Any"}),
        "",
        _import("stabilize", names & set(stabilize.__all__)),
        _import("stabilize.queue.messages", names & set(MESSAGE_TYPES)),
    ]
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip()


def _import(module: str, names: set[str]) -> str:
    if not names:
        return ""
    line = f"from {module} import {', '.join(sorted(names))}"
    if len(line) <= 100:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in sorted(names)), ")"])


def printed(pattern: Pattern) -> str:
    """What the program of a pattern has to print, by what the tests expect."""
    runs = [f"{ref_id} {status}" for ref_id, ends in pattern.runs.items() for status in ends]
    apart = ["one at a time: True"] if pattern.apart else []
    outputs = [f"{key}: {value}" for key, value in pattern.outputs.items()]
    return "\n".join([pattern.status, *runs, *apart, *outputs]) + "\n"


# --- the page -----------------------------------------------------------------------------------


def title(pattern: Pattern) -> str:
    return f"WCP-{pattern.number}: {pattern.name}"


def section(pattern: Pattern) -> str:
    return SECTION.format(
        title=title(pattern),
        purpose=textwrap.fill(pattern.purpose, 100),
        condition=pattern.condition,
        drawing=Workflow.create("guide", pattern.name, pattern.stages()).to_mermaid(),
        shown="\n".join([definition(pattern), *story(pattern)]),
        program=program(pattern),
        printed=printed(pattern),
    )


def sections() -> str:
    return "\n".join(
        "\n".join([f"## {chapter}\n", *(section(pattern) for pattern in patterns)])
        for chapter, patterns in CHAPTERS.items()
    )


def table() -> str:
    rows = ["| | pattern | how to say it | what happens |", "|---|---|---|---|"]
    for pattern in PATTERNS.values():
        anchor = re.sub(r"[^\w -]", "", title(pattern).lower()).replace(" ", "-")
        link = f"[{pattern.name}](#{anchor})"
        rows.append(f"| {pattern.number} | {link} | {pattern.say} | {pattern.happens} |")
    return "\n".join(rows) + "\n"


def rendered(page: str) -> str:
    """The page with what the catalog says now."""
    for name, text in (("table", table()), ("patterns", sections())):
        begin, end = f"<!-- {name}: written by {COMMAND} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        assert found, f"{PAGE.name} has no comments {begin!r} and {end!r}"
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
