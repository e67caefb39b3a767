"""The condition language, where many programs import it from."""

from stabilize.dag.expressions import (
    Expression,
    ExpressionError,
    compile_expression,
    evaluate_expression,
)

__all__ = ["Expression", "ExpressionError", "compile_expression", "evaluate_expression"]
