"""How the versions of dependencies are written down; `scripts/lock` runs pip for them."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "scripts/lib/lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_dependency_for_some_platforms_keeps_its_marker_on_all(lock: ModuleType) -> None:
    requirements = ["a==1", "Only_Here==2.0; sys_platform == 'linux'"]
    marked = "only-here==2.0; sys_platform == 'linux'"
    assert lock.write_lines({"a": "1", "only-here": "2.0"}, requirements) == ["a==1", marked]
    assert lock.write_lines({"a": "1"}, requirements) == ["a==1", marked]


def test_every_pinned_dependency_stands_in_the_lock_as_it_would_be_written(
    lock: ModuleType,
) -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()[1:]
    assert lines == sorted(lines)
    requirements = lock.read_requirements(ROOT / "pyproject.toml")
    pins = [re.sub(r"\[.*\]", "", one) for one in requirements]
    chosen = {lock.name_package(one.split("==")[0]): one.split("==")[1] for one in pins}
    plain = {one: version for one, version in chosen.items() if ";" not in version}
    assert set(lock.write_lines(plain, pins)) <= set(lines)


def test_a_platform_without_wheels_of_a_dependency_does_not_ask_for_it() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (marked,) = [one for one in table["project"]["optional-dependencies"]["dev"] if ";" in one]
    program = (
        "import sys; from pip._vendor.packaging.markers import Marker;"
        "print(*(Marker(sys.argv[1]).evaluate({'sys_platform': a, 'platform_machine': b})"
        " for a, b in (('linux', 'x86_64'), ('linux', 'aarch64'), ('darwin', 'x86_64'))))"
    )
    marker = marked.partition(";")[2].strip()
    result = subprocess.run(
        [sys.executable, "-c", program, marker], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["True", "False", "False"]
