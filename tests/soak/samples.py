"""What a node's processes take, and whether it grows."""

import csv
import statistics
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil

WARM_UP_SHARE: Final = 0.25
"""The first quarter of a life is left out: pools fill, modules load, pages are touched."""
FEWEST_JOBS: Final = 10
"""A life that saw fewer jobs after its warm-up is not judged: it has hardly settled by then."""

LIMITS: Final = MappingProxyType(
    {
        "rss_bytes": 160 * 1024.0,
        "fds": 0.05,
        "threads": 0.05,
        "blob_bytes": 6 * 1024.0,
    }
)
"""Flat is what grows by at most so much per job: of memory what the first fifty jobs or so add to
the events that are kept for subscribers, about 80 KiB a job, and what an allocator keeps of jobs
that have left the state; of descriptors and threads one in twenty jobs; of blobs a tenth of what a
job brings, because those of all but a few jobs are to be gone. The database is told only: its
write-ahead log first fills, and of each job some records stay, as docs/OPERATIONS.md says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One node at one moment."""

    seconds: float
    jobs: int
    """Jobs that were over by then."""
    node: str
    life: int
    """Counts the starts of the node."""
    rss_bytes: int
    """Of the node, without the process that trains for it."""
    child_rss_bytes: int
    fds: int
    threads: int
    disk_bytes: int
    database_bytes: int
    blob_bytes: int
    log_bytes: int


def take_sample(
    pid: int, folder: Path, *, seconds: float, jobs: int, node: str, life: int
) -> Sample | None:
    """Look at a node; None if it is gone just now."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        with process.oneshot():
            rss, threads, fds = process.memory_info().rss, process.num_threads(), process.num_fds()
        children = sum(child.memory_info().rss for child in process.children(recursive=True))
        files = [(path, _size(path)) for path in folder.rglob("*") if path.is_file()]
        return Sample(
            seconds=round(seconds, 1),
            jobs=jobs,
            node=node,
            life=life,
            rss_bytes=rss,
            child_rss_bytes=children,
            fds=fds,
            threads=threads,
            disk_bytes=sum(size for _, size in files),
            database_bytes=sum(s for path, s in files if path.name.startswith("store.sqlite")),
            blob_bytes=sum(s for path, s in files if "blobs" in path.parts),
            log_bytes=sum(s for path, s in files if ".log" in path.name),
        )
    return None


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def write_csv(path: Path, samples: Iterable[Sample]) -> None:
    """Append samples; the first line names the columns."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Sample)])
        if is_new:
            writer.writeheader()
        writer.writerows(asdict(sample) for sample in samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How one number of one life of a node went with the jobs."""

    node: str
    life: int
    name: str
    per_job: float
    """Theil-Sen slope: the median of the slopes between all pairs of samples."""
    first: float
    last: float
    jobs: int
    is_flat: bool | None
    """None where growth is by design, and only told."""


def compute_trends(samples: Sequence[Sample]) -> list[Trend]:
    """Judge every life of every node that saw enough jobs."""
    lives: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        lives.setdefault((sample.node, sample.life), []).append(sample)
    trends = []
    for (node, life), taken in lives.items():
        warm = taken[int(len(taken) * WARM_UP_SHARE) :]
        jobs = warm[-1].jobs - warm[0].jobs
        if jobs < FEWEST_JOBS:
            continue
        for name in ("rss_bytes", "fds", "threads", "database_bytes", "blob_bytes", "log_bytes"):
            # One point per job, the median of its samples: what a job takes for a while is no leak.
            points = _by_job(warm, name)
            slope = compute_slope(points)
            limit = LIMITS.get(name)
            trends.append(
                Trend(
                    node=node,
                    life=life,
                    name=name,
                    per_job=round(slope, 3),
                    first=points[0][1],
                    last=points[-1][1],
                    jobs=jobs,
                    is_flat=None if limit is None else slope <= limit,
                )
            )
    return trends


def _by_job(samples: Sequence[Sample], name: str) -> list[tuple[int, float]]:
    by_job: dict[int, list[float]] = {}
    for sample in samples:
        by_job.setdefault(sample.jobs, []).append(getattr(sample, name))
    return [(jobs, statistics.median(values)) for jobs, values in sorted(by_job.items())]


def compute_slope(points: Sequence[tuple[int, float]]) -> float:
    """Return the Theil-Sen slope of points with different abscissas; zero of a single one."""
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(points)
        for later in points[number + 1 :]
    ]
    return statistics.median(slopes) if slopes else 0.0
