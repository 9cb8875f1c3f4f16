"""NodeSettings: what is local to one node. Read once, checked, frozen.

A setting's name is its path, ``chain.poll_seconds``. Its value comes from the first of

    flag            --set chain.poll_seconds=2
    environment     D2M_CHAIN_POLL_SECONDS=2
    config.toml     [chain]
                    poll_seconds = 2
    default         below

Text from flags and the environment is read as the setting's type; lists are split at commas, and
an empty text is "none". Secrets are given as paths of files. Relative paths start at the data
directory.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from d2m_node.errors import UserError
from d2m_node.relay_settings import RelaySettings
from d2m_node.role_settings import RoleSettings, check_roles
from d2m_node.user_input import (
    ByteCount,
    expand_home,
    explain_mismatch,
    explain_unknown_key,
    parse_address,
    parse_byte_count,
    parse_listen_address,
    parse_wei,
    read_toml,
)
from protocol.types import Address, Wei

CONFIG_NAME: Final = "config.toml"
ENVIRONMENT_PREFIX: Final = "D2M_"
KEPT_STATES: Final = 128
"""Of so many newest blocks an endpoint keeps the state. The oldest that is asked for lies one
below the confirmations and the blocks that a reorganisation may undo."""

IP4: Final = 4
CREDENTIALS: Final = "$CREDENTIALS_DIRECTORY"
"""systemd sets this variable for a service alone: elsewhere such a path stays as it is written."""

NOT_SETTINGS: Final = frozenset({"D2M_DATA_DIR", "D2M_DATA", "D2M_ANVIL"})
"""Where the node's own data lies (the CLI's flag), and what data sets and devnets look for."""

NO_FLAGS: Final[Mapping[str, str]] = MappingProxyType({})

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]


class Device(StrEnum):
    """Where a seller trains, and a CONE node evaluates."""

    AUTO = "auto"
    """CUDA if there is one; else MPS for training; else the CPU."""
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"
    """Trains only: it has no float64, so the exact evaluation stays on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """How the chain's endpoints are asked, and when the next one is."""

    request_seconds: Seconds = 10.0
    """An endpoint that has not answered by then has failed."""
    answer_bytes: Annotated[int, Meta(ge=64 * 1024)] = 32 * 2**20
    """A longer answer is not read; of logs, less is asked for."""
    batch_requests: Annotated[int, Meta(ge=2)] = 100
    """Requests in one HTTP post."""
    probe_seconds: Seconds = 30.0
    """How often endpoints are compared, where there are several."""
    lag_blocks: Count = 3
    """An endpoint further behind another one is passed over."""
    distrust_seconds: Seconds = 600.0
    """How long one is passed over whose logs did not fit together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingSettings:
    """How long a transaction may take, and what it may cost."""

    patience_seconds: Seconds = 60.0
    """How long a call waits for an endpoint that answers."""
    stuck_blocks: Annotated[int, Meta(ge=1)] = 4
    """Blocks without a receipt after which fees are raised."""
    max_fee_wei: Wei = Wei(5_000 * 10**9)
    """No fee per gas above this is ever signed, whatever an endpoint says; "500gwei" is read.

    Calls stop at 8/9 of it, so that an empty transaction can outbid them.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSettings:
    """Which market on which chain, and how to follow it."""

    chain_id: Annotated[int, Meta(ge=1)]
    market: Address
    rpc_urls: tuple[str, ...] = ("http://127.0.0.1:8545",)
    """In order of preference; the next one is asked while one fails."""
    confirmations: Count = 5
    """Blocks on top of a block before it counts."""
    poll_seconds: Seconds = 2.0
    deployment_block: Count = 0
    """Block in which the contracts were deployed, or any before."""
    reorg_blocks: Annotated[int, Meta(ge=1, le=120)] = 64
    """How deep a reorganisation may be to be undone without reading the history again. For as
    long the node's own transactions are watched after they count. With `confirmations` at most 126
    together."""
    range_blocks: Annotated[int, Meta(ge=1)] = 2000
    """Blocks per request for logs while far from the tip; fewer where an endpoint refuses."""
    endpoints: EndpointSettings = EndpointSettings()
    sending: SendingSettings = SendingSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """Where other nodes reach this one, and whom it asks first. Multiaddrs."""

    listen: str = "/ip4/0.0.0.0/tcp/9393"
    bootstrap: tuple[str, ...] = ()
    """With the peer id: /ip4/…/tcp/…/p2p/…."""
    announce: str | None = None
    """What others should dial, if that is not the address listened on."""
    upload_bytes_per_second: ByteCount = ByteCount(0)
    """Of updates and models, shared between the peers that ask; "10MiB" is read, 0 is no limit."""
    max_connections: Annotated[int, Meta(ge=16, le=4096)] = 384
    """Open at once. A job has up to 256 sellers and 64 CONE nodes."""
    peers_target: Annotated[int, Meta(ge=1, le=1024)] = 48
    """With so many peers the node stays connected, with those of its own jobs in any case."""
    dial_private: bool | None = None
    """Whether addresses of this machine and of private networks are dialled that others name, the
    registry for instance. As in a market on one LAN; by default on the local chain 31337 alone."""
    dht: bool = True
    """Whether other nodes are asked where a peer is that has moved, and told where this one is."""
    lan: bool = False
    """Whether to tell the local network of this node, and to look for peers there (multicast DNS).
    For networks that you trust: it says where this node is to all who listen."""
    lan_interfaces: tuple[str, ...] = ()
    """IPv4 addresses of the interfaces to do so on; all of them if none is named."""
    relay: RelaySettings = field(default_factory=RelaySettings)
    deny: tuple[str, ...] = ()
    """Peer ids that are never talked to, as `peers` prints them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcSettings:
    """Where the operator's programs reach the node."""

    socket: Path = Path("rpc.sock")
    tcp: str | None = None
    """An address to listen on as well, like "127.0.0.1:9394"; a token opens it. Port 0 takes a
    free one."""
    allow_remote: bool = False
    """Whether `tcp` may be more than loopback. Nothing is encrypted: put a TLS proxy in front."""
    hosts: tuple[str, ...] = ()
    """Names besides its address and localhost by which the listener may be called."""
    tokens: Path = Path("tokens")
    """Folder of the tokens, one file for each scope."""
    token_days: Annotated[int, Meta(ge=1, le=3650)] = 30
    """How long a token counts. The node makes the next one in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """Health and metrics over HTTP, without a token: whoever reaches it may read."""

    listen: str | None = None
    """An address like "127.0.0.1:9395" for /healthz, /readyz and /metrics. Port 0 takes a free
    one; "" is off."""
    allow_remote: bool = False
    """Whether `listen` may be more than loopback. Balances and jobs are told to whoever asks."""
    hosts: tuple[str, ...] = ()
    """Names besides its address and localhost by which the listener may be called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    level: LogLevel = "info"
    format: LogFormat = "console"
    """Of standard error; the file always holds JSON."""
    file: Path | None = Path("node.log")
    """Written besides standard error, a line of JSON per event; "" for none."""
    file_bytes: Annotated[int, Meta(ge=64 * 1024)] = 16 * 2**20
    """A larger file is put aside as node.log.1, and so on, and a new one begun."""
    files_kept: Annotated[int, Meta(ge=2, le=1000)] = 8
    """The oldest is deleted when there would be more; the one that is written counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    account_file: Path = Path("account.json")
    password_file: Path | None = None
    """Its first line opens the account file. Without one `run` asks for the password. It may begin
    with `$CREDENTIALS_DIRECTORY`, where systemd puts what a unit loads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """How much of the disk the node's memory may take, and how long what is kept."""

    blob_bytes: ByteCount = ByteCount(20 * 2**30)
    """Of updates, models and validation sets; "20GiB" is read. Running jobs are never refused what
    was set aside for them; a new job is, if it might not fit."""
    reserve_bytes: ByteCount = ByteCount(256 * 2**20)
    """Of the disk, left free for the journal: without it the node has to stop."""
    keep_jobs: Count = 100
    """So many of the newest jobs that are over keep all that belongs to them, for audits."""
    keep_blocks: Count = 216_000
    """And no longer than so many blocks after their end."""
    serve_blocks: Count = 50_000
    """For so many blocks after a job's end its model stays for the buyer, whatever the quota."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Everything a node is told. Parts receive their own section."""

    data_dir: Path
    chain: ChainSettings
    network: NetworkSettings
    rpc: RpcSettings
    watch: WatchSettings
    logs: LogSettings
    storage: StorageSettings
    keys: KeySettings
    roles: RoleSettings
    device: Device = Device.AUTO
    shutdown_grace_seconds: Seconds = 60.0
    """A node that is told to stop finishes what others count on, like opening a vote that it has
    committed, for at most so long. Without anything of the kind it stops at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All values with their origins; complete or not, so that an incomplete one can be shown."""

    data_dir: Path
    values: Mapping[str, object]
    """By name, in the order of the sections; what must be set and is not, is left out."""
    origins: Mapping[str, str]

    def build(self) -> NodeSettings:
        """Return the settings. Raises UserError that names what is missing or cannot be."""
        for name in SETTINGS:
            if name not in self.values:
                file = self.data_dir / CONFIG_NAME
                raise UserError(f"{name}: not set; give it in {file} or as {_variable_of(name)}")
        nested: dict[str, object] = {"data_dir": self.data_dir}
        for name, value in self.values.items():
            *sections, key = name.split(".")
            table = nested
            for section in sections:
                inner = table.setdefault(section, {})
                assert isinstance(inner, dict)
                table = inner
            table[key] = value
        settings = msgspec.convert(nested, NodeSettings, builtin_types=(bytes,))
        _check_together(settings)
        return settings


@dataclass(frozen=True, slots=True)
class _Setting:
    """One name: its type, and its default, MISSING if it must be given."""

    annotation: object
    default: object


def load_settings(
    data_dir: Path,
    *,
    flags: Mapping[str, str] = NO_FLAGS,
    environment: Mapping[str, str] = os.environ,
) -> NodeSettings:
    """Read a node's settings. Raises UserError that names the key and its source."""
    return read_configuration(data_dir, flags=flags, environment=environment).build()


def read_configuration(
    data_dir: Path,
    *,
    flags: Mapping[str, str] = NO_FLAGS,
    environment: Mapping[str, str] = os.environ,
) -> Configuration:
    """Collect every setting and say where it is from.

    Raises UserError that names the key: unknown, with the closest known one, or of a wrong type.
    """
    data_dir = data_dir.absolute()
    file = data_dir / CONFIG_NAME
    written = dict(_flatten(read_toml(file))) if file.exists() else {}
    variables = _read_environment(environment)
    for source, given in ((str(file), written), ("--set", flags)):
        for name in given:
            if name not in SETTINGS:
                raise UserError(f"{source}: {_explain_unknown(name)}")
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for name, spec in SETTINGS.items():
        if name in flags:
            values[name] = _convert(flags[name], spec.annotation, f"--set {name}", is_text=True)
            origins[name] = "flag"
        elif name in variables:
            source = _variable_of(name)
            values[name] = _convert(variables[name], spec.annotation, source, is_text=True)
            origins[name] = f"environment {source}"
        elif name in written:
            source = f"{file}: {name}"
            values[name] = _convert(written[name], spec.annotation, source, is_text=False)
            origins[name] = CONFIG_NAME
        elif spec.default is not MISSING:
            values[name] = spec.default
            origins[name] = "default"
        if isinstance(path := values.get(name), Path):
            values[name] = _place(path, data_dir, environment)
    return Configuration(data_dir=data_dir, values=values, origins=origins)


def _explain_unknown(name: str) -> str:
    """Say which setting or section looks most like an unknown one; all of them are too many."""
    sections = _list_sections()
    if name in sections:
        return f"unknown key {name!r}; it is a section: write [{name}] above its keys"
    close = difflib.get_close_matches(name, [*SETTINGS, *sections], n=1)
    hint = f"did you mean {close[0]!r}?" if close else "d2m-node config show lists all of them"
    return f"unknown key {name!r}; {hint}"


def _list_sections() -> set[str]:
    """Name the tables of a config.toml: chain, chain.endpoints, and so on."""
    parts = (name.split(".") for name in SETTINGS)
    return {".".join(one[:length]) for one in parts for length in range(1, len(one))}


def _place(path: Path, data_dir: Path, environment: Mapping[str, str]) -> Path:
    """Let a relative path start at the data directory, or where systemd puts credentials."""
    if path.parts[:1] != (CREDENTIALS,):
        return data_dir / path
    folder = environment.get(CREDENTIALS.removeprefix("$"))
    return path if folder is None else Path(folder, *path.parts[1:])


def _list_settings(section: type, prefix: str = "") -> Iterator[tuple[str, _Setting]]:
    """Walk the sections; yield every name with its type and default."""
    hints = get_type_hints(section, include_extras=True)
    for one in fields(section):
        annotation = hints[one.name]
        if is_dataclass(annotation) and isinstance(annotation, type):
            yield from _list_settings(annotation, f"{prefix}{one.name}.")
        elif one.name != "data_dir":
            yield prefix + one.name, _Setting(annotation, one.default)


def _flatten(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield what a file sets, by name; a section that does not exist under its own name."""
    for key, value in table.items():
        name = prefix + key
        if isinstance(value, dict) and any(one.startswith(f"{name}.") for one in SETTINGS):
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _variable_of(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.replace(".", "_").upper()


def _read_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings among the variables, by name. An unknown D2M_ variable is an error."""
    names = {_variable_of(name): name for name in SETTINGS}
    found = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in NOT_SETTINGS:
            continue
        if variable not in names:
            raise UserError(f"environment: {explain_unknown_key(variable, names)}")
        found[names[variable]] = text
    return found


def _convert(raw: object, annotation: object, source: str, *, is_text: bool) -> object:
    """Read a value as a setting's type. Raises UserError that begins with ``source``."""
    if get_origin(annotation) in (UnionType, Union):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
        if raw == "":
            return None
    if is_text and isinstance(raw, str) and get_origin(annotation) is tuple:
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    try:
        if annotation is Address:
            return parse_address(raw)
        if annotation is Wei:
            return parse_wei(raw)
        if annotation is ByteCount:
            return parse_byte_count(raw)
        if annotation is Path:
            return expand_home(msgspec.convert(raw, str))
        value: object = msgspec.convert(raw, annotation, strict=not is_text)
    except msgspec.ValidationError as exc:
        raise UserError(f"{source}: {explain_mismatch(exc)}") from exc
    except UserError as exc:
        raise UserError(f"{source}: {exc}") from exc
    return value


def _check_together(settings: NodeSettings) -> None:
    """Check what one value alone cannot tell."""
    if not settings.chain.rpc_urls:
        raise UserError("chain.rpc_urls: give at least one endpoint")
    for url in settings.chain.rpc_urls:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"chain.rpc_urls: {url!r} does not begin with http:// or https://")
    if settings.chain.reorg_blocks + settings.chain.confirmations > KEPT_STATES - 2:
        raise UserError(
            f"chain.reorg_blocks: with chain.confirmations at most {KEPT_STATES - 2} together; "
            "endpoints keep no older state"
        )
    for address in settings.network.lan_interfaces:
        if not _is_ip4(address):
            raise UserError(f"network.lan_interfaces: {address!r} is no IPv4 address")
    _check_listener(
        "rpc.tcp", settings.rpc.tcp, None if settings.rpc.allow_remote else _UNENCRYPTED
    )
    may_be_far = settings.watch.allow_remote
    _check_listener("watch.listen", settings.watch.listen, None if may_be_far else _READABLE)
    check_roles(settings.roles)


def _is_ip4(text: str) -> bool:
    try:
        return ip_address(text).version == IP4
    except ValueError:
        return False


def _check_listener(name: str, text: str | None, danger: str | None) -> None:
    """Check an address to listen on; with a ``danger`` it must be of loopback."""
    if text is None:
        return
    try:
        host, _ = parse_listen_address(text)
    except UserError as exc:
        raise UserError(f"{name}: {exc}") from exc
    if danger is not None and not ip_address(host).is_loopback:
        raise UserError(f"{name}: {host} is no loopback address, and {danger}")


_UNENCRYPTED: Final = (
    "tokens would travel unencrypted; set rpc.allow_remote if a proxy or tunnel protects them"
)
_READABLE: Final = (
    "whoever reaches it may read; set watch.allow_remote if a firewall or proxy guards it"
)


def default_data_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where a node lives if nobody says: the XDG data folder, or its usual place."""
    base = environment.get("XDG_DATA_HOME") or "~/.local/share"
    return expand_home(base) / "d2m-node"


SETTINGS: Final[Mapping[str, _Setting]] = dict(_list_settings(NodeSettings))
"""Every setting by name."""
