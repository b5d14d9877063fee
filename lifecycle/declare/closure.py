"""The first-party files that a module's import runs: the code that a stage's result depends on."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

from lifecycle.declare.stage import DECLARATIONS

PACKAGES = ("canvas", "components", "evaluation")
"""Not `lifecycle`, nor the module of declared artifacts: a new artifact must not make every stage stale."""


def find_import_closure(module: str, root: Path, packages: Iterable[str] = PACKAGES) -> list[str]:
    """Return the files of `packages` that importing `module` and calling its functions runs: POSIX paths from `root`.

    Follows imports inside functions too, and the `__init__.py` of every package on the way. Leaves out
    imports under `if TYPE_CHECKING:`, which never run, and an `__init__.py` that is empty or says what its package
    is and no more. Raises `ValueError` for a first-party import that names no file.
    """
    first_party, declarations = set(packages), f"{module.partition('.')[0]}.{DECLARATIONS}"
    files: set[Path] = set()
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name == declarations or name.partition(".")[0] not in first_party:
            continue
        seen.add(name)
        waiting += [name.rpartition(".")[0]] if "." in name else []
        file = find_module_file(name, root)
        if file is not None:
            source = _parse_source(file.read_text(encoding="utf-8"), str(file))
            if file.name != "__init__.py" or not source.is_text:
                files.add(file)
            waiting += _list_imports(name, file, source, root)
    return sorted(file.relative_to(root).as_posix() for file in files)


def list_code(module: str, root: Path, packages: Iterable[str] = PACKAGES) -> str:
    """Return the module's import closure as text, a line `MD5  FILE` each, which `md5sum --check` reads."""
    files = {file: (root / file).read_bytes() for file in find_import_closure(module, root, packages)}
    digests = {file: hashlib.md5(content, usedforsecurity=False).hexdigest() for file, content in files.items()}
    return "".join(f"{digest}  {file}\n" for file, digest in digests.items())


def compute_code_digest(module: str, root: Path, packages: Iterable[str] = PACKAGES) -> str:
    """Return the MD5 over names and bytes of the module's import closure."""
    return hashlib.md5(list_code(module, root, packages).encode(), usedforsecurity=False).hexdigest()


def find_module_file(name: str, root: Path) -> Path | None:
    """Return the source of module or package `name` below `root`; None when there is none."""
    stem = root.joinpath(*name.split("."))
    candidates = (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))
    return next((file for file in candidates if file.is_file()), None)


@dataclass(frozen=True, slots=True)
class _Source:
    """What matters of a file here."""

    is_text: bool  # it says what it is, and runs nothing
    imports: tuple[tuple[int, str | None, tuple[str, ...]], ...]  # level, module (None: `import NAMES`), names


@cache  # most files are in the closure of most stages
def _parse_source(text: str, name: str) -> _Source:
    """Parse the text of the file `name`."""
    body = ast.parse(text, name).body
    imports: list[tuple[int, str | None, tuple[str, ...]]] = []
    for statement in _walk_executed(body):
        if isinstance(statement, ast.Import):
            imports.append((0, None, tuple(alias.name for alias in statement.names)))
        elif isinstance(statement, ast.ImportFrom):
            imports.append((statement.level, statement.module or "", tuple(alias.name for alias in statement.names)))
    return _Source(all(map(_is_text, body)), tuple(imports))


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _list_imports(module: str, file: Path, source: _Source, root: Path) -> Iterator[str]:
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for level, imported, names in source.imports:
        if imported is None:
            yield from names
            continue
        base = resolve_name("." * level + imported, package)
        exists = find_module_file(base, root) or root.joinpath(*base.split(".")).is_dir()
        if (root / base.partition(".")[0]).is_dir() and not exists:
            raise ValueError(f"{file.relative_to(root)} imports {base}, which is no module of this project")
        yield base
        yield from (name for alias in names if find_module_file(name := f"{base}.{alias}", root))


def _walk_executed(statements: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Yield every statement of `statements` and inside them, except what stands under `if TYPE_CHECKING:`."""
    for statement in statements:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _walk_executed(statement.orelse)
            continue
        yield statement
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _walk_executed(getattr(statement, block, ()))
