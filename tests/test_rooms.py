"""The arrows between the rooms: who may import whom, and what stays free of heavy imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("model", "storage", "indexer", "search")
MAY_IMPORT = {
    "model": {"errors"},
    "storage": {"errors"},
    "indexer": {"errors", "model", "storage"},
    "search": {"errors", "model", "storage"},
}
FORBIDDEN_LIBRARIES = {
    "model": {"sqlalchemy", "alembic", "faiss", "fastapi", "starlette", "uvicorn", "httpx"},
    "storage": {"torch", "fastapi", "starlette", "uvicorn", "open_clip"},
    "indexer": {"torch", "faiss", "sqlalchemy"},
    "search": {"torch", "faiss", "sqlalchemy"},
}


def room_files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield (absolute module, imported name or None) of every import in a file of the package."""
    package = ("anyseek", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *((node.module or "").split(".") if node.module else ())))
            yield from ((module, alias.name) for alias in node.names)


def inner_target(module: str, name: str | None) -> tuple[str, int] | None:
    """Return the part of anyseek that an import reaches and how deep, or None for other packages."""
    parts = module.split(".")
    if parts[0] != "anyseek":
        return None
    if len(parts) == 1:
        return (name or "__init__", 1)
    return (parts[1], len(parts) - 1)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_along_the_arrows(room: str) -> None:
    files = room_files(room)
    assert len(files) > 1
    for path in files:
        for module, name in imports(path):
            target = inner_target(module, name)
            if target is None or target[0] == room:
                continue
            where = f"{path.relative_to(ROOT)} imports {module} ({name})"
            assert target[0] in MAY_IMPORT[room], where
            assert target[1] == 1, f"{where}: rooms use only another room's public names"


@pytest.mark.parametrize("room", ROOMS)
def test_names_taken_from_another_room_are_public(room: str) -> None:
    for path in room_files(room):
        for module, name in imports(path):
            target = inner_target(module, name)
            if target is None or target[0] in (room, "errors") or name is None or module == "anyseek":
                continue
            public = ast.literal_eval(
                next(
                    node.value
                    for node in ast.parse((ROOT / target[0] / "__init__.py").read_text(encoding="utf-8")).body
                    if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
                )
            )
            assert name in public, f"{path.relative_to(ROOT)} takes {name} from {target[0]}"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_keep_to_their_libraries(room: str) -> None:
    for path in room_files(room):
        for module, _ in imports(path):
            assert module.split(".")[0] not in FORBIDDEN_LIBRARIES[room], path


def test_errors_imports_nothing() -> None:
    assert list(imports(ROOT / "errors.py")) == []


def test_only_the_composing_modules_read_the_configuration() -> None:
    for room in ROOMS:
        for path in room_files(room):
            assert all((inner_target(m, n) or ("", 0))[0] != "config" for m, n in imports(path)), path


@pytest.mark.parametrize("statement", ["import anyseek", "import anyseek.storage", "import anyseek.cli"])
def test_light_imports_stay_free_of_torch(statement: str) -> None:
    code = f"{statement}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
