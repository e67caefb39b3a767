"""The 43 control-flow patterns as data: what is run, what is done meanwhile, what has to come out.

Numbers and context conditions are those of Russell, ter Hofstede, van der Aalst and Mulyar,
*Workflow Control-Flow Patterns: A Revised View*, BPM-06-22, 2006. Nothing here depends on how fast
anything is: what has to come later waits for a signal, which is sent when the rest stands still.

`docs/guide/flow_control.md` is made of this: `python -m tests.patterns.page` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from tests.patterns.catalog import basic, branching, control, instances, joins, states
from tests.patterns.catalog.pattern import Pattern, Runs, Step

__all__ = ["CHAPTERS", "PATTERNS", "Pattern", "Runs", "Step"]


def _patterns_of(module: ModuleType) -> list[Pattern]:
    found = [value for value in vars(module).values() if isinstance(value, Pattern)]
    return sorted(found, key=lambda pattern: pattern.number)


CHAPTERS: Mapping[str, list[Pattern]] = {
    str(module.__doc__).partition(":")[0]: _patterns_of(module)
    for module in (basic, branching, joins, instances, states, control)
}
PATTERNS: Mapping[int, Pattern] = {
    pattern.number: pattern
    for pattern in sorted(
        (pattern for patterns in CHAPTERS.values() for pattern in patterns),
        key=lambda pattern: pattern.number,
    )
}
