"""The condition language: a small, safe part of Python's expressions over plain values.

An expression is parsed by `ast` and turned into closures once, by a table of the nodes allowed.
There are no calls, no attributes of Python objects, and no results that grow without bound.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

MAX_CHARACTERS, MAX_LEXEMES = 4096, 1000
MAX_NODES, MAX_DEPTH = 200, 30
MAX_NUMBER, MAX_ITEMS = 2**63, 65_536

_Evaluator = Callable[[Mapping[str, Any]], Any]


class ExpressionError(ValueError):
    """An expression cannot be read or evaluated; the message has its text and the cause."""


# All that parsing text, and operators on plain values, can raise.
_FAILURES = (ArithmeticError, MemoryError, RuntimeError, SyntaxError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Expression:
    """A compiled expression: its text, the names it reads, and how to evaluate it."""

    text: str
    names: frozenset[str]
    _run: _Evaluator = field(repr=False, compare=False)

    def evaluate(self, names: Mapping[str, object]) -> object:
        """Return the value over `names`, where a name that is missing is None.

        Raises `ExpressionError` when an operation fails. Only the names the expression reads are
        looked up; what the mapping itself raises (it may read a database) comes out as it is.
        """
        values = {name: names.get(name) for name in self.names}
        try:
            return self._run(values)
        except _FAILURES as error:
            absent = ", ".join(sorted(name for name in values if values[name] is None))
            hint = f" (without a value here: {absent})" if absent else ""
            raise ExpressionError(f"{self.text!r} failed: {_cause(error)}{hint}") from error


def evaluate_expression(text: str, context: Mapping[str, object]) -> object:
    """Compile `text` and evaluate it over `context`; raises `ExpressionError`."""
    return compile_expression(text).evaluate(context)


def compile_expression(text: str) -> Expression:
    """Return the expression that `text` says; raises `ExpressionError` if it says none.

    Literals, names (`true`, `false`, `none` and `null` as well), `a.b` and `a["b"]` on mappings,
    `a[0]` on lists and strings (what is missing is None), list and tuple displays, comparisons,
    `in`, `and`, `or`, `not` (they give a bool), `+ - * / // %` on numbers below 2**63, `+` on two
    strings or two lists, `x if c else y`. `is` asks for the same type and an equal value.
    """
    if not isinstance(text, str):
        raise ExpressionError(f"{text!r} is not an expression: it is no str")
    return _compile(text)


@lru_cache(maxsize=1024)
def _compile(text: str) -> Expression:
    try:
        _check_lexemes(text)
        compiler = _Compiler()
        run = compiler.build(ast.parse(text.strip(), mode="eval").body, depth=1)
    except _FAILURES as error:
        shown = text if len(text) <= MAX_CHARACTERS else f"{text[:80]}..."
        raise ExpressionError(f"{shown!r} is not an expression: {_cause(error)}") from error
    return Expression(text=text, names=frozenset(compiler.names), _run=run)


def _cause(error: BaseException) -> str:
    return getattr(error, "msg", str(error)) or type(error).__name__


_LEXEME = re.compile(
    r"""
      (?P<prefix> ''' | \"{3} | [bfrtu]{1,2}(?=['"]) )
    | (?P<string> '(?:[^'\\\r\n]|\\.)*' | "(?:[^"\\\r\n]|\\.)*" )
    | (?P<number> \.?\d[\w.]* )
    | (?P<wrong>  ['"\\#] | && | \|\| | !(?!=) | (?<![=!<>])=(?!=) )
    | \w+ | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ESCAPES = frozenset("\\'\"abfnrtvxuUN0")
_INSTEAD = {"&&": ": write 'and'", "||": ": write 'or'", "!": ": write 'not'", "=": ": write =="}
_INSTEAD |= dict.fromkeys("'\"", ": close the string on its line")


def _check_lexemes(text: str) -> None:
    """Refuse text the parser should not see: too long for its stack, or only warned about."""
    # Silencing its warnings instead would be global to the process and race with other threads.
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it is longer than {MAX_CHARACTERS} characters")
    _check_characters(text)
    for count, match in enumerate(_LEXEME.finditer(text)):
        if count >= MAX_LEXEMES:
            raise ValueError(f"it has more than {MAX_LEXEMES} words and signs")
        lexeme = match.group()
        match match.lastgroup:
            case "prefix" | "wrong":
                raise ValueError(f"{lexeme} has no place here{_INSTEAD.get(lexeme, '')}")
            case "string" if any(s[1] not in _ESCAPES for s in re.findall(r"\\.", lexeme)):
                raise ValueError(f"unknown escape in {lexeme}: write a backslash as \\\\")
            case "number" if re.search("and|else|for|if|in|is|not|or", lexeme):
                raise ValueError(f"put a space between the number and the word in {lexeme}")


def _check_characters(text: str) -> None:
    if re.search("[\0\ud800-\udfff]", text):
        raise ValueError("it contains a NUL character or a lone surrogate")


class _Compiler:
    """Builds closures from nodes and keeps count of what it met."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.nodes = 0

    def build(self, node: ast.expr, depth: int) -> _Evaluator:
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_NODES} parts or {MAX_DEPTH} levels")
        builder = _BUILDERS.get(type(node))
        if builder is None:
            raise ValueError(f"{type(node).__name__} is not part of the language")
        return builder(self, node, depth + 1)


def _constant(_: _Compiler, node: ast.Constant, _depth: int) -> _Evaluator:
    value: object = node.value
    if isinstance(value, str):
        _check_characters(value)
    elif isinstance(value, int | float):
        _bounded(value)
    elif value is not None:
        raise ValueError(f"a literal of type {type(value).__name__} is not part of the language")
    return lambda _: value


_SPELLINGS = {"true": True, "false": False, "none": None, "null": None}


def _name(compiler: _Compiler, node: ast.Name, _depth: int) -> _Evaluator:
    name = node.id
    if name in _SPELLINGS:
        return lambda _: _SPELLINGS[name]
    compiler.names.add(name)
    return lambda names: names[name]


def _attribute(compiler: _Compiler, node: ast.Attribute, depth: int) -> _Evaluator:
    if node.attr.startswith("_"):
        raise ValueError(f".{node.attr} is refused: a name behind a dot may not begin with _")
    container = compiler.build(node.value, depth)
    return lambda names: _item(container(names), node.attr)


def _subscript(compiler: _Compiler, node: ast.Subscript, depth: int) -> _Evaluator:
    container, key = compiler.build(node.value, depth), compiler.build(node.slice, depth)
    return lambda names: _item(container(names), key(names))


def _item(container: object, key: object) -> object:
    if isinstance(container, Mapping):
        return container.get(key)
    if type(key) is int and isinstance(container, list | tuple | str):
        return container[key] if -len(container) <= key < len(container) else None
    return None


def _display(compiler: _Compiler, node: ast.List | ast.Tuple, depth: int) -> _Evaluator:
    kind = list if isinstance(node, ast.List) else tuple
    items = [compiler.build(item, depth) for item in node.elts]
    return lambda names: kind([item(names) for item in items])


def _boolean(compiler: _Compiler, node: ast.BoolOp, depth: int) -> _Evaluator:
    combine = all if isinstance(node.op, ast.And) else any
    operands = [compiler.build(operand, depth) for operand in node.values]
    return lambda names: combine(operand(names) for operand in operands)


def _operation(compiler: _Compiler, node: ast.UnaryOp | ast.BinOp, depth: int) -> _Evaluator:
    operate = _OPERATIONS.get(type(node.op))
    if operate is None:
        raise ValueError(f"the operator {type(node.op).__name__} is not part of the language")
    if isinstance(node, ast.UnaryOp):
        operand = compiler.build(node.operand, depth)
        return lambda names: operate(operand(names))
    left, right = compiler.build(node.left, depth), compiler.build(node.right, depth)
    return lambda names: operate(left(names), right(names))


def _conditional(compiler: _Compiler, node: ast.IfExp, depth: int) -> _Evaluator:
    test, body, orelse = (compiler.build(n, depth) for n in (node.test, node.body, node.orelse))
    return lambda names: body(names) if test(names) else orelse(names)


def _comparison(compiler: _Compiler, node: ast.Compare, depth: int) -> _Evaluator:
    first = compiler.build(node.left, depth)
    operands = [compiler.build(operand, depth) for operand in node.comparators]
    steps = list(zip((_COMPARISONS[type(op)] for op in node.ops), operands, strict=True))

    def compare(names: Mapping[str, Any]) -> bool:
        left = first(names)
        for holds, operand in steps:
            right = operand(names)
            if not holds(left, right):
                return False
            left = right
        return True

    return compare


def _same(left: object, right: object) -> bool:
    # For None and booleans this is identity; that of other values is the interpreter's accident.
    return type(left) is type(right) and left == right


def _contains(item: object, container: object) -> bool:
    if not isinstance(container, str | list | tuple | set | frozenset | Mapping):
        raise TypeError(f"'in' needs a list, a string or a mapping, not {type(container).__name__}")
    return item in container


def _bounded(number: Any) -> Any:
    if not isinstance(number, int | float):
        raise TypeError(f"arithmetic needs numbers, not {type(number).__name__}")
    if not -MAX_NUMBER < number < MAX_NUMBER:
        raise OverflowError("a number is not finite or not below 2**63")
    return number


def _arithmetic(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda left, right: _bounded(operate(_bounded(left), _bounded(right)))


def _add(left: Any, right: Any) -> Any:
    if not any(isinstance(left, kind) and isinstance(right, kind) for kind in (str, list)):
        return _bounded(_bounded(left) + _bounded(right))
    if len(left) + len(right) > MAX_ITEMS:
        raise OverflowError(f"the result of + is longer than {MAX_ITEMS}")
    return left + right


_OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Not: operator.not_,
    ast.UAdd: lambda number: +_bounded(number),
    ast.USub: lambda number: -_bounded(number),
    ast.Add: _add,
    ast.Sub: _arithmetic(operator.sub),
    ast.Mult: _arithmetic(operator.mul),
    ast.Div: _arithmetic(operator.truediv),
    ast.FloorDiv: _arithmetic(operator.floordiv),
    ast.Mod: _arithmetic(operator.mod),
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], object]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: _contains,
    ast.NotIn: lambda item, container: not _contains(item, container),
    ast.Is: _same,
    ast.IsNot: lambda left, right: not _same(left, right),
}
_BUILDERS: dict[type[ast.expr], Callable[[_Compiler, Any, int], _Evaluator]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.List: _display,
    ast.Tuple: _display,
    ast.BoolOp: _boolean,
    ast.UnaryOp: _operation,
    ast.BinOp: _operation,
    ast.IfExp: _conditional,
    ast.Compare: _comparison,
}
