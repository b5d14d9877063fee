"""The first-party files that a module's import runs: the code that a stage's result depends on."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from lifecycle.declare.stage import DECLARATIONS

PACKAGES = ("canvas", "components", "evaluation")
"""Not `lifecycle`, nor the module of declared artifacts: a new artifact must not make every stage stale."""


def find_import_closure(module: str, root: Path, packages: Iterable[str] = PACKAGES) -> list[str]:
    """Files of `packages` that importing `module` and calling its functions runs, as POSIX paths from `root`.

    Follows imports inside functions too, and the `__init__.py` of every package on the way. Leaves out
    imports under `if TYPE_CHECKING:`, which never run, and an `__init__.py` that is empty or says what its package
    is and no more. Raises `ValueError` for a first-party import that
    names no file.
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
            if file.name != "__init__.py" or any(not _is_text(statement) for statement in tree.body):
                files.add(file)
            waiting += _imported(name, file, tree, root)
    return sorted(file.relative_to(root).as_posix() for file in files)


def list_code_paths(module: str, root: Path, packages: Iterable[str] = PACKAGES) -> list[str]:
    """Return the folders and files that hold the module's import closure: what a person reads in `dvc.yaml`.

    A file inside a room (a folder of a package) stands for the whole room, and half of a package's rooms or more stand
    for the package: a stage is stale too often rather than not often enough.
    """
    paths: set[str] = set()
    for file in find_import_closure(module, root, packages):
        parts = Path(file).parts
        paths.add("/".join(parts[:2]) if len(parts) > 2 else file)
    for package in {path.partition("/")[0] for path in paths}:
        own = {path for path in paths if path.startswith(f"{package}/")}
        rooms = sum(1 for folder in (root / package).iterdir() if any(folder.glob("*.py")))
        if rooms and 2 * sum(not path.endswith(".py") for path in own) >= rooms:
            paths = paths - own | {package}
    return sorted(paths)


def compute_code_digest(module: str, root: Path, packages: Iterable[str] = PACKAGES) -> str:
    """MD5 over names and bytes of the module's import closure."""
    md5 = hashlib.md5(usedforsecurity=False)
    for file in find_import_closure(module, root, packages):
        content = (root / file).read_bytes()
        md5.update(f"{file} {len(content)}\n".encode() + content)
    return md5.hexdigest()


def find_module_file(name: str, root: Path) -> Path | None:
    """The source of module or package `name` below `root`; None when there is none."""
    stem = root.joinpath(*name.split("."))
    candidates = (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))
    return next((file for file in candidates if file.is_file()), None)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _imported(module: str, file: Path, tree: ast.Module, root: Path) -> Iterator[str]:
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in _running(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = _absolute(source, level, package)
                if (root / base.partition(".")[0]).is_dir() and not _exists(base, root):
                    raise ValueError(f"{file.relative_to(root)} imports {base}, which is no module of this project")
                yield base
                yield from (name for alias in names if find_module_file(name := f"{base}.{alias.name}", root))


def _absolute(source: str | None, level: int, package: str) -> str:
    if level == 0:
        assert source is not None
        return source
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - level + 1], *([source] if source else [])])


def _exists(module: str, root: Path) -> bool:
    return find_module_file(module, root) is not None or root.joinpath(*module.split(".")).is_dir()


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below `node` except what stands under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for statement in child.orelse:
                yield statement
                yield from _running(statement)
        else:
            yield child
            yield from _running(child)
