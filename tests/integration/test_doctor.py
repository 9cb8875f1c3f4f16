"""`d2m-node doctor` against a real chain."""

from pathlib import Path

import pytest

from d2m_node.doctor.chain import check_chain
from d2m_node.doctor.check import Check
from d2m_node.settings import load_settings
from tests.support.anvil import CHAIN_ID, cone, open_market

pytestmark = pytest.mark.integration


def configure(folder: Path, url: str, market: bytes, chain_id: int = CHAIN_ID) -> None:
    (folder / "config.toml").write_text(
        f'[chain]\nchain_id = {chain_id}\nmarket = "0x{market.hex()}"\n'
        f'rpc_urls = ["{url}", "http://127.0.0.1:9/secret"]\n'
        '[roles.cone]\nenabled = true\nstake_wei = "5000ether"\n'
    )


async def examine(folder: Path) -> dict[str, Check]:
    checks = await check_chain(load_settings(folder, environment={}), cone.address)
    return {one.name: one for one in checks}


async def test_a_chain_and_an_account_are_checked(tmp_path: Path) -> None:
    async with open_market() as (url, deployment):
        configure(tmp_path, url, deployment.market)
        found = await examine(tmp_path)
        assert found[f"endpoint {url}"].status == "ok"
        assert found["endpoint http://127.0.0.1:9"].status == "warn"
        assert found["clock"].status == "ok"
        assert "1000 ether" in found["gas"].detail
        assert found["gas"].status == "ok"
        assert found["stake"].status == "warn"  # 1000 ether cannot become a stake of 5000
        configure(tmp_path, url, b"\x09" * 20)
        nowhere = (await examine(tmp_path))[f"endpoint {url}"]
        assert (nowhere.status, "no contract at the market" in nowhere.detail) == ("fail", True)
        configure(tmp_path, url, deployment.market, chain_id=5)
        wrong = (await examine(tmp_path))[f"endpoint {url}"]
        assert (wrong.status, "not chain 5" in wrong.detail) == ("fail", True)
