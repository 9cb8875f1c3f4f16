"""How fast a blob goes from node to node, beside TLS 1.3 and bare TCP over the same loopback.

Each way has two processes, which stay connected. They take turns, blob by blob, so that what else
the machine does slows all of them. Ours always checks the hash of what arrives; so there is also
TLS whose taker does the same with the same function.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import IO, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protocol.hashing import keccak
from tests.bench.rows import Plan, Row, Timing

MEGABYTE = 10**6
SIZES = (1, 10, 100)
"""In megabytes."""
SMALL_REPETITIONS = 5
"""Times as many for the smallest blob, which is there in milliseconds."""

WAYS = {
    "d2m": ("d2m", False),
    "TLS 1.3": ("tls", False),
    "TLS, hashed": ("tls", True),
    "TCP": ("tcp", False),
}
"""Name of a contender: how its bytes travel, and whether its taker is told to hash them."""


@dataclass(slots=True)
class Sample:
    """What one contender took for blobs of one size."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: dict[str, list[float]] = field(default_factory=lambda: {"give": [], "take": []})
    peak_bytes: dict[str, int] = field(default_factory=lambda: {"give": 0, "take": 0})


class Side:
    """A process that gives or takes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders: IO[str] = process.stdin
        self._answers: IO[str] = process.stdout

    def answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise ChildProcessError("one side of the benchmark has ended")
        return dict(json.loads(line))

    def ask(self, **order: object) -> dict[str, Any]:
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        return self.answer()


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides of one way."""

    give: Side
    take: Side

    def transfer(self, name: str, sample: Sample, *, stores: bool, checks: bool) -> None:
        """Move a blob and note what it took."""
        before = {"give": self.give.ask(), "take": self.take.ask()}
        taken = self.take.ask(take=name, stores=stores, checks=checks)
        after = {"give": self.give.ask(), "take": self.take.ask()}
        sample.seconds.append(taken["seconds"])
        for side in ("give", "take"):
            cpu = after[side]["cpu_seconds"] - before[side]["cpu_seconds"]
            sample.cpu_seconds[side].append(cpu)
            grown = after[side]["peak_bytes"] - before[side]["resident_bytes"]
            sample.peak_bytes[side] = max(sample.peak_bytes[side], grown)


def run(plan: Plan) -> list[Row]:
    """Move blobs from memory to memory, then from disk to disk."""
    sizes = [one for one in SIZES if plan.max_values is None or one * MEGABYTE <= plan.max_values]
    with tempfile.TemporaryDirectory(prefix="d2m-bulk-") as name:
        folder = Path(name)
        write_blobs(folder, sizes)
        write_certificate(folder)
        rows = []
        for stores in (False, True):
            with open_pairs(folder, keeps=not stores) as pairs:
                for size in sizes:
                    samples = measure(pairs, size, plan.repetitions, stores=stores)
                    rows.append(describe(size, samples, stores=stores))
        return rows


def measure(
    pairs: Mapping[str, Pair], size: int, repetitions: int, *, stores: bool
) -> dict[str, Sample]:
    """Let the contenders take turns, after one turn unmeasured."""
    if size == min(SIZES):
        repetitions *= SMALL_REPETITIONS
    samples = {}
    for repetition in range(repetitions + 1):
        if repetition <= 1:
            samples = {name: Sample() for name in WAYS}
        for name, (way, checks) in WAYS.items():
            # Two blobs in turn: the one that is in memory is not the next one.
            blob = f"{size}-{repetition % 2 if stores else 0}"
            pairs[way].transfer(blob, samples[name], stores=stores, checks=checks)
    return samples


def describe(size: int, samples: Mapping[str, Sample], *, stores: bool) -> Row:
    """Say what it came to beside the seconds: rates, processor time and memory of both sides."""
    ours, *others = (Timing(name, tuple(one.seconds)) for name, one in samples.items())
    notes = []
    for timing, sample in zip((ours, *others), samples.values(), strict=True):
        cpu = (1000 * median(sample.cpu_seconds[side]) / size for side in ("give", "take"))
        grown = (sample.peak_bytes[side] / MEGABYTE for side in ("give", "take"))
        notes.append(
            f"{timing.name}: {size / timing.median:.0f} MB/s,"
            f" CPU {' + '.join(f'{one:.1f}' for one in cpu)} ms/MB,"
            f" memory +{' +'.join(f'{one:.0f}' for one in grown)} MB"
        )
    way = "disk to disk" if stores else "memory to memory"
    return Row(case="\n".join([f"{size} MB, {way}", *notes]), ours=ours, others=tuple(others))


@contextmanager
def open_pairs(folder: Path, *, keeps: bool) -> Iterator[dict[str, Pair]]:
    """Start both sides of every way; they end with the context."""
    with ExitStack() as stack:
        pairs = {}
        for way in dict.fromkeys(way for way, _ in WAYS.values()):
            keeping = ["--keeps"] if keeps else []
            giver = stack.enter_context(open_side("give", way, str(folder), *keeping))
            at = str(giver.answer()["at"])
            taker = stack.enter_context(open_side("take", way, str(folder), "--at", at, *keeping))
            taker.answer()
            pairs[way] = Pair(giver, taker)
        yield pairs


@contextmanager
def open_side(*arguments: str) -> Iterator[Side]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bulk_side", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Side(process)
    finally:
        process.kill()
        process.communicate()


def write_blobs(folder: Path, sizes: list[int]) -> None:
    """Write two blobs of each size that cannot be compressed, and their digests."""
    digests = {}
    for size in sizes:
        for number in range(2):
            data = os.urandom(size * MEGABYTE)
            (folder / f"{size}-{number}.blob").write_bytes(data)
            digests[f"{size}-{number}"] = keccak(data).hex()
    (folder / "digests.json").write_text(json.dumps(digests))


def write_certificate(folder: Path) -> None:
    """Write a key and a certificate that it signed for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
