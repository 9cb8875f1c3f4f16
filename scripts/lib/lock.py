"""Print the lock for a pyproject.toml: what pip would install, as `name==version` lines.

A dependency that is for some platforms only keeps its marker, and its line on all others too.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

HEADER = """\
# Every package of the environment, exactly. Written by scripts/lock from pyproject.toml.
"""


def read_requirements(pyproject: Path) -> list[str]:
    """Return what to run, to develop and to build the project."""
    table = tomllib.loads(pyproject.read_text())
    requirements: list[str] = list(table["project"]["dependencies"])
    for extra in table["project"]["optional-dependencies"].values():
        requirements += extra
    return requirements + table["build-system"]["requires"]


def resolve(requirements: list[str]) -> list[str]:
    """Let pip choose versions without installing anything; sorted lines of the lock."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += ["--quiet", "--report", "-", *requirements]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    chosen = {}
    for item in report["install"]:
        # A local version (+cpu) says who built the file, which is not for the lock to demand.
        version = item["metadata"]["version"].partition("+")[0]
        chosen[name_package(item["metadata"]["name"])] = version
    return write_lines(chosen, requirements)


def write_lines(chosen: dict[str, str], requirements: list[str]) -> list[str]:
    """Write versions by name as lines, with the markers that the requirements have."""
    lines = {name: f"{name}=={version}" for name, version in chosen.items()}
    for requirement in requirements:
        pin, is_marked, marker = requirement.partition(";")
        name, _, version = pin.strip().partition("==")
        if is_marked:
            name = name_package(name)
            lines[name] = f"{name}=={version}; {marker.strip()}"
    return sorted(lines.values())


def name_package(name: str) -> str:
    """Write a package's name as the lock does."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    print(HEADER + "\n".join(resolve(read_requirements(Path(sys.argv[1])))))
