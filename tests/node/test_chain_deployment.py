"""Parameters from TOML, and addresses known before there is a contract."""

from pathlib import Path

import pytest

from d2m_node.chain.deployment import load_params, predict_address
from d2m_node.errors import UserError
from protocol.params import compute_params_hash
from protocol.types import Address

DEV = Path(__file__).parents[2] / "configs" / "params" / "dev.toml"


def write_params(path: Path, old: str, new: str) -> Path:
    content = DEV.read_text()
    assert old in content
    path.write_text(content.replace(old, new))
    return path


def test_the_parameters_of_a_devnet_are_valid() -> None:
    params = load_params(DEV)
    assert params.min_stake_wei == 10**18
    assert params.term_limits.max_window_blocks == 100_000
    assert len(compute_params_hash(params)) == 32


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("retries = 2", "retries = 6", "retries: is 6; give 0 to 5"),
        ("retries = 2", "", "retries is missing"),
        ("retries = 2", "retries = 2\nretrys = 2", "unknown key retrys"),
        ("retries = 2", "retries = true", "retries is True; give a whole number"),
        ("retries = 2", "retries = [", "not TOML"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = write_params(tmp_path / "params.toml", old, new)
    with pytest.raises(UserError, match=f"{path}.*{complaint}"):
        load_params(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_params(tmp_path / "params.toml")


def test_an_address_follows_from_deployer_and_nonce() -> None:
    # Known addresses of CREATE, from the public record of this account.
    deployer = Address(bytes.fromhex("6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0"))
    assert predict_address(deployer, 0).hex() == "cd234a471b72ba2f1ccf0a70fcaba648a5eecd8d"
    assert predict_address(deployer, 1).hex() == "343c43a37d37dff08ae8c4a11544c718abb4fcf8"
