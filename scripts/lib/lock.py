"""Print the lock for a pyproject.toml: what pip would install, as `name==version` lines."""

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
    lines = []
    for item in report["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        # A local version (+cpu) says who built the file, which is not for the lock to demand.
        version = item["metadata"]["version"].partition("+")[0]
        lines.append(f"{name}=={version}")
    return sorted(lines)


if __name__ == "__main__":
    print(HEADER + "\n".join(resolve(read_requirements(Path(sys.argv[1])))))
