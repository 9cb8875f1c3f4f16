"""A soak run calls growth what grows, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak.samples import LIMITS, Sample, compute_slope, compute_trends, take_sample, write_csv
from tests.support.sizes import measure_bytes

SAMPLE = Sample(
    seconds=0.0,
    jobs=0,
    node="cone-1",
    life=1,
    rss_bytes=150_000_000,
    child_rss_bytes=0,
    fds=40,
    threads=8,
    disk_bytes=0,
    database_bytes=0,
    blob_bytes=0,
    log_bytes=0,
)


def run(
    jobs: int, *, rss_per_job: float = 0, fds_per_job: float = 0, blobs_per_job: int = 0
) -> list[Sample]:
    """Three samples a job, the second one in the midst of the work."""
    return [
        replace(
            SAMPLE,
            jobs=job,
            rss_bytes=SAMPLE.rss_bytes + int(rss_per_job * job) + (place == 1) * 30_000_000,
            fds=SAMPLE.fds + int(fds_per_job * job) + (place == 1) * 6,
            blob_bytes=blobs_per_job * job,
        )
        for job in range(jobs)
        for place in range(3)
    ]


def verdicts(samples: list[Sample]) -> dict[str, bool | None]:
    return {trend.name: trend.is_flat for trend in compute_trends(samples)}


def test_what_every_job_takes_for_a_while_is_no_growth() -> None:
    found = verdicts(run(20))
    assert found == dict.fromkeys(found, None) | dict.fromkeys(LIMITS, True)


@pytest.mark.parametrize(
    ("name", "growth"),
    [
        ("rss_bytes", {"rss_per_job": 400_000}),
        ("fds", {"fds_per_job": 0.5}),
        ("blob_bytes", {"blobs_per_job": 60_000}),
    ],
)
def test_a_leak_is_found(name: str, growth: dict[str, float]) -> None:
    found = verdicts(run(20, **growth))
    assert found[name] is False


def test_one_jump_is_no_growth() -> None:
    samples = run(20)
    jumped = [
        replace(one, rss_bytes=one.rss_bytes + 5_000_000 * (one.jobs > 15)) for one in samples
    ]
    assert verdicts(jumped)["rss_bytes"] is True


def test_a_restarted_node_is_judged_by_each_of_its_lives() -> None:
    first = run(20)
    second = [replace(one, life=2, rss_bytes=2 * one.rss_bytes) for one in run(3)]
    assert {trend.life for trend in compute_trends(first + second)} == {1}


def test_the_slope_is_the_median_of_all_pairs() -> None:
    assert compute_slope([(0, 0.0), (1, 2.0), (2, 4.0), (3, 6.0), (4, 100.0)]) == 2.0
    assert compute_slope([(5, 1.0)]) == 0.0


def test_this_process_can_be_sampled(tmp_path: Path) -> None:
    import os

    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "one").write_bytes(bytes(1000))
    (tmp_path / "store.sqlite").write_bytes(bytes(50))
    sample = take_sample(os.getpid(), tmp_path, seconds=1.0, jobs=2, node="cone-1", life=1)
    assert sample is not None
    assert sample.rss_bytes > 0
    assert (sample.blob_bytes, sample.database_bytes, sample.disk_bytes) == (1000, 50, 1050)
    write_csv(tmp_path / "samples.csv", [sample])
    write_csv(tmp_path / "samples.csv", [sample])
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == 3
    assert take_sample(2**22 + 1, tmp_path, seconds=1.0, jobs=2, node="x", life=1) is None


def test_bytes_are_counted_once_and_without_classes() -> None:
    shared = bytes(1000)
    assert 1000 < measure_bytes((shared, shared)) < 1300
    assert measure_bytes(SAMPLE) < 2000
