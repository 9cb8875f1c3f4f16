"""Rules for the files themselves, which no linter checks."""

import ast
import re
import stat
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES_MAX = 600
FUNCTION_LINES_MAX = 60
# Made by tools or copied in whole: their length is not ours.
EXEMPT_FROM_LENGTH = {"CLI.md", "requirements.lock"}
TEXT_SUFFIXES = {
    "",
    ".py",
    ".sh",
    ".toml",
    ".md",
    ".vy",
    ".vyi",
    ".json",
    ".lock",
    ".yml",
    ".yaml",
    ".service",
    ".html",
}
CODE_SUFFIXES = {"", ".py", ".sh", ".toml", ".md", ".vy", ".vyi", ".lock"}
# Not part of the project: what .gitignore names, and other tools' folders.
SKIPPED_FOLDERS = {"__pycache__", "build", "dist"}
KEPT_HIDDEN = {".ci", ".gitignore"}

# The program's own place, by the standard for file systems, is no one machine's: /opt/d2m-node.
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:(?:home|root|Users|mnt|srv|work|private/var)/|opt/(?!d2m-node\b))[\w.]"
    r"|\b[A-Z]:\\\\?Users"
)
REGISTRY_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|registry\.npmjs|npmjs\.org|download\.pytorch\.org"
    r"|(?:extra-)?index-url|find-links"
)


def project_files() -> list[Path]:
    """Every file of the project, as a path from its root."""
    return sorted(path for path in ROOT.rglob("*") if path.is_file() and _is_ours(path))


def _is_ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    hidden = any(part.startswith(".") and part not in KEPT_HIDDEN for part in parts)
    made = any(part in SKIPPED_FOLDERS or part.endswith(".egg-info") for part in parts)
    return not hidden and not made


def _lines_matching(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in project_files():
        if path.suffix not in TEXT_SUFFIXES or path == Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    return found


def test_no_file_names_a_path_of_one_machine() -> None:
    assert _lines_matching(MACHINE_PATH) == []


def test_no_file_names_a_package_registry() -> None:
    assert _lines_matching(REGISTRY_HOST) == []


@pytest.mark.parametrize(
    "text",
    [
        "open('/home/someone/data')",
        "cd /srv/d2m",
        "PATH=/root/.local/bin",
        "/opt/anvil",
        "C:\\Users\\someone",
    ],
)
def test_a_machine_path_is_recognised(text: str) -> None:
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "#!/usr/bin/env bash",
        "shared/data",
        "roles/seller.py",
        "https://x.example/home/a",
        "/opt/d2m-node/bin/d2m-node",
    ],
)
def test_an_ordinary_path_is_no_machine_path(text: str) -> None:
    assert not MACHINE_PATH.search(text)


def test_every_file_fits_in_one_reading() -> None:
    too_long = {
        str(path.relative_to(ROOT)): count
        for path in project_files()
        if path.suffix in CODE_SUFFIXES
        and path.name not in EXEMPT_FROM_LENGTH
        and (count := len(path.read_text().splitlines())) > LINES_MAX
    }
    assert too_long == {}


def _long_functions(source: str) -> list[tuple[str, int]]:
    """Functions longer than allowed, their docstrings not counted."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            count = (node.end_lineno or node.lineno) - first.lineno + 1
            if count > FUNCTION_LINES_MAX:
                found.append((node.name, count))
    return found


def test_every_function_fits_on_one_screen() -> None:
    too_long = {
        str(path.relative_to(ROOT)): functions
        for path in project_files()
        if path.suffix == ".py" and (functions := _long_functions(path.read_text()))
    }
    assert too_long == {}


def test_a_long_function_is_noticed() -> None:
    body = "    x = 1\n" * (FUNCTION_LINES_MAX + 1)
    assert _long_functions(f"def long():\n{body}") == [("long", FUNCTION_LINES_MAX + 1)]


def test_every_script_is_executable_and_says_what_runs_it() -> None:
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    scripts.append(ROOT / ".ci" / "run")
    wrong = [
        path.name
        for path in scripts
        if not path.stat().st_mode & stat.S_IXUSR
        or not path.read_text().startswith("#!/usr/bin/env ")
    ]
    assert wrong == []


def test_only_the_ci_script_looks_beside_the_checkout() -> None:
    assert {line.partition(":")[0] for line in _lines_matching(re.compile(r"\.\./shared"))} <= {
        ".ci/run"
    }
