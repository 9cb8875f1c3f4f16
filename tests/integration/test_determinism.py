"""The bytes that nodes vote on, computed in separate processes that work in different ways.

Source: MECHANISM 16. What each process computes is in ``tests/support/determinism.py``.
"""

import functools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from protocol.consensus import Decided, OpenedVote, decide, tally
from protocol.types import Digest
from tests.support.determinism import RECORD, Variant, describe_kernels

LIMIT_SECONDS = 120
NUMPY_FEATURES = describe_kernels()["numpy"]
FORCING = ("OPENBLAS_", "OMP_", "MKL_", "ONEDNN_", "NPY_", "ATEN_", "PYTHONHASHSEED")


@dataclass(frozen=True, slots=True)
class Process:
    """One way to run a node's work, and what must be seen of it, by the name of a kernel."""

    variant: Variant = field(default_factory=Variant)
    environment: Mapping[str, str] = field(default_factory=dict)
    shows: Mapping[str, object] = field(default_factory=dict)


def vary(**changes: Any) -> Process:
    return Process(Variant(**changes))


def force_blas(core: str) -> Process:
    return Process(environment={"OPENBLAS_CORETYPE": core}, shows={"blas": core})


def force_torch(capability: str, **environment: str) -> Process:
    return Process(
        Variant(evaluator="torch"),
        {"ATEN_CPU_CAPABILITY": capability.lower(), **environment},
        {"torch": capability},
    )


PORTABLE = {
    "one thread": vary(),
    "two BLAS threads": Process(Variant(blas_threads=2), shows={"blas_threads": 2}),
    "four BLAS threads": Process(Variant(blas_threads=4), shows={"blas_threads": 4}),
    "samples by sevens, models in pairs": vary(samples_per_call=7, candidates_per_call=2),
    "sample by sample, model by model": vary(samples_per_call=1, candidates_per_call=1),
    "int64 reference": vary(evaluator="reference"),
    "distances by subtraction": vary(subtracts=True),
    "another order of arrival": vary(reverses_arrival=True),
    "one order of hashes": Process(environment={"PYTHONHASHSEED": "1"}),
    "another order of hashes": Process(environment={"PYTHONHASHSEED": "2"}),
    "torch": vary(evaluator="torch"),
    "torch without oneDNN, four threads": Process(
        Variant(evaluator="torch", torch_threads=4, uses_onednn=False, samples_per_call=64),
        shows={"torch_threads": 4, "onednn": False},
    ),
}
# Kernels are forced by names that x86-64 processors and their libraries know.
KERNEL_SETS = {
    "OpenBLAS for AVX2": force_blas("Haswell"),
    "OpenBLAS for AVX": force_blas("Sandybridge"),
    "OpenBLAS for SSE": force_blas("Nehalem"),
    "torch for AVX2": force_torch("AVX2", ONEDNN_MAX_CPU_ISA="AVX2"),
    "torch without vectors": force_torch("DEFAULT", MKL_CBWR="COMPATIBLE"),
}
WITHOUT_AVX512 = Process(
    environment={"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL"}, shows={"avx512": False}
)
PROCESSES = PORTABLE | KERNEL_SETS | {"numpy without AVX512": WITHOUT_AVX512}


@functools.cache
def run(name: str) -> dict[str, Any]:
    process = PROCESSES[name]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(FORCING)}
    finished = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "tests.support.determinism"),
            msgspec.json.encode(process.variant).decode(),
        ],
        env=inherited | dict(process.environment),
        capture_output=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr.decode()
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def assert_recorded(name: str) -> None:
    """The process did work as it should, and its digests are the recorded ones."""
    found = run(name)
    shown = {kernel: found["kernels"][kernel] for kernel in PROCESSES[name].shows}
    assert shown == PROCESSES[name].shows
    assert found["digests"] == json.loads(RECORD.read_text())


on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="forces x86-64 kernels")


def needs(feature: str) -> pytest.MarkDecorator:
    missing = feature not in NUMPY_FEATURES
    return pytest.mark.skipif(missing, reason=f"the processor has no {feature}")


@pytest.mark.parametrize("name", PORTABLE)
def test_every_way_to_work_gives_the_recorded_bytes(name: str) -> None:
    assert_recorded(name)


@on_x86
@needs("AVX2")
@pytest.mark.parametrize("name", KERNEL_SETS)
def test_every_kernel_set_gives_the_recorded_bytes(name: str) -> None:
    assert_recorded(name)


@on_x86
@needs("AVX512_SKX")
def test_numpy_without_avx512_gives_the_recorded_bytes() -> None:
    assert_recorded("numpy without AVX512")


def test_nodes_that_work_in_different_ways_decide_together() -> None:
    votes = [
        OpenedVote(
            node_index=index,
            mini_round_index=0,
            digest=Digest(bytes.fromhex(run(name)["digests"]["round 0: digest"])),
            trace=Digest(bytes.fromhex(run(name)["digests"]["round 0: trace"])),
        )
        for index, name in enumerate(PORTABLE)
    ]
    count = len(votes)
    decision = decide(tally(votes), lead=count, pool_size=2 * count, set_size=count)
    assert decision == Decided(votes[0].digest, count)


# --- that the comparison would notice -----------------------------------------------------------


def test_a_float_mean_depends_on_the_order_of_arrival() -> None:
    one, other = run("one thread"), run("another order of arrival")
    assert one["floats"]["float32 mean"] != other["floats"]["float32 mean"]


@on_x86
@needs("AVX2")
def test_float_products_depend_on_the_kernels_that_were_forced() -> None:
    with_fused_adds, without = run("OpenBLAS for AVX2"), run("OpenBLAS for SSE")
    assert with_fused_adds["floats"]["float64 product"] != without["floats"]["float64 product"]


def test_processes_have_other_orders_of_hashes() -> None:
    one, other = run("one order of hashes"), run("another order of hashes")
    assert one["kernels"]["hash"] != other["kernels"]["hash"]
