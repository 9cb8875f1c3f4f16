"""What the machine gives the process: devices to compute on, open files."""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from d2m_node.doctor.check import Check, fail, ok, warn
from d2m_node.errors import UserError
from d2m_node.settings import Device, NodeSettings

WANTED_FILES: Final = 4096
"""Connections with peers, streams, databases and blobs of a busy node, with room."""


def check_machine(settings: NodeSettings, pid: int | None) -> Iterator[Check]:
    """Check this process's limits, or those of the node that runs as ``pid``."""
    yield _check_files(pid)
    yield _check_device(settings)


def _check_files(pid: int | None) -> Check:
    name = "open files"
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    whose = "this shell"
    if pid is not None:
        limit = _read_limit(pid)
        if limit is None:
            return warn(name, f"the limits of process {pid} cannot be read", "run as its user")
        soft, whose = limit, f"the node (pid {pid})"
    if 0 <= soft < WANTED_FILES:
        fix = f"LimitNOFILE={WANTED_FILES} in the unit, or ulimit -n {WANTED_FILES}"
        return warn(name, f"{whose} may open {soft}", fix)
    return ok(name, f"{whose} may open {'any number' if soft < 0 else soft}")


def _read_limit(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    line = next((one for one in lines if one.startswith("Max open files")), "")
    words = line.removeprefix("Max open files").split()
    if not words:
        return None
    return -1 if words[0] == "unlimited" else int(words[0])


def _check_device(settings: NodeSettings) -> Check:
    """Try the device as the roles would; torch is imported only if one of them does."""
    from d2m_node.training.devices import has_nvidia_driver, select_device, select_evaluator

    name, wanted = "device", settings.device
    is_seller, is_cone = settings.roles.seller.enabled, settings.roles.cone.enabled
    if not (is_seller or is_cone):
        return ok(name, f"{wanted.value}; no role that is on computes")
    try:
        used = select_device(wanted).type if is_seller else ""
        if is_cone:
            select_evaluator(wanted)
    except (UserError, ImportError, OSError) as exc:
        return fail(name, str(exc), 'set device = "auto", or install the driver')
    if wanted is Device.AUTO and has_nvidia_driver() and used == "cpu":
        fix = "install a torch that fits the driver"
        return warn(name, "there is an NVIDIA driver, and torch cannot use it", fix)
    return ok(name, f"{wanted.value}{f': trains on {used}' if used else ''}")
