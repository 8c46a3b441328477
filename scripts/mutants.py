"""One-line mutations of a module's source: what a slip of the pen would have made of it."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "union": "intersection"}
SPARED = frozenset({"log", "cast", "warnings", "TypeVar", "getLogger", "NewType"})
"""Calls whose arguments change nothing but words and types."""

SILENT = frozenset({"strict", "device"})
"""Keywords that change nothing here: of zip, which asks, and where all is on one processor."""

SYMMETRIC = frozenset("min max minimum maximum transpose equal array_equal tie tie_counted counts_equal rule".split())
"""Calls that make the same of two arguments in either order."""

Edit = tuple[ast.AST, str, Callable[[], None], Callable[[], None]]


@dataclass(frozen=True)
class Mutant:
    """A mutation of one place.

    Attributes:
        number: of the site in its file.
        scope: function or class it lies in, dotted.
        line: where, in the source as it is.
        first: where its statement begins.
        kind: what was done.
        before: the statement as it was, its first line.
        after: the same, mutated.
    """

    number: int
    scope: str
    line: int
    first: int
    kind: str
    before: str
    after: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutation of a module, in a fixed order."""
    for number, (scope, statement, (node, kind, change, restore)) in enumerate(_sites(ast.parse(source))):
        before = _head(statement)
        change()
        after = _head(statement)
        restore()
        if after != before:
            yield Mutant(
                number, scope, getattr(node, "lineno", statement.lineno), statement.lineno, kind, before, after
            )


def mutated(source: str, path: str, number: int | None) -> CodeType:
    """A module with the mutation of that number, or with none; lines are those of the source as it is."""
    tree = ast.parse(source)
    if number is not None:
        _, _, (_, _, change, _) = next(itertools.islice(_sites(tree), number, None))
        change()
    return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


def _sites(tree: ast.Module) -> Iterator[tuple[str, ast.stmt, Edit]]:
    for scope, statement in _statements(tree, ""):
        for edit in [*_edits(statement), *_removals(statement)]:
            yield scope, statement, edit


def _head(statement: ast.stmt) -> str:
    """A statement without the block it may have, on one line."""
    return " ".join(ast.unparse(statement).split("\n    ", 1)[0].split())


def _statements(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.stmt]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = f"{scope}.{child.name}".lstrip(".")
            yield inner, child
            yield from _statements(child, inner)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        elif isinstance(child, ast.stmt):
            yield scope, child
            yield from _statements(child, scope)
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from _statements(child, scope)


def _expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """What a statement computes: no annotation, no text, no block of its own."""
    if isinstance(statement, ast.FunctionDef):
        yield from _inside([*statement.args.defaults, *(d for d in statement.args.kw_defaults if d)])
    elif isinstance(statement, ast.AnnAssign):
        yield from _inside([statement.value] if statement.value else [])
    elif not isinstance(statement, ast.ClassDef | ast.Raise | ast.Import | ast.ImportFrom | ast.Assert):
        yield from _inside([child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.expr)])
        if isinstance(statement, ast.With):
            yield from _inside([item.context_expr for item in statement.items])


def _inside(roots: list[ast.expr]) -> Iterator[ast.expr]:
    for root in roots:
        if isinstance(root, ast.JoinedStr) or (isinstance(root, ast.Call) and _called(root) & SPARED):
            continue
        yield root
        inner = [n for n in ast.iter_child_nodes(root) if not isinstance(n, ast.operator | ast.cmpop)]
        for node in inner:
            if isinstance(node, ast.expr):
                yield from _inside([node])
            elif isinstance(node, ast.comprehension):
                yield from _inside([node.iter, *node.ifs])
            elif isinstance(node, ast.keyword) and node.arg not in SILENT:
                yield from _inside([node.value])


def _called(call: ast.Call) -> set[str]:
    return set(ast.unparse(call.func).split("."))


def _edits(statement: ast.stmt) -> Iterator[Edit]:
    if isinstance(statement, ast.AugAssign) and type(statement.op) in ARITHMETIC:
        yield _set(statement, "op", ARITHMETIC[type(statement.op)](), "arithmetic")
    if isinstance(statement, ast.If | ast.While):
        yield _set(statement, "test", ast.UnaryOp(ast.Not(), statement.test), "condition negated")
    for node in list(_expressions(statement)):
        if isinstance(node, ast.Compare):
            for other in COMPARISONS[type(node.ops[0])]:
                yield _set(node, "ops", [other(), *node.ops[1:]], "comparison")
            if len(node.ops) > 1:
                for other in COMPARISONS[type(node.ops[1])]:
                    yield _set(node, "ops", [node.ops[0], other(), *node.ops[2:]], "comparison")
        elif isinstance(node, ast.BoolOp):
            yield _set(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And(), "and, or")
            for at in range(len(node.values)):
                others = [*node.values[:at], *node.values[at + 1 :]]
                yield _set(node, "values", others if others[1:] else others * 2, "condition dropped")
        elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            yield _set(node, "op", ARITHMETIC[type(node.op)](), "arithmetic")
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            yield _set(node, "op", ast.UAdd() if isinstance(node.op, ast.USub) else None, "sign dropped")
        elif isinstance(node, ast.IfExp):
            yield _set(node, "test", ast.UnaryOp(ast.Not(), node.test), "condition negated")
        elif isinstance(node, ast.Constant):
            yield from _constants(node)
        elif isinstance(node, ast.Call):
            yield from _calls(node)
        elif isinstance(node, ast.Name) and node.id in NAMES:
            yield _set(node, "id", NAMES[node.id], "other function")
        elif isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield _set(node, "attr", NAMES[node.attr], "other function")


def _constants(node: ast.Constant) -> Iterator[Edit]:
    if isinstance(node.value, bool):
        yield _set(node, "value", not node.value, "constant")
    elif isinstance(node.value, int):
        yield _set(node, "value", node.value + 1, "off by one")
        if node.value:
            yield _set(node, "value", node.value - 1, "off by one")
    elif isinstance(node.value, float):
        yield _set(node, "value", node.value * 2 + 1, "constant")


def _calls(node: ast.Call) -> Iterator[Edit]:
    plain = [arg for arg in node.args if not isinstance(arg, ast.Starred)]
    if len(plain) == len(node.args) >= 2 and not _called(node) & SYMMETRIC:
        yield _set(node, "args", [node.args[1], node.args[0], *node.args[2:]], "arguments swapped")
    for at in [at for at, keyword in enumerate(node.keywords) if keyword.arg not in SILENT]:
        yield _set(node, "keywords", [*node.keywords[:at], *node.keywords[at + 1 :]], "argument dropped")


def _removals(statement: ast.stmt) -> Iterator[Edit]:
    """The statement left out, where the rest still makes sense."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and _called(statement.value) & SPARED:
        return
    if isinstance(statement, ast.Continue | ast.Break):
        other = ast.Break if isinstance(statement, ast.Continue) else ast.Continue
        yield statement, "continue, break", _become(statement, other), _become(statement, type(statement))
    elif isinstance(statement, ast.Expr | ast.AugAssign | ast.Raise):
        kind = type(statement)
        yield statement, "statement removed", _become(statement, ast.Pass), _become(statement, kind)


def _become(statement: ast.stmt, kind: type[ast.stmt]) -> Callable[[], None]:
    def change() -> None:
        statement.__class__ = kind

    return change


def _set(node: ast.AST, field: str, value: object, kind: str) -> Edit:
    """Sets a field; with no value the node's operand takes the place of its operator."""
    old = getattr(node, field)

    def change() -> None:
        if value is None:  # +~x and +not x would be other values: the operand twice inverted is itself
            node.operand = ast.UnaryOp(type(old)(), node.operand)  # type: ignore[attr-defined]
        else:
            setattr(node, field, value)

    def restore() -> None:
        if value is None:
            node.operand = node.operand.operand  # type: ignore[attr-defined]
        else:
            setattr(node, field, old)

    return node, kind, change, restore
