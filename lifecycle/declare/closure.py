"""The first-party files that a module's import runs: the code that a stage's result depends on."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
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
            tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
            if file.name != "__init__.py" or not all(map(_is_text, tree.body)):
                files.add(file)
            waiting += _list_imports(name, file, tree, root)
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


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _list_imports(module: str, file: Path, tree: ast.Module, root: Path) -> Iterator[str]:
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in _walk_executed(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = resolve_name("." * level + (source or ""), package)
                exists = find_module_file(base, root) or root.joinpath(*base.split(".")).is_dir()
                if (root / base.partition(".")[0]).is_dir() and not exists:
                    raise ValueError(f"{file.relative_to(root)} imports {base}, which is no module of this project")
                yield base
                yield from (name for alias in names if find_module_file(name := f"{base}.{alias.name}", root))


def _walk_executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node below `node` except what stands under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            child = ast.Module(child.orelse, [])
        yield child
        yield from _walk_executed(child)
