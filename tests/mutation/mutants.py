"""All mutants of a file: cosmic-ray's operators and one of ours, at every place of the code that runs."""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import parso.python.tree
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

_NEED_ARGUMENTS = ("core/VariableInserter", "core/VariableReplacer")
_BITWISE = ("BitAnd", "BitOr", "BitXor", "LShift", "RShift")


class DeleteStatement(Operator):
    """A call, an assignment to what exists already, or `raise` is left out: what a refactoring may lose."""

    def mutation_positions(self, node):
        if _is_deletable(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        return parso.python.tree.Keyword("pass", node.start_pos, prefix=node.get_first_leaf().prefix)

    @classmethod
    def examples(cls):
        return ()


def _is_deletable(node) -> bool:
    if node.parent is None or node.parent.type != "simple_stmt":
        return False
    if node.type == "expr_stmt":   # a name that is new would be missed as a NameError; attributes, items, += are not
        target, sign = node.children[:2]
        new = target.type in ("name", "testlist_star_expr") and getattr(sign, "value", "=") in "=:"
        return sign.type == "operator" and not new
    return node.type in ("raise_stmt", "atom_expr", "power")


class Mutant(NamedTuple):
    """One change. line, column: from 1 and 0. before, after: the line. sha: of the file without the change."""

    file: str
    line: int
    column: int
    operator: str
    occurrence: int
    before: str
    after: str
    sha: str


def operators() -> dict[str, Operator]:
    """By name."""
    found = {name: get_operator(name)() for name in operator_names()
             if name not in _NEED_ARGUMENTS and not _dies_at_once(name)}
    return found | {"ours/DeleteStatement": DeleteStatement()}


def _dies_at_once(operator: str) -> bool:
    """Bitwise operators for arithmetic ones: on floats always a TypeError, which every test that gets there notices."""
    _, before, after = operator.rsplit("_", 2) if operator.count("_") == 2 else ("", "", "")
    return after in _BITWISE and before not in _BITWISE


def annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """(start, end) of what says a type, as (line, column): a change there is no change of what the code does."""
    spans = []
    for node in ast.walk(ast.parse(source)):
        for one in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(one, ast.expr):
                spans.append(((one.lineno, one.col_offset), (one.end_lineno, one.end_col_offset)))
    return spans


def sites(file: str, source: str) -> Iterator[tuple[str, int, int, str, int]]:
    """(site, line, column, operator, occurrence) of every mutant; a site is a place that several operators may change.

    The site's name holds the text of its line and no line number: it stays the same while lines are added elsewhere.
    """
    lines, types, seen = source.splitlines(), annotations(source), Counter()
    repeated = {}   # line number -> how often the same text has been before
    for number, text in enumerate(lines, 1):
        repeated[number] = seen[text.strip()]
        seen[text.strip()] += 1
    known, occurrences = operators(), Counter()
    for node in ast_nodes(get_ast(source)):
        for name, operator in known.items():
            for start, _ in operator.mutation_positions(node):
                occurrence = occurrences[name]
                occurrences[name] += 1
                text = lines[start[0] - 1].strip()
                if text.startswith("@dataclass(") or any(begin <= tuple(start) < end for begin, end in types):
                    continue
                yield f"{file}|{text}|{repeated[start[0]]}|{start[1]}", start[0], start[1], name, occurrence


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}|{name}".encode()).hexdigest()


def sample(sources: dict[str, str], count: int, seed: int) -> list[Mutant]:
    """`count` mutants, each at another site and all sites equally likely; fewer where there are fewer sites.

    A site's rank depends on its text and the seed alone, so that a change of one file leaves the others' mutants.
    """
    by_site: dict[str, list] = {}
    for file, source in sources.items():
        for site, *rest in sites(file, source):
            by_site.setdefault(site, []).append((file, *rest))
    chosen = []
    for site in sorted(by_site, key=lambda name: _rank(seed, name)):
        if len(chosen) == count:
            break
        for file, line, column, operator, occurrence in sorted(by_site[site], key=lambda one: _rank(
                seed, f"{site}|{one[3]}|{one[4]}")):
            changed = mutated(sources[file], operator, occurrence)
            if changed is not None:
                chosen.append(Mutant(file, line, column, operator, occurrence, *_lines(sources[file], changed, line),
                                     hashlib.sha256(sources[file].encode()).hexdigest()[:12]))
                break
    return chosen


def mutated(source: str, operator: str, occurrence: int) -> str | None:
    """The changed source; None where the change is none, or no Python."""
    changed = mutate_code(source, operators()[operator], occurrence)
    try:
        return None if changed is None or ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source)) else changed
    except SyntaxError:
        return None


def _lines(source: str, changed: str, line: int) -> tuple[str, str]:
    before, after = source.splitlines(), changed.splitlines()
    return _code(before[line - 1]), _code(after[line - 1]) if line <= len(after) else ""


def _code(line: str) -> str:
    """Without a comment behind it and without the spaces that an operator leaves."""
    return " ".join(line.split("  # ")[0].split())
