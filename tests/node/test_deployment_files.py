"""The systemd unit, the image and the compose file fit the node, and give it little to break."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from d2m_node.cli import COMMANDS, EXIT_USER_ERROR
from d2m_node.settings import NodeSettings, load_settings
from d2m_node.user_input import parse_listen_address

ROOT = Path(__file__).parents[2]
MARKET = "0x" + "11" * 20


def read_unit() -> dict[str, list[str]]:
    """Return the lines of [Service] by key, in order."""
    found: dict[str, list[str]] = {}
    section = ""
    for raw in (ROOT / "configs" / "systemd" / "d2m-node.service").read_text().splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line
        elif section == "[Service]":
            key, separator, value = line.partition("=")
            assert separator, line
            found.setdefault(key, []).append(value)
    return found


UNIT = read_unit()


def only(key: str) -> str:
    (value,) = UNIT[key]
    return value


def settings_of(environment: dict[str, str], folder: Path) -> NodeSettings:
    """Read settings as the node would, of an otherwise fresh config.toml."""
    (folder / "config.toml").write_text(f'[chain]\nchain_id = 1\nmarket = "{MARKET}"\n')
    return load_settings(folder, environment=environment)


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)(s|min)?", text)
    assert found is not None, text
    return int(found[1]) * (60 if found[2] == "min" else 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("PrivateUsers", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("ProtectClock", "yes"),
        ("ProtectHostname", "yes"),
        ("ProtectProc", "invisible"),
        ("RestrictNamespaces", "yes"),
        ("RestrictRealtime", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("LockPersonality", "yes"),
        ("SystemCallArchitectures", "native"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
        ("StateDirectoryMode", "0700"),
        ("UMask", "0077"),
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("Restart", "on-failure"),
    ],
)
def test_the_unit_takes_from_the_node_what_it_does_not_need(key: str, value: str) -> None:
    assert only(key) == value


def test_the_unit_filters_system_calls_and_leaves_those_that_trainings_make() -> None:
    assert UNIT["SystemCallFilter"] == ["@system-service", "~@privileged"]
    assert "MemoryDenyWriteExecute" not in UNIT, "torch could not run a convolution"


def test_the_unit_does_not_restart_what_a_restart_cannot_mend() -> None:
    assert set(only("RestartPreventExitStatus").split()) == {"2", str(EXIT_USER_ERROR)}


def test_the_unit_gives_the_node_more_time_to_stop_than_it_takes(tmp_path: Path) -> None:
    grace = settings_of({}, tmp_path).shutdown_grace_seconds
    assert seconds(only("TimeoutStopSec")) > grace
    assert only("TimeoutStartSec") == "infinity"
    assert seconds(only("WatchdogSec")) > 0


def test_the_unit_names_settings_and_a_command_that_there_are(tmp_path: Path) -> None:
    environment = dict(one.split("=", 1) for one in UNIT["Environment"])
    assert environment.pop("D2M_DATA_DIR") == f"%S/{only('StateDirectory')}"
    settings = settings_of(environment, tmp_path)
    name, _, _ = only("LoadCredential").partition(":")
    assert str(settings.keys.password_file).endswith(f"%d/{name}")
    program, *arguments = shlex.split(only("ExecStart"))
    assert Path(program).name == "d2m-node"
    assert arguments[0] in COMMANDS


def test_the_unit_holds_no_secret() -> None:
    assert "SetCredential" not in UNIT
    assert not any("PASSWORD=" in one for one in UNIT["Environment"])


def read_instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines()]


INSTRUCTIONS = read_instructions()


def last(name: str) -> str:
    return [value for kind, value in INSTRUCTIONS if kind == name][-1]


def test_the_dockerfile_passes_its_linter() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    finished = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, check=False)
    assert finished.returncode == 0, finished.stdout.decode()


def test_the_image_runs_the_node_as_a_user_that_is_not_root() -> None:
    assert int(last("USER")) > 0
    assert json.loads(last("ENTRYPOINT")) == ["d2m-node"]
    assert json.loads(last("CMD")) == ["run"]
    check = last("HEALTHCHECK")
    assert json.loads(check[check.index("[") :])[:2] == ["d2m-node", "status"]


def test_the_image_keeps_its_data_where_the_node_looks_for_it() -> None:
    assert last("VOLUME") in last("ENV")
    assert f"D2M_DATA_DIR={last('VOLUME')}" in last("ENV")


def test_the_image_is_built_of_files_that_there_are_and_that_the_builder_is_sent() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for kind, value in INSTRUCTIONS:
        if kind == "COPY" and not value.startswith("--from"):
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, source


COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
SECRET_MOUNT = "/run/secrets/"


@pytest.mark.parametrize("name", list(SERVICES))
def test_a_service_mounts_what_there_is(name: str) -> None:
    for mount in SERVICES[name]["volumes"]:
        source, target, *mode = mount.split(":")
        assert target.startswith("/")
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]
    assert set(SERVICES[name].get("secrets", ())) <= set(COMPOSE["secrets"])


def test_the_nodes_environment_is_settings_that_fit_together(tmp_path: Path) -> None:
    settings = settings_of(SERVICES["node"]["environment"], tmp_path)
    assert str(settings.keys.password_file).removeprefix(SECRET_MOUNT) in COMPOSE["secrets"]
    assert settings.watch.listen is not None
    assert settings.watch.allow_remote
    _, port = parse_listen_address(settings.watch.listen)
    scraped = yaml.safe_load((ROOT / "configs" / "docker" / "prometheus.yml").read_text())
    (target,) = scraped["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"node:{port}"
    assert settings.watch.hosts == ("node",)
    assert f"/tcp/{SERVICES['node']['ports'][0].split(':')[1]}" in settings.network.listen


def test_only_the_nodes_own_port_is_open_to_the_world() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert name == "node" or port.startswith("127.0.0.1:"), port


def test_the_node_in_the_container_has_little_to_break() -> None:
    node = SERVICES["node"]
    assert node["read_only"] is True
    assert node["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in node["security_opt"]
    assert node["init"] is True


def test_the_container_has_more_time_to_stop_than_the_node_takes(tmp_path: Path) -> None:
    node = SERVICES["node"]
    grace = settings_of(node["environment"], tmp_path).shutdown_grace_seconds
    assert seconds(node["stop_grace_period"]) > grace


def test_images_of_others_are_of_one_version() -> None:
    for name in ("prometheus", "grafana"):
        assert re.search(r":v?\d+\.\d+\.\d+$", SERVICES[name]["image"]), name


def test_prometheus_finds_the_rules_and_grafana_the_dashboard() -> None:
    rules = yaml.safe_load((ROOT / "configs" / "docker" / "prometheus.yml").read_text())
    mounted = {mount.split(":")[1] for mount in SERVICES["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in rules["rule_files"]} <= mounted
    provisioning = ROOT / "configs" / "grafana" / "provisioning"
    boards = yaml.safe_load((provisioning / "dashboards" / "d2m-node.yml").read_text())
    folder = boards["providers"][0]["options"]["path"]
    mounted = {mount.split(":")[1] for mount in SERVICES["grafana"]["volumes"]}
    assert f"{folder}/d2m-node.json" in mounted
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
