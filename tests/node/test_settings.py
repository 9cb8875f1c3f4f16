"""Settings come from the nearest source, and mistakes are named."""

from pathlib import Path

import pytest

from d2m_node.errors import UserError
from d2m_node.settings import (
    SETTINGS,
    Device,
    NodeSettings,
    default_data_dir,
    load_settings,
    read_configuration,
)
from d2m_node.user_input import parse_listen_address

MARKET = "0x" + "5f" * 20
REQUIRED = {"chain.chain_id": "31337", "chain.market": MARKET}

CONFIG = f"""
shutdown_grace_seconds = 3

[chain]
chain_id = 31337
market = "{MARKET}"
poll_seconds = 0.5

[network]
bootstrap = ["/ip4/127.0.0.1/tcp/1/p2p/a", "/ip4/127.0.0.1/tcp/2/p2p/b"]

[roles.cone]
enabled = true
stake_wei = "5ether"
"""


def load(
    folder: Path,
    config: str = CONFIG,
    *,
    flags: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
) -> NodeSettings:
    (folder / "config.toml").write_text(config)
    return load_settings(folder, flags=flags or {}, environment=environment or {})


def test_a_file_fills_the_sections_and_defaults_fill_the_rest(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.chain.market == bytes([0x5F]) * 20
    assert settings.chain.poll_seconds == 0.5
    assert settings.chain.rpc_urls == ("http://127.0.0.1:8545",)
    assert len(settings.network.bootstrap) == 2
    assert settings.network.announce is None
    assert settings.roles.cone.stake_wei == 5 * 10**18
    assert not settings.roles.buyer.enabled
    assert settings.shutdown_grace_seconds == 3


def test_a_device_is_one_of_those_known(tmp_path: Path) -> None:
    assert load(tmp_path).device is Device.AUTO
    assert load(tmp_path, environment={"D2M_DEVICE": "cpu"}).device is Device.CPU
    with pytest.raises(UserError, match="--set device: invalid enum value 'gpu'"):
        load(tmp_path, flags={"device": "gpu"})


def test_the_environment_wins_over_the_file_and_a_flag_over_both(tmp_path: Path) -> None:
    environment = {"D2M_CHAIN_CHAIN_ID": "5", "D2M_CHAIN_POLL_SECONDS": "4", "HOME": "/"}
    settings = load(tmp_path, environment=environment, flags={"chain.chain_id": "6"})
    assert settings.chain.chain_id == 6
    assert settings.chain.poll_seconds == 4


def test_each_value_knows_where_it_is_from(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)
    origins = read_configuration(
        tmp_path,
        flags={"chain.chain_id": "6"},
        environment={"D2M_ROLES_SELLER_DATASET": "digits.toml"},
    ).origins
    assert origins["chain.chain_id"] == "flag"
    assert origins["roles.seller.dataset"] == "environment D2M_ROLES_SELLER_DATASET"
    assert origins["chain.market"] == "config.toml"
    assert origins["logs.level"] == "default"


def test_text_becomes_lists_paths_and_nothing(tmp_path: Path) -> None:
    environment = {
        "D2M_CHAIN_RPC_URLS": "http://a, https://b",
        "D2M_ROLES_SELLER_DATASET": "digits.toml",
        "D2M_LOGS_FILE": "",
    }
    settings = load(tmp_path, environment=environment)
    assert settings.chain.rpc_urls == ("http://a", "https://b")
    assert settings.roles.seller.dataset == tmp_path / "digits.toml"
    assert settings.logs.file is None


def test_what_roles_take_on_is_read_from_text_and_tables_alike(tmp_path: Path) -> None:
    limits = """\
jobs_max = 3
job_stake_min_wei = "1ether"
job_stake_max_wei = "2ether"
model_parameters_max = 1_000_000
[roles.seller]
tags = ["digits"]
metrics = ["accuracy", "macro-f1"]
"""
    environment = {"D2M_ROLES_CONE_JOBS_MAX": "", "D2M_ROLES_SELLER_JOBS_MAX": "2"}
    roles = load(tmp_path, CONFIG + limits, environment=environment).roles
    assert (roles.cone.jobs_max, roles.seller.jobs_max) == (None, 2)
    assert (roles.cone.job_stake_min_wei, roles.cone.job_stake_max_wei) == (10**18, 2 * 10**18)
    assert (roles.cone.model_parameters_max, roles.cone.validation_samples_max) == (10**6, None)
    assert (roles.seller.tags, roles.seller.metrics) == (("digits",), ("accuracy", "macro-f1"))


def test_limits_of_the_chain_have_sections_of_their_own(tmp_path: Path) -> None:
    environment = {"D2M_CHAIN_SENDING_MAX_FEE_WEI": "500gwei"}
    config = CONFIG + "\n[chain.endpoints]\nprobe_seconds = 7\n"
    settings = load(tmp_path, config, environment=environment)
    assert settings.chain.sending.max_fee_wei == 500 * 10**9
    assert settings.chain.sending.stuck_blocks == 4
    assert settings.chain.endpoints.probe_seconds == 7
    origins = read_configuration(tmp_path, environment=environment).origins
    assert origins["chain.sending.max_fee_wei"] == "environment D2M_CHAIN_SENDING_MAX_FEE_WEI"
    assert origins["chain.endpoints.probe_seconds"] == "config.toml"
    assert origins["chain.endpoints.lag_blocks"] == "default"


def test_a_node_can_be_set_up_without_a_file(tmp_path: Path) -> None:
    environment = {"D2M_CHAIN_CHAIN_ID": "1", "D2M_CHAIN_MARKET": MARKET}
    settings = load_settings(tmp_path / "none", flags={}, environment=environment)
    assert settings.rpc.socket == tmp_path / "none" / "rpc.sock"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[chain]\npoll_secnds = 1", "unknown key 'chain.poll_secnds'; did you mean 'chain.poll_"),
        ("[chian]\nchain_id = 1", "unknown key 'chian'"),
        ("[chain]\nchain_id = '1'", "chain.chain_id: expected `int`, got `str`"),
        ("[chain]\nchain_id = 0", "chain.chain_id: expected `int` >= 1"),
        ("[chain.sending]\nmax_fee = 1", "unknown key 'chain.sending.max_fee'"),
        ("[chain]\nmarket = '0x12'", "chain.market: '0x12' is no address"),
        ("[logs]\nlevel = 'loud'", "logs.level: invalid enum value 'loud'"),
        ("[roles.cone]\nstake_wei = '5 euro'", "roles.cone.stake_wei: '5 euro' is no amount"),
        ("[roles.cone]\njobs_max = 0", "roles.cone.jobs_max: expected `int` >= 1"),
        ("[roles.cone]\njob_stake_max_wei = 'x'", "roles.cone.job_stake_max_wei: 'x' is no amount"),
        ("[roles.seller]\nmetrics = ['f1']", "roles.seller.metrics"),
        ("[rpc]\nsocket = 5", "rpc.socket: expected `str`, got `int`"),
        ("chain = 5", "unknown key 'chain'"),
        ("[chain", "no TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError) as failure:
        load(tmp_path, line)
    assert message in str(failure.value)
    assert str(tmp_path / "config.toml") in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"D2M_CHAIN_ID": "1"}, "unknown key 'D2M_CHAIN_ID'; did you mean 'D2M_CHAIN_CHAIN_ID'?"),
        ({"D2M_CHAIN_CHAIN_ID": "one"}, "D2M_CHAIN_CHAIN_ID: expected `int`"),
        ({"D2M_ROLES_BUYER_ENABLED": "perhaps"}, "D2M_ROLES_BUYER_ENABLED: expected `bool`"),
    ],
)
def test_a_mistake_in_the_environment_is_named(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match="D2M_") as failure:
        load(tmp_path, environment=environment)
    assert message in str(failure.value)


def test_variables_that_are_no_settings_are_left_alone(tmp_path: Path) -> None:
    load(tmp_path, environment={"D2M_DATA": "data", "D2M_ANVIL": "anvil", "D2M_DATA_DIR": "node"})


def test_an_unknown_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"--set: unknown key 'logs\.levl'; did you mean 'logs\.level'"
    ):
        load(tmp_path, flags={"logs.levl": "debug"})


def test_what_must_be_set_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"chain\.chain_id: not set; .* D2M_CHAIN_CHAIN_ID"):
        load(tmp_path, "")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (("roles.seller.enabled", "true"), "roles.seller.dataset"),
        (("roles.cone.stake_wei", "0"), "roles.cone.stake_wei"),
        (("chain.rpc_urls", ""), "chain.rpc_urls"),
        (("network.lan_interfaces", "eth0"), "network.lan_interfaces: 'eth0' is no IPv4 address"),
        (("chain.confirmations", "63"), "chain.reorg_blocks: .* at most 126 together"),
        (("chain.rpc_urls", "127.0.0.1:8545"), "http://"),
    ],
)
def test_values_that_cannot_work_together_are_named(
    tmp_path: Path, flag: tuple[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, flags=dict([flag]))


def test_every_setting_has_one_variable() -> None:
    assert len({name.replace(".", "_") for name in SETTINGS}) == len(SETTINGS)


def test_the_data_directory_follows_the_platform() -> None:
    assert default_data_dir({"XDG_DATA_HOME": "/data"}) == Path("/data/d2m-node")
    assert default_data_dir({}) == Path.home() / ".local/share/d2m-node"
    with pytest.raises(UserError, match=r"^~nosuchuser: "):
        default_data_dir({"XDG_DATA_HOME": "~nosuchuser"})


def test_a_path_below_the_home_of_nobody_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"keys\.account_file: ~nosuchuser/a: "):
        load(tmp_path, flags={"keys.account_file": "~nosuchuser/a"})


PRIVACY = "[roles.seller.privacy]\n"


def test_privacy_is_off_until_there_is_a_budget(tmp_path: Path) -> None:
    assert load(tmp_path).roles.seller.privacy.epsilon_budget is None
    on = PRIVACY + "epsilon_budget = 8\nepsilon_per_job = 1.5\ndelta = 1e-6\n"
    privacy = load(tmp_path, CONFIG + on).roles.seller.privacy
    assert (privacy.epsilon_budget, privacy.epsilon_per_job, privacy.delta) == (8.0, 1.5, 1e-6)
    off = load(
        tmp_path,
        CONFIG + on,
        flags={"roles.seller.privacy.epsilon_per_job": ""}
        | {"roles.seller.privacy.noise_multiplier": "1.1"},
    )
    assert off.roles.seller.privacy.epsilon_per_job is None
    assert off.roles.seller.privacy.noise_multiplier == 1.1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("noise_multiplier = 1.0", r"privacy\.epsilon_budget: not set, and noise_multiplier is"),
        (
            "epsilon_budget = 8",
            "epsilon_budget: with it, give either noise_multiplier or epsilon_per_job",
        ),
        (
            "epsilon_budget = 8\nnoise_multiplier = 1\nepsilon_per_job = 1",
            "epsilon_budget: with it, give either noise_multiplier or epsilon_per_job",
        ),
        ("epsilon_budget = 1\nepsilon_per_job = 2", "epsilon_per_job: must not exceed"),
        ("epsilon_budget = nan\nepsilon_per_job = 2", "epsilon_budget: expected"),
        ("epsilon_budget = inf\nepsilon_per_job = 2", "epsilon_budget: expected"),
        ("epsilon_budget = 0\nepsilon_per_job = 2", "epsilon_budget: expected"),
        ("epsilon_budget = 1\nnoise_multiplier = 0", "noise_multiplier: expected"),
        ("delta = 0", "delta: expected"),
        ("max_grad_norm = -1", "max_grad_norm: expected"),
        ("epsilon = 1", "unknown key 'roles.seller.privacy.epsilon'"),
    ],
)
def test_a_mistake_in_the_privacy_of_a_seller_is_named(
    tmp_path: Path, lines: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, f"{CONFIG}{PRIVACY}{lines}\n")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[chian]\nchain_id = 1\n", "did you mean 'chain'?"),
        ("[chain.endpoint]\nlag_blocks = 1\n", "did you mean 'chain.endpoints'?"),
        ("chain = 5\n", "write [chain] above its keys"),
        ("zzzzzzzz = 1\n", "d2m-node config show lists all of them"),
    ],
)
def test_an_unknown_section_is_told_from_those_that_there_are(
    tmp_path: Path, text: str, hint: str
) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UserError) as refused:
        read_configuration(tmp_path, environment={})
    assert hint in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("tcp", "message"),
    [
        ("9394", r"rpc\.tcp: '9394' is no address"),
        ("localhost", r"rpc\.tcp: 'localhost' is no address"),
        ("node.example:9394", r"rpc\.tcp: 'node.example:9394' is no address"),
        ("127.0.0.1:70000", "is no address"),
        ("127.0.0.1:-1", "is no address"),
        ("127.0.0.1:٣", "is no address"),
        ("::1", "is no address"),
        ("0.0.0.0:9394", r"no loopback address.*set rpc\.allow_remote"),
        ("[::]:9394", r"no loopback address.*set rpc\.allow_remote"),
        ("192.168.1.7:9394", "no loopback address"),
    ],
)
def test_an_address_of_the_rpc_that_cannot_be_or_must_not_be_is_named(
    tmp_path: Path, tcp: str, message: str
) -> None:
    flags = {**REQUIRED, "rpc.tcp": tcp}
    with pytest.raises(UserError, match=message):
        load_settings(tmp_path, flags=flags, environment={})


@pytest.mark.parametrize(
    ("tcp", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost:9394", ("127.0.0.1", 9394)),
        ("[::1]:9394", ("::1", 9394)),
    ],
)
def test_the_rpc_listens_on_loopback_if_told_so(
    tmp_path: Path, tcp: str, address: tuple[str, int]
) -> None:
    settings = load_settings(tmp_path, flags={**REQUIRED, "rpc.tcp": tcp}, environment={})
    assert parse_listen_address(tcp) == address
    assert settings.rpc.tokens == tmp_path / "tokens"
    assert not settings.rpc.allow_remote
    remote = {**REQUIRED, "rpc.tcp": "0.0.0.0:9394", "rpc.allow_remote": "true"}
    assert load_settings(tmp_path, flags=remote, environment={}).rpc.allow_remote
