"""The benchmark of a real mesh counts what arrived, and what it took."""

from tests.bench.bench_mesh import gossip


def test_all_hosts_of_a_small_mesh_hear_all_messages() -> None:
    outcome = gossip(hosts=6, rate=20.0)
    assert len(outcome.delays) == outcome.expected == 40 * 5
    assert outcome.delays[0] > 0.0
    assert outcome.cpu_seconds > 0.0
    assert outcome.describe().startswith("6 hosts: 200 of 200 deliveries, p50 ")
