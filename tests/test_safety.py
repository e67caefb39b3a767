"""What is nowhere in the package: code made from data."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNPICKLERS = {"dill", "cloudpickle", "marshal", "pickle", "shelve"}
CALLS = {"__import__", "compile", "eval", "exec"}


def _loads_code(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from UNPICKLERS.intersection(name.name for name in names)
            case ast.ImportFrom(module=str(module)) if module in UNPICKLERS:
                yield module
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield name


def test_no_module_makes_code_from_data() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {what}"
        for path in (ROOT / "stabilize").rglob("*.py")
        for what in _loads_code(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set()


def test_a_workflow_runs_without_unpickling_anything(tmp_path: Path) -> None:
    watched = (
        "import runpy, sys\n"
        "def hook(event, args):\n"
        "    if event == 'pickle.find_class':\n"
        "        raise SystemExit(f'unpickled {args}')\n"
        "sys.addaudithook(hook)\n"
        f"runpy.run_path({str(ROOT / 'examples' / 'hello.py')!r}, run_name='__main__')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", watched], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
