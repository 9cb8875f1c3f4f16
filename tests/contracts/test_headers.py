"""Headers of results and of blocks: what the contracts read out of bytes they did not write."""

from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts.blocks import Blocks, beacon_value, header_of
from tests.contracts.support import CASES, MARKET, load_vector, unhex

HISTORY_ACCOUNT = "0x0000F90827F1C53a10cb7A02335B175320002935"


def read_round(rules: Any, data: bytes, **changes: Any) -> Any:
    case = {**CASES["header"], **changes}
    origin = (case.get("market", MARKET), case["job"], case["round_index"])
    return rules.read_round(data, origin, unhex(case["previous_digest"]), len(case["utilities"]))


def test_round_header_is_read_as_in_the_vectors(rules_of_vectors: Any) -> None:
    case = CASES["header"]
    result = read_round(rules_of_vectors, unhex(case["bytes"]))
    assert keccak(unhex(case["bytes"])) == unhex(case["digest"])
    assert result.model_digest == unhex(case["model_digest"])
    assert result.utility_before == case["utility_before"]
    assert result.utility_after == case["utility_after"]
    assert result.credit_root == unhex(case["credit_root"])
    assert result.credit_sum == case["credit_sum"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"job": 8}, "header: not of this round"),
        ({"round_index": 4}, "header: not of this round"),
        ({"market": "0x" + "22" * 20}, "header: not of this chain of rounds"),
        ({"previous_digest": "0x" + "33" * 32}, "header: not of this chain of rounds"),
        ({"utilities": [1]}, "header: wrong size"),
    ],
)
def test_a_header_of_something_else_is_refused(
    rules_of_vectors: Any, change: dict[str, Any], reason: str
) -> None:
    with boa.reverts(reason):
        read_round(rules_of_vectors, unhex(CASES["header"]["bytes"]), **change)


def test_a_header_of_another_chain_is_refused(rules_of_vectors: Any) -> None:
    boa.env.evm.patch.chain_id = 1
    with boa.reverts("header: not of this chain of rounds"):
        read_round(rules_of_vectors, unhex(CASES["header"]["bytes"]))


def test_a_header_with_an_absurd_credit_sum_is_refused(rules_of_vectors: Any) -> None:
    data = unhex(CASES["header"]["bytes"])[:-32] + (2**32).to_bytes(32, "big")
    with boa.reverts("header: credit sum out of range"):
        read_round(rules_of_vectors, data)


@pytest.mark.parametrize("name", ["final", "final_negative"])
def test_final_vote_is_read_as_in_the_vectors(rules_of_vectors: Any, name: str) -> None:
    case = CASES[name]
    origin = (MARKET, case["job"], case["round_index"])
    model = unhex(case["model_digest"])
    result = rules_of_vectors.read_final(unhex(case["bytes"]), origin, model)
    assert (result.initial_utility, result.utility) == (case["initial_utility"], case["utility"])
    with boa.reverts("header: not of this final"):
        rules_of_vectors.read_final(unhex(case["bytes"]), origin, keccak(b"another model"))
    with boa.reverts("header: wrong size"):
        rules_of_vectors.read_final(unhex(case["bytes"]) + b"\x00", origin, model)


def test_mix_hash_of_a_header_of_a_real_client(rules: Any) -> None:
    case = load_vector("block_header.json")
    assert keccak(unhex(case["rlp"])) == unhex(case["hash"])
    assert rules.mix_hash(unhex(case["rlp"])) == unhex(case["mix_hash"])


def test_randomness_of_a_recent_block(rules: Any) -> None:
    blocks = Blocks()
    for distance in (1, 2, 255, 256):
        number = blocks.number - distance
        assert rules.randomness(number, header_of(number)) == beacon_value(number)


def test_a_header_of_another_block_is_refused(rules: Any) -> None:
    number = Blocks().number - 2
    with boa.reverts("header: not of this block"):
        rules.randomness(number, header_of(number - 1))


def test_a_block_that_is_not_mined_has_no_randomness(rules: Any) -> None:
    number = Blocks().number
    with boa.reverts("header: block not mined"):
        rules.randomness(number, header_of(number))


def test_randomness_of_an_older_block_comes_from_the_history_account(
    rules: Any, deployers: dict[str, Any]
) -> None:
    number = Blocks().number - 257
    deployers["BlockHistory"].deploy(
        number, keccak(header_of(number)), override_address=HISTORY_ACCOUNT
    )
    assert rules.randomness(number, header_of(number)) == beacon_value(number)
    with boa.reverts("header: block too old"):
        rules.randomness(number - 1, header_of(number - 1))


def test_without_a_history_account_older_blocks_are_out_of_reach(rules: Any) -> None:
    number = Blocks().number - 257
    with boa.reverts("header: block too old"):
        rules.randomness(number, header_of(number))
