"""The repository keeps its own rules: who imports whom, small files, no machine's paths, quick and documented command lines."""

import ast
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

LIGHT = {"numpy", "pydantic"}
HEAVY = {"tensorflow", "keras"}
# module -> third-party packages it may import at its top; a package's modules share its row
THIRD_PARTY = {
    "tfmusic.config": LIGHT,
    "tfmusic.recipes": LIGHT,
    "tfmusic.labels": LIGHT,
    "tfmusic.bootstrap": LIGHT,
    "tfmusic.metrics": LIGHT,
    "tfmusic.decisions": LIGHT,
    "tfmusic.regression": LIGHT,
    "tfmusic.sampling": LIGHT,
    "tfmusic.imbalance": LIGHT,
    "tfmusic.audio": LIGHT | {"soundfile", "soxr"},
    "tfmusic.files": LIGHT,
    "tfmusic.run": LIGHT,
    "tfmusic.cli": LIGHT | {"tyro", "tqdm"},
    "tfmusic.tables": set(),
    "tfmusic.space": LIGHT,
    "tfmusic.tune_report": LIGHT | {"matplotlib"},
    "tfmusic.summary": LIGHT,
    "tfmusic.compare": LIGHT,
    "tfmusic.page": LIGHT | {"matplotlib"},
    "tfmusic.pictures": LIGHT | {"matplotlib"},
    "tfmusic.__main__": {"tyro"},
    "tfmusic.tune_cli": LIGHT | {"tyro"},
    "tfmusic.preview_cli": LIGHT | {"tyro"},
    "tfmusic.doctor_cli": LIGHT | {"tyro"},
    "tfmusic.exhibits": LIGHT | {"matplotlib"},
    "tfmusic.report": LIGHT | {"matplotlib"},
    "tfmusic": LIGHT | HEAVY,
    "records.synthesis": LIGHT | {"scipy"},
    "records.demo": LIGHT | {"scipy", "soundfile"},
    "records.build": LIGHT | HEAVY,
    "records.beam": {"apache_beam"},
    "records.features": LIGHT | HEAVY,
    "records.inspect": LIGHT | HEAVY,
    "records": LIGHT | {"tyro"},
    "export.predict": LIGHT | {"ai_edge_litert"},
    "export.index": LIGHT,
    "export.similar": LIGHT,
    "export.metadata": LIGHT | {"ai_edge_litert", "flatbuffers"},
    "export.bundle": LIGHT | HEAVY | {"ai_edge_litert"},
    "export": {"tyro"},
}
# of tfmusic: no TensorFlow, so importable from anything
FREE = {"config", "files", "labels", "recipes", "bootstrap", "metrics", "decisions", "regression", "sampling", "imbalance", "audio", "run", "cli"}
FREE |= {"tables", "page", "pictures", "summary", "compare", "space", "tune_report", "tune_cli", "preview_cli", "doctor_cli", "__main__"}
LEVELS = [  # each imports from the lines above and its own
    FREE,
    {"schema", "frontend", "augment", "noises", "waveform", "losses", "embedding_losses", "search", "retrieval", "optimizers", "parts"},
    {"models", "catalogue", "pretrained", "leaks"},
    {"tasks", "data"},
    {"callbacks", "distribution", "throughput", "evaluate", "exhibits", "preview", "board", "layers", "report"},
    {"transfer"},
    {"training"},
    {"tune", "overfit", "doctor"},
]


def modules():
    for package in ("tfmusic", "records", "export"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


def imports(path):
    """Modules imported at the top of a file, not inside its functions: (package, name imported from it)."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from ((node.module, alias.name) for alias in node.names)


def row(table, name):
    while name not in table:
        name = name.rpartition(".")[0]
    return table[name]


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_imports_what_its_place_allows(name, path):
    for package, _ in imports(path):
        top = package.split(".")[0]
        if top in ("tfmusic", "records", "export"):
            own = name.split(".")[0]
            assert top == own or top == "tfmusic", f"{name} imports {package}"
        elif top not in sys.stdlib_module_names:
            assert top in row(THIRD_PARTY, name), f"{name} imports {package}"


def test_tfmusic_has_no_import_upwards():
    level = {module: number for number, group in enumerate(LEVELS) for module in group}
    for name, path in modules():
        if name.startswith("tfmusic."):
            module = name.split(".")[1]
            for package, imported in imports(path):
                if package.split(".")[0] == "tfmusic":
                    target = package.split(".")[1] if "." in package else imported
                    assert level[target] <= level[module], f"{name} imports {target}"


@pytest.mark.parametrize(
    "command",
    [
        "train.py",
        "-m records",
        "-m records build",
        "-m tfmusic",
        "-m tfmusic compare",
        "-m tfmusic doctor",
        "-m tfmusic layers",
        "-m tfmusic preview",
        "-m tfmusic summary",
        "-m tfmusic tune",
        "-m export",
        "-m export predict",
        "-m export bundle",
        "-m export similar",
        "-m export similar build",
        "-m export similar query",
    ],
)
def test_help_needs_no_tensorflow(command):
    run = "import sys, runpy\nsys.argv = {argv!r}\ntry: runpy.{call}\nexcept SystemExit as stop: assert not stop.code\n"
    run += "assert not {{'tensorflow', 'keras', 'matplotlib', 'librosa', 'scipy', 'apache_beam'}} & set(sys.modules)"
    first, *rest = command.split()
    if first == "-m":
        call, argv = f"run_module({rest[0]!r}, run_name='__main__')", [rest[0], *rest[1:], "--help"]
    else:
        call, argv = f"run_path({first!r}, run_name='__main__')", [first, "--help"]
    done = subprocess.run([sys.executable, "-c", run.format(argv=argv, call=call)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr


@pytest.mark.parametrize("check", ["check", "format --check"])
def test_ruff_is_content(check):
    done = subprocess.run([sys.executable, "-m", "ruff", *check.split(), "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_importing_tfmusic_imports_nothing():
    code = "import sys; before = set(sys.modules); import tfmusic; assert set(sys.modules) - before == {'tfmusic'}"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_files_hold_one_concept_and_no_machines_paths():
    for path in [*ROOT.glob("*.py"), *(path for _, path in modules()), *(ROOT / "tests").rglob("*.py")]:
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 600, f"{path} has over 600 lines"
        assert not re.search(r"[\"' ]/(home|root|work|tmp)/", text), path
        assert not re.search(r"^\s*except( Exception)?:", text, re.M), path
        assert not re.search(r"np\.random\.(seed|rand|randn|randint|choice)\(", text), path
