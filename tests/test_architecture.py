"""Who may import whom: the rules that keep the data's way readable, read off the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

TREE = {
    "model": (
        "errors", "words", "frame", "pictures", "config", "preprocess", "lookout", "colours",
        "stillness", "cuts", "scale", "region", "sector", "delta", "state", "encoder", "network",
        "postprocess", "base", "weights", "backends", "predictor", "measure", "__init__",
        "training",
    ),
    "server": (
        "errors", "settings", "keys", "log", "metrics", "protocol", "asyncapi", "edits", "ingest",
        "export", "payload", "masks", "measures", "snapshots", "analysis", "answers", "session",
        "recording", "tracing", "replay", "schedule", "pace", "engine", "saver", "places", "roster",
        "stream", "study", "biplane", "artefacts", "clips", "dicomweb", "access", "audit", "cstore",
        "guard", "routes", "app", "local_ray", "batch", "fleet", "commands", "cli",
    ),
}  # fmt: skip
"""The files and folders of each package in the order of travel; each may import those before it."""

HOMES = {
    "pydicom": ("server/ingest/", "server/export/", "model/training/sets/dicom.py"),
    "nibabel": ("model/training/sets/camus.py",),
    "pynetdicom": ("server/cstore/",),
    "highdicom": ("server/export/",),
    "fastapi": ("server/app.py", "server/routes/", "server/fleet/replica.py"),
    "starlette": (
        "server/app.py",
        "server/stream.py",
        "server/audit.py",
        "server/guard.py",
        "server/routes/",
    ),
    "pydantic_settings": ("server/settings.py",),
    "prometheus_client": (
        "server/metrics.py",
        "server/routes/operation.py",
        "server/fleet/board.py",
    ),
    "redis": ("server/snapshots/redis_store.py", "server/clips/records.py", "server/fleet/"),
    "fsspec": ("server/clips/depot.py", "server/batch/places.py"),
    "cryptography": ("server/snapshots/seal.py",),
    "typer": ("server/cli.py",),
    "ray": ("server/local_ray.py", "server/batch/flow.py", "server/fleet/"),
    "pyarrow": ("server/batch/",),
    "httpx": ("server/batch/dicomweb.py",),
    "opentelemetry": ("server/tracing.py",),
}
"""Libraries that only these places may know."""

EXTRAS = {
    "torch", "onnx", "onnxruntime", "onnxscript", "safetensors", "matplotlib", "highdicom",
    "scipy", "gdkvm_client", "redis", "pynetdicom", "ray", "pyarrow", "httpx", "nibabel",
    "tensorboard", "opentelemetry",
}  # fmt: skip
"""What an installation for serving on a CPU may lack, so what may be imported late."""

DOORS = ("model", "model.pictures")
"""The packages whose public names the server may take."""

OFFLINE = (
    "server/commands/training.py", "server/commands/evaluation.py", "server/commands/bench_base.py",
)  # fmt: skip
"""The commands that hand a scientist's files to ``model.training`` and ``model.base``."""


@dataclass(frozen=True)
class Import:
    """One import statement: where it stands and the module and names that it takes."""

    path: str
    line: int
    module: str
    names: tuple[str, ...]
    is_late: bool

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module} ({', '.join(self.names)})"


@cache
def read_imports(path: Path) -> tuple[Import, ...]:
    return tuple(_read_imports(path))


def _read_imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    name = path.relative_to(ROOT).as_posix()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, node.lineno, alias.name, (), id(node) in late)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            module = "." * node.level + (node.module or "")
            yield Import(name, node.lineno, module, names, id(node) in late)


def imports_of(*folders: str) -> list[Import]:
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return [found for file in files for found in read_imports(file)]


def modules_of(found: Import) -> list[str]:
    """The modules that a statement may load: `from model import frame` can mean model.frame."""
    return [found.module, *(f"{found.module}.{name}" for name in found.names)]


def stem(path: str) -> str:
    """The entry of TREE that a file belongs to, such as 'measure' for model/measure/beats.py."""
    return Path(path).parts[1].removesuffix(".py")


def module_file(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def public_names(package: str) -> set[str]:
    file = ROOT.joinpath(*package.split("."), "__init__.py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if [target.id for target in targets if isinstance(target, ast.Name)] == ["__all__"]:
            return set(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return set()


@pytest.mark.parametrize("package", TREE)
def test_every_file_has_its_place_in_the_tree(package: str) -> None:
    entries = {
        entry.stem
        for entry in (ROOT / package).iterdir()
        if entry.suffix == ".py" or (entry / "__init__.py").is_file()
    }
    unplaced = entries - set(TREE[package]) - {"__init__", "__main__"}
    assert not unplaced, f"add to TREE, at its place on the data's way: {sorted(unplaced)}"


@pytest.mark.parametrize("package", TREE)
def test_a_file_imports_only_files_above_it(package: str) -> None:
    order = TREE[package]
    wrong = [
        str(found)
        for found in imports_of(package)
        if stem(found.path) in order
        for module in modules_of(found)
        if module.startswith(f"{package}.") and module_file(module) is not None
        if module.split(".")[1] in order and module.split(".")[1] != stem(found.path)
        if order.index(module.split(".")[1]) > order.index(stem(found.path))
    ]
    assert wrong == []


@pytest.mark.parametrize("package", TREE)
def test_no_imports_run_in_a_circle(package: str) -> None:
    graph: dict[Path, set[Path]] = {}
    for found in imports_of(package):
        file = ROOT / found.path
        targets = {module_file(module) for module in modules_of(found) if module != package}
        graph.setdefault(file, set()).update(t for t in targets if t is not None and t != file)
    TopologicalSorter(graph).prepare()


def test_the_server_takes_from_the_model_only_its_public_names() -> None:
    public = {door: public_names(door) for door in DOORS}
    wrong = [
        str(found)
        for found in imports_of("server")
        if found.root == "model" and found.path not in OFFLINE
        if not found.names or not set(found.names) <= public.get(found.module, set())
    ]
    assert wrong == []


def test_the_model_knows_no_server_and_no_socket() -> None:
    forbidden = {"server", "clients", "gdkvm_client", "asyncio", "socket", "uvicorn", "websockets"}
    assert [str(found) for found in imports_of("model") if found.root in forbidden] == []


def test_nothing_outside_training_imports_training() -> None:
    wrong = [
        str(found)
        for found in imports_of("model", "server", "clients")
        if not found.path.startswith("model/training/") and found.path not in OFFLINE
        if any(module.startswith("model.training") for module in modules_of(found))
    ]
    assert wrong == []


def test_clients_import_nothing_of_ours() -> None:
    wrong = [str(found) for found in imports_of("clients") if found.root in {"model", "server"}]
    assert wrong == []


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_known_only_where_it_belongs(library: str) -> None:
    wrong = [
        str(found)
        for found in imports_of("model", "server")
        if found.root == library and not found.path.startswith(HOMES[library])
    ]
    assert wrong == []


def test_there_are_no_star_and_no_relative_imports() -> None:
    wrong = [
        str(found)
        for found in imports_of("model", "server", "clients", "tests", "benchmarks")
        if "*" in found.names
        or (found.module.startswith(".") and not found.path.startswith("clients/"))
    ]
    assert wrong == []


def test_only_extras_are_imported_inside_functions() -> None:
    wrong = [
        str(found)
        for found in imports_of("model", "server")
        if found.is_late and not found.path.startswith("model/training/")
        if not needs_an_extra(found)
    ]
    assert wrong == []


def needs_an_extra(found: Import) -> bool:
    """Whether what is imported brings an extra with it at its top, itself or through ours."""
    if found.root in EXTRAS:
        return True
    files = [module_file(module) for module in modules_of(found) if found.root in TREE]
    return any(
        needs_an_extra(inner)
        for file in files
        if file is not None
        for inner in read_imports(file)
        if not inner.is_late
    )


def test_no_file_outgrows_400_lines() -> None:
    folders = ["model", "server", "clients", "tests", "benchmarks"]
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    long = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in files}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


def test_serving_loads_nothing_that_only_training_needs() -> None:
    code = "import sys, server.app, server.cli; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert "openvino" in loaded
    # FastAPI brings the interface of OpenTelemetry, and uses it for nothing until told to.
    assert loaded & (EXTRAS - {"opentelemetry"} | {"opentelemetry.sdk"}) == set()
