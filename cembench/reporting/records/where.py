"""Conditions on the columns of a table: `method == 'at' and autoattack > 0.5`.

They have the syntax of Python, of which they are parsed and never run: names of columns, texts,
numbers, comparisons, `in`, `is None`, `and`, `or`, `not` and arithmetic, and nothing else.
"""

from __future__ import annotations

import ast
import re
from functools import reduce
from typing import TYPE_CHECKING, Any

from cembench.reporting.records.names import resolve
from cembench.util.errors import CembenchError, one_line

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST = 2000  # characters
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`([^`]*)`")
COMPARE = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
STRANGE = (ArithmeticError, ValueError, RecursionError, MemoryError)  # of very large parts
ARITHMETIC = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide"}


def selected(table: pa.Table, condition: str) -> pa.Table:
    """Return the rows for which a condition holds; all for an empty one.

    A comparison with what a record lacks does not hold, and neither does its contrary.

    Args:
        table: with columns of text, numbers, and true or false.
        condition: names are those of columns, as `resolve` takes them; others are written between
            backquotes.

    Raises:
        CembenchError: when it is no such condition, names no column, or mixes texts and numbers.
    """
    import pyarrow as pa

    if not condition.strip():
        return table
    if len(condition) > LONGEST:
        raise CembenchError(f"where: longer than {LONGEST} characters")
    try:
        mask = _Reader(table).read(condition)
    except SyntaxError as error:
        raise CembenchError(f"where: {condition:.60}: {error.msg}") from None
    except (CembenchError, pa.ArrowException, *STRANGE) as error:
        raise CembenchError(f"where: {one_line(error)}") from None
    if not pa.types.is_boolean(mask.type):
        raise CembenchError(f"where: {condition:.60}: a {mask.type}, and no condition")
    if isinstance(mask, pa.Scalar):
        return table if mask.as_py() else table.slice(0, 0)
    return table.filter(mask)


class _Reader:
    """Reads a condition on a table: each part of it is a column, or one value.

    Columns are computed by functions on arrays, which need no threads of pyarrow's.
    """

    def __init__(self, table: pa.Table) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self.pa, self.pc, self.table = pa, pc, table
        self.quoted: dict[str, str] = {}

    def read(self, condition: str) -> Any:
        """Return its value: a column or one value."""
        tree = ast.parse(QUOTED.sub(self._quoted, condition).strip(), mode="eval")
        return self._value(tree.body)

    def _quoted(self, found: re.Match[str]) -> str:
        """Put a name of its own in the place of a column between backquotes."""
        if found[1] is None:
            return found[0]
        name = f"_quoted_{len(self.quoted)}_"
        self.quoted[name] = found[1]
        return name

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Name(name):
                name = self.quoted.get(name, name)
                return self.table.column(resolve(name, self.table.column_names))
            case ast.Constant(bool() | str() as value):
                return self.pa.scalar(value)
            case ast.Constant(int() | float() as number):
                return self.pa.scalar(float(number))
            case ast.BoolOp(op, parts):
                join = self.pc.and_kleene if isinstance(op, ast.And) else self.pc.or_kleene
                return reduce(join, [self._of("condition", part) for part in parts])
            case ast.UnaryOp(ast.Not(), part):
                return self.pc.invert(self._of("condition", part))
            case ast.UnaryOp(ast.USub(), part):
                return self.pc.negate(self._of("number", part))
            case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
                both = [self._of("number", part).cast("double") for part in (left, right)]
                return getattr(self.pc, ARITHMETIC[type(op)])(*both)
            case ast.Compare(left, ops, rights):
                pairs = zip([left, *rights[:-1]], ops, rights, strict=True)
                return reduce(self.pc.and_kleene, [self._compared(*pair) for pair in pairs])
        raise CembenchError(
            f"{ast.unparse(node):.60} has no place in a condition, which is made of columns, "
            "texts, numbers, comparisons, in, is None, and, or, not, + - * /"
        )

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
        negate = self.pc.invert if isinstance(op, ast.NotIn | ast.IsNot) else lambda found: found
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise CembenchError("'is' goes with None alone; values are compared with ==")
            return negate(self.pc.is_null(self._value(left)))
        if isinstance(op, ast.In | ast.NotIn):
            return negate(self._among(left, right))
        kind = self._kind(value := self._value(left))
        return getattr(self.pc, COMPARE[type(op)])(value, self._of(kind, right))

    def _among(self, left: ast.expr, right: ast.expr) -> Any:
        """Return where a value is one of a list, or a text is a part of another."""
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            kind = self._kind(value := self._value(left))
            same = [self.pc.equal(value, self._of(kind, part)) for part in right.elts]
            return reduce(self.pc.or_kleene, same, self.pa.scalar(False))
        part = self._of("text", left)
        if not isinstance(part, self.pa.Scalar):
            raise CembenchError("before 'in' a text stands, or a list after it")
        return self.pc.match_substring(self._of("text", right), part.as_py())

    def _of(self, kind: str, node: ast.expr) -> Any:
        """Return a value of a kind."""
        if (found := self._kind(value := self._value(node))) != kind:
            text = ast.unparse(node)
            raise CembenchError(f"{text:.60} is a {found} where a {kind} is needed")
        return value

    def _kind(self, value: Any) -> str:
        if self.pa.types.is_boolean(value.type):
            return "condition"
        return "text" if self.pa.types.is_string(value.type) else "number"
