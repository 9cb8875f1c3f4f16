"""What is exported is what Prometheus and OpenMetrics can read, and what happened."""

from dataclasses import replace

from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from d2m_node.errors import StoreCorrupted
from d2m_node.watch.metrics import MAX_JOBS, METRICS, Kind
from protocol.bitmap import encode_bitmap
from protocol.events import (
    AttemptUndecided,
    CommitsRecorded,
    DepositForfeited,
    PayoutCredited,
    RoundVoided,
    StakeSlashed,
)
from protocol.hashing import keccak
from protocol.job import JobPhase
from protocol.types import BlockNumber, JobId, Wei
from tests.support.decided import DIGEST, decide_first_round, record_votes
from tests.support.job import JOB, Cast
from tests.support.watch import HEADER, WatchedNode

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
Samples = dict[tuple[str, tuple[str, ...]], float]


async def scrape(node: WatchedNode, accept: str = "") -> str:
    watch = node.started_watch()
    watch.exposition.observe_lag(0.002)
    watch.exposition.observe_training("done", 3.0)
    body, _ = watch.exposition.render(await watch.reader.read(), accept)
    return body.decode()


def list_samples(text: str) -> Samples:
    """Return the samples by name and by the values of their labels, in the order of the text."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


async def test_both_formats_are_read_by_the_parsers_of_prometheus() -> None:
    plain = {family.name for family in parse_text(await scrape(WatchedNode()))}
    opened = {family.name for family in parse_openmetrics(await scrape(WatchedNode(), OPENMETRICS))}
    assert {name for name in plain if name.startswith("d2m_")} >= {"d2m_balance_ether", "d2m_votes"}
    assert {name for name in opened if name.startswith("d2m_")} >= {"d2m_balance_ether"}


async def test_every_metric_in_the_table_is_exported_as_it_says() -> None:
    cast = Cast()
    cast.start()
    record_votes(cast, [0, 1])
    decide_first_round(cast, DIGEST, appeal_end=50, header=HEADER)
    node = watched(cast)
    await node.spend_epsilon(2.5)
    node.store.refusals.add("seller", "min-price")
    found = {family.name: family for family in parse_text(await scrape(node))}
    for metric in METRICS:
        name = metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name
        family = found[name]
        assert family.type == metric.kind.value, metric.name
        assert family.documentation == metric.text
        assert family.samples, metric.name
        for sample in family.samples:
            assert set(metric.labels) == set(sample.labels) - {"le"}, metric.name
    exported = {name for name in found if name.startswith("d2m_")}
    known = {one.name for one in METRICS} | {one.name.removesuffix("_total") for one in METRICS}
    assert {name.removesuffix("_created") for name in exported} <= known


async def test_the_process_is_measured_by_the_library() -> None:
    samples = list_samples(await scrape(WatchedNode()))
    assert samples["process_resident_memory_bytes", ()] > 0
    assert samples["process_open_fds", ()] > 0
    assert samples["process_max_fds", ()] > 0


async def test_nothing_is_put_into_the_librarys_global_registry() -> None:
    before = {family.name for family in REGISTRY.collect()}
    await scrape(WatchedNode())
    await scrape(WatchedNode())
    assert {family.name for family in REGISTRY.collect()} == before


async def test_adapters_are_told_as_they_are() -> None:
    samples = list_samples(await scrape(WatchedNode()))
    expected = {
        ("d2m_chain_head_block", ()): 107,
        ("d2m_chain_followed_block", ()): 102,
        ("d2m_chain_lag_blocks", ()): 0,
        ("d2m_transactions_total", ("Rounds.tally", "reverted")): 1,
        ("d2m_gas_used_total", ("Rounds.tally",)): 250_000,
        ("d2m_fees_paid_ether_total", ("Rounds.tally",)): 0.003,
        ("d2m_balance_ether", ()): 1.5,
        ("d2m_peers_connected", ()): 1,
        ("d2m_peers_known", ()): 2,
        ("d2m_transfer_bytes_total", ("in", "blobs")): 1 << 20,
        ("d2m_transfer_bytes_total", ("out", "messages")): 0,
        ("d2m_gossip_messages_total", ("flood",)): 1,
        ("d2m_gossip_messages_total", ("reject",)): 0,
        ("d2m_network_restarts_total", ()): 3,
        ("d2m_peer_dials_total", ("failed",)): 5,
        ("d2m_relayed_bytes_total", ()): 6,
        ("d2m_queue_length", ("transactions",)): 2,
        ("d2m_queue_length", ("deliver",)): 9,
        ("d2m_queue_limit", ("publish",)): 256,
        ("d2m_store_blob_quota_bytes", ()): 10,
        ("d2m_role_state", ("cone", "on")): 1,
        ("d2m_role_state", ("cone", "off")): 0,
        ("d2m_role_state", ("buyer", "off")): 1,
        ("d2m_ready", ("chain",)): 1,
        ("d2m_rpc_calls_total", ("node.status", "ok")): 3,
        ("d2m_training_seconds_count", ("done",)): 1,
        ("d2m_event_loop_lag_seconds_count", ()): 1,
    }
    assert {key: samples.get(key) for key in expected} == expected


async def test_what_cannot_be_told_is_left_out_and_not_zero() -> None:
    node = WatchedNode()
    node.chain.balance_wei = None
    node.store.failure = StoreCorrupted("the disk is gone")
    names = {name for name, _ in list_samples(await scrape(node))}
    assert "d2m_balance_ether" not in names
    assert "d2m_disk_free_bytes" not in names
    assert "d2m_chain_head_block" in names


async def test_before_the_parts_are_open_the_process_and_the_checks_are_told() -> None:
    watch = WatchedNode().watch()
    body, _ = watch.exposition.render(await watch.reader.read(), "")
    samples = list_samples(body.decode())
    assert samples["d2m_ready", ("roles",)] == 0
    assert samples["d2m_ready", ("store",)] == 1
    assert samples["process_open_fds", ()] > 0
    assert "d2m_chain_head_block" not in {name for name, _ in samples}


def watched(cast: Cast, *, cone: int = 0) -> WatchedNode:
    """A node of one of the job's CONE nodes."""
    node = WatchedNode(account=cast.cones[cone].signer.address)
    node.chain.state = cast.market.state
    return node


def commits(cast: Cast, indices: list[int]) -> None:
    members = encode_bitmap(indices)
    cast.market.apply(
        CommitsRecorded(
            job=JOB,
            ballot_number=1,
            mini=0,
            batch_index=0,
            members=members,
            commitments=tuple(keccak(bytes([index])) for index in indices),
        )
    )


async def test_votes_are_told_by_what_became_of_them() -> None:
    cast = Cast()
    cast.start()
    commits(cast, [0, 1, 2])
    record_votes(cast, [0])
    record_votes(cast, [1], keccak(b"another result"))
    decide_first_round(cast, DIGEST, appeal_end=50, header=HEADER)
    results = {}
    for index in range(3):
        samples = list_samples(await scrape(watched(cast, cone=index)))
        results[index] = {
            labels[0]: value
            for (name, labels), value in samples.items()
            if name == "d2m_votes_total"
        }
    assert results[0] == {"with_decision": 1, "against_decision": 0, "not_opened": 0}
    assert results[1] == {"with_decision": 0, "against_decision": 1, "not_opened": 0}
    assert results[2] == {"with_decision": 0, "against_decision": 0, "not_opened": 1}


async def test_rounds_money_and_an_open_job_are_told_from_the_chain() -> None:
    cast = Cast()
    cast.start()
    me = cast.cones[0].signer.address
    record_votes(cast, [0, 1])
    decide_first_round(cast, DIGEST, appeal_end=50, header=HEADER)
    cast.market.apply(
        AttemptUndecided(job=JOB, round_index=1, ballot_number=2, unopened=0),
        RoundVoided(job=JOB, round_index=1),
        StakeSlashed(job=JOB, account=me, amount_wei=Wei(5 * 10**17), reason=2),
        PayoutCredited(job=JOB, payee=me, role=1, index=0, weight=1, amount_wei=Wei(25 * 10**17)),
    )
    samples = list_samples(await scrape(watched(cast)))
    expected = {
        ("d2m_rounds_total", ("decided",)): 1,
        ("d2m_rounds_total", ("void",)): 1,
        ("d2m_attempts_undecided_total", ()): 1,
        ("d2m_job_utility", (str(JOB),)): 0.75,
        ("d2m_job_rounds", (str(JOB),)): 1,
        ("d2m_jobs", ("training",)): 1,
        ("d2m_own_jobs", ("training", "cone")): 1,
        ("d2m_slashes_total", ("not_opened",)): 1,
        ("d2m_slashed_ether_total", ()): 0.5,
        ("d2m_claimable_ether", ("payouts",)): 2.5,
        ("d2m_earned_ether_total", ()): 2.5,
    }
    assert {key: samples.get(key) for key in expected} == expected


async def test_a_sellers_deposit_is_told_until_it_is_lost() -> None:
    cast = Cast()
    cast.start()
    node = WatchedNode(account=cast.sellers[0].signer.address)
    node.chain.state = cast.market.state
    samples = list_samples(await scrape(node))
    held = cast.market.state.jobs[JOB].deposits[node.account].amount_wei
    assert samples["d2m_deposits_ether", ()] == held / 10**18
    cast.market.apply(DepositForfeited(job=JOB, seller=node.account, amount_wei=held))
    node.chain.state = cast.market.state
    samples = list_samples(await scrape(node))
    assert samples["d2m_deposits_ether", ()] == 0
    assert samples["d2m_deposits_forfeited_total", ()] == 1


async def test_what_a_datasets_privacy_has_cost_is_told_beside_its_budget() -> None:
    node = WatchedNode()
    await node.spend_epsilon(2.5)
    samples = list_samples(await scrape(node))
    assert samples["d2m_privacy_epsilon", ("ab" * 6,)] == 2.5
    assert samples["d2m_privacy_epsilon_budget", ()] == 8.0


async def test_refusals_are_counted_by_role_and_reason() -> None:
    node = WatchedNode()
    for code in ("min-price", "min-price", "metric"):
        node.store.refusals.add("seller", code)
    samples = list_samples(await scrape(node))
    assert samples["d2m_refusals", ("min-price", "seller")] == 2
    assert samples["d2m_refusals", ("metric", "seller")] == 1


async def test_a_job_of_others_is_no_label() -> None:
    cast = Cast()
    cast.start()
    node = WatchedNode()
    node.chain.state = cast.market.state
    samples = list_samples(await scrape(node))
    assert samples["d2m_jobs", ("training",)] == 1
    assert not any(name.startswith("d2m_job_") for name, _ in samples)


async def test_labels_of_jobs_are_bounded_and_go_with_the_job() -> None:
    cast = Cast()
    cast.start()
    job = cast.market.state.jobs[JOB]
    many = {JobId(n): replace(job, job_id=JobId(n)) for n in range(1, MAX_JOBS + 51)}
    node = watched(cast)
    node.chain.state = replace(cast.market.state, jobs=many)
    labels = {
        label
        for (name, label), _ in list_samples(await scrape(node)).items()
        if name == "d2m_job_rounds"
    }
    assert len(labels) == MAX_JOBS
    assert (str(MAX_JOBS + 50),) in labels, "the newest are told"
    over = {one: replace(job, phase=JobPhase.SETTLED) for one, job in many.items()}
    node.chain.state = replace(cast.market.state, jobs=over, block_number=BlockNumber(9))
    assert not any(name == "d2m_job_rounds" for name, _ in list_samples(await scrape(node)))


async def test_amounts_are_rounded_and_never_truncated_to_nothing() -> None:
    node = WatchedNode()
    node.chain.balance_wei = Wei(10**27 + 1)
    samples = list_samples(await scrape(node))
    assert samples["d2m_balance_ether", ()] == 1e9
    node.chain.balance_wei = Wei(1)
    assert list_samples(await scrape(node))["d2m_balance_ether", ()] == 1e-18
