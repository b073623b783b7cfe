"""Every small change of a module that its tests ought to notice."""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
JOINED = {ast.And: ast.Or, ast.Or: ast.And}
CALLED = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
DROPPED = (ast.AugAssign, ast.Continue, ast.Break)

Change = Callable[[ast.AST], None]


@dataclass(frozen=True)
class Mutant:
    """A changed module; `what` says where and how."""

    what: str
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """One mutant after the other, each with a single change."""
    tree = ast.parse(source)
    silent = _silent(tree)
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in silent:
            continue
        for what, change in _changes(node):
            other = copy.deepcopy(tree)
            change(_nth(other, number))
            ast.fix_missing_locations(other)
            yield Mutant(f"line {getattr(node, 'lineno', 0)}: {what}", other)


def _nth(tree: ast.AST, number: int) -> ast.AST:
    return next(node for place, node in enumerate(ast.walk(tree)) if place == number)


def _silent(tree: ast.AST) -> set[int]:
    """What has no effect, or none but on a text for people: types, docstrings, error messages.

    Nor has zip's `strict`: it is an assertion.
    """
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.ImportFrom | ast.Import) or _is_text(node):
            found.append(node)
        elif isinstance(node, ast.AnnAssign):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            found += [*node.decorator_list, *([node.returns] if node.returns else [])]
        elif isinstance(node, ast.ClassDef):
            found += [*node.decorator_list, *node.bases, *node.keywords]
        elif isinstance(node, ast.arg) and node.annotation:
            found.append(node.annotation)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "zip":
            found += node.keywords
        elif isinstance(node, ast.Assign) and _is_type(node.value):
            found.append(node)
    return {id(inner) for node in found for inner in ast.walk(node)}


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_type(value: ast.expr) -> bool:
    """Whether a name is given to a type, like `Slots = tuple[Slot, ...]`."""
    return isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name)


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    yield from _operators(node)
    yield from _values(node)
    yield from _statements(node)


def _operators(node: ast.AST) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.Compare):
        for place, was in enumerate(node.ops):
            becomes = COMPARED[type(was)]
            yield _named(was, becomes), lambda n, p=place, b=becomes: n.ops.__setitem__(p, b())
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in COMPUTED:
        becomes = COMPUTED[type(node.op)]
        yield _named(node.op, becomes), lambda n, b=becomes: setattr(n, "op", b())
    elif isinstance(node, ast.BoolOp):
        becomes = JOINED[type(node.op)]
        yield _named(node.op, becomes), lambda n, b=becomes: setattr(n, "op", b())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not dropped", lambda n: setattr(n, "operand", _not(n.operand))
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "condition turned round", lambda n: setattr(n, "test", _not(n.test))
    elif isinstance(node, ast.comprehension):
        for place in range(len(node.ifs)):
            yield "filter turned round", lambda n, p=place: n.ifs.__setitem__(p, _not(n.ifs[p]))


def _values(node: ast.AST) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield f"{value} turned round", lambda n: setattr(n, "value", not n.value)
        elif isinstance(value, int | float):
            yield f"{value} becomes {value + 1}", lambda n: setattr(n, "value", n.value + 1)
        elif isinstance(value, str):
            yield f"{value!r} gets a letter", lambda n: setattr(n, "value", n.value + "x")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLED:
        becomes = CALLED[node.func.id]
        yield f"{node.func.id} becomes {becomes}", lambda n, b=becomes: setattr(n.func, "id", b)


def _statements(node: ast.AST) -> Iterator[tuple[str, Change]]:
    for part in ("body", "orelse"):
        block = getattr(node, part, None)
        for place, statement in enumerate(block if isinstance(block, list) else []):
            if _returns(statement):
                yield (
                    f"line {statement.lineno} returns None",
                    lambda n, f=part, p=place: setattr(
                        getattr(n, f)[p], "value", ast.Constant(None)
                    ),
                )
            if isinstance(statement, DROPPED) or (
                isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
            ):
                yield (
                    f"line {statement.lineno} dropped",
                    lambda n, f=part, p=place: getattr(n, f).__setitem__(p, ast.Pass()),
                )


def _returns(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Return) or statement.value is None:
        return False
    return not (isinstance(statement.value, ast.Constant) and statement.value.value is None)


def _not(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _named(was: ast.AST, becomes: type[ast.AST]) -> str:
    return f"{type(was).__name__} becomes {becomes.__name__}"
