"""Whatever a file holds, reading it gives a value, or one line that says what is wrong with it.

The tests that are marked `slow` are the others with twenty times as many examples.
"""

import gzip
import io
import lzma
import struct
import tarfile
import tomllib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from d2m_node.errors import UserError
from d2m_node.model_file import encode_model_file, read_parameters
from d2m_node.request_file import parse_request, read_request
from d2m_node.settings import CONFIG_NAME, SETTINGS, read_configuration
from d2m_node.training.dataset_file import LabelColumn, ParquetFile, read_dataset_file
from d2m_node.training.datasets import load_samples
from d2m_node.training.parquet import parse_parquet
from d2m_node.user_input import read_toml
from protocol.errors import InvalidMessage, InvalidParams
from protocol.hashing import Domain, keccak
from protocol.model import initial_parameters, mlp
from protocol.request import decode_body
from protocol.types import Address, JobId
from protocol.update import TensorKind, decode_tensor, encode_tensor
from protocol.validation_set import decode_part, encode_part, select_part
from tests.support.job import BODY
from tests.support.momentum import MOMENTUM_BODY
from tests.support.mutations import ODD_TEXT, damaged_bytes, dump_toml, mutated_tables

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CONFIG = {
    "device": "cpu",
    "shutdown_grace_seconds": 3.5,
    "chain": {
        "chain_id": 31337,
        "market": "0x" + "5f" * 20,
        "rpc_urls": ["http://127.0.0.1:8545"],
        "poll_seconds": 0.5,
        "sending": {"max_fee_wei": "500gwei"},
    },
    "network": {"bootstrap": ["/ip4/127.0.0.1/tcp/1/p2p/a"], "announce": "/ip4/1.2.3.4/tcp/1"},
    "rpc": {"tcp": "127.0.0.1:9394", "token_days": 3},
    "logs": {"level": "info", "file": "node.log"},
    "roles": {
        "seller": {
            "dataset": "digits.toml",
            "min_price_wei": "1ether",
            "privacy": {"epsilon_budget": 8.0, "epsilon_per_job": 1, "delta": 1e-6},
        },
        "cone": {"enabled": True, "stake_wei": "5ether"},
    },
}
REQUESTS = [read_toml(path) for path in sorted((CONFIGS / "requests").glob("*.toml"))]
DATASETS = [
    tomllib.loads(path.read_text()) for path in sorted((CONFIGS / "datasets").glob("*.toml"))
] + [
    {
        "format": "csv",
        "tags": ["x"],
        "path": "data",
        "label": {"column": "kind", "classes": ["no", "yes"]},
        "features": [{"column": "a", "offset": 1.5, "divisor": 2}],
        "split": {"part": "train", "held_out_count": 1, "seed": 1},
        "partition": {"alpha_milli": 500, "parts": 2, "index": 0, "seed": 1},
    }
]


def both(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a property with so many examples, and marked `slow` with twenty times as many."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize(
            "times", [1, pytest.param(20, marks=pytest.mark.slow)], ids=["quick", "long"]
        )
        def run(times: int, tmp_path: Path) -> None:
            settings(
                max_examples=times * examples,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            )(given(st.data())(lambda data: test(tmp_path, data)))()

        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return decorate


def check(read: Callable[[], object], *names: str) -> None:
    """Read; what is raised must be one UserError of one line that holds one of the names."""
    try:
        read()
    except UserError as error:
        message = str(error)
        assert message
        assert message.isprintable()
        assert any(name in message for name in names), message


def draw_table(data: st.DataObject, tables: Iterable[dict]) -> str:
    table = data.draw(st.sampled_from(list(tables)))
    return dump_toml(data.draw(mutated_tables(table)))


# --- files that people write ---------------------------------------------------------------------


@both(150)
def test_a_configuration_of_any_structure_is_read_or_one_line(
    folder: Path, data: st.DataObject
) -> None:
    (folder / CONFIG_NAME).write_text(draw_table(data, [CONFIG]))
    names = [CONFIG_NAME, *SETTINGS]
    check(lambda: read_configuration(folder, environment={}).build(), *names)


@both(60)
def test_flags_and_variables_of_any_text_are_read_or_one_line(
    folder: Path, data: st.DataObject
) -> None:
    (folder / CONFIG_NAME).write_text(dump_toml(CONFIG))
    name, other = data.draw(st.lists(st.sampled_from(list(SETTINGS)), min_size=2, max_size=2))
    flags = {name: data.draw(ODD_TEXT)}
    environment = {"D2M_" + other.replace(".", "_").upper(): data.draw(ODD_TEXT)}
    check(
        lambda: read_configuration(folder, flags=flags, environment=environment).build(),
        *SETTINGS,
        *environment,
    )


@both(120)
def test_a_request_of_any_structure_is_read_or_one_line(folder: Path, data: st.DataObject) -> None:
    path = folder / "request.toml"
    path.write_text(draw_table(data, REQUESTS))
    check(lambda: read_request(path), str(path))


@both(60)
def test_a_request_from_the_rpc_is_read_or_one_line(folder: Path, data: st.DataObject) -> None:
    """JSON has no decimals, and no TOML has come before."""
    table = data.draw(mutated_tables(data.draw(st.sampled_from(REQUESTS))))
    check(lambda: parse_request(table, folder), "")


@both(120)
def test_a_dataset_file_of_any_structure_is_read_or_one_line(
    folder: Path, data: st.DataObject
) -> None:
    path = folder / "dataset.toml"
    path.write_text(draw_table(data, DATASETS))
    check(lambda: read_dataset_file(path), str(path))


@both(100)
def test_any_bytes_are_a_file_or_one_line(folder: Path, data: st.DataObject) -> None:
    valid = [dump_toml(CONFIG), dump_toml(REQUESTS[0]), dump_toml(DATASETS[-1])]
    content = data.draw(
        st.one_of(
            st.binary(max_size=200), st.sampled_from(valid).map(str.encode).flatmap(damaged_bytes)
        )
    )
    path = folder / CONFIG_NAME
    path.write_bytes(content)
    check(lambda: read_configuration(folder, environment={}).build(), CONFIG_NAME, *SETTINGS)
    check(lambda: read_request(path), str(path))
    check(lambda: read_dataset_file(path), str(path))


# --- files of data --------------------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def tar_bytes(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number in range(1, 6):
            member = tarfile.TarInfo(f"data_batch_{number}.bin")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def npz_bytes() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, inputs=np.zeros((3, 2), np.uint8), labels=np.arange(3))
    return stream.getvalue()


IDX = idx_bytes(np.arange(24).reshape(3, 2, 4))
CIFAR = tar_bytes(bytes(3073))
TABLE = b'"kind",a,b\nyes,1.5,"2"\r\nno,-3,4e5\n\nno,0,0\n'
FILES = {
    "idx": ('inputs_path = "data"\nlabels_path = "labels"', [IDX]),
    "cifar-10": ('paths = ["data"]', [CIFAR, bytes(3073)]),
    "npz": ('path = "data"', [npz_bytes()]),
    "csv": ('path = "data"\nlabel = { column = "kind", classes = ["no", "yes"] }', [TABLE]),
}


@both(120)
def test_a_damaged_data_file_is_read_or_one_line(folder: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(FILES)))
    tables, contents = FILES[kind]
    content = data.draw(damaged_bytes(data.draw(st.sampled_from(contents))))
    packed = data.draw(st.sampled_from([bytes, gzip.compress, lzma.compress]))(content)
    if data.draw(st.booleans()):
        packed = data.draw(damaged_bytes(packed))
    (folder / "data").write_bytes(packed)
    (folder / "labels").write_bytes(idx_bytes(np.arange(3)))
    path = folder / "dataset.toml"
    path.write_text(f'format = "{kind}"\ntags = ["x"]\n{tables}\n')
    check(lambda: load_samples(path), str(folder))


@both(60)
def test_a_damaged_parquet_file_is_read_or_one_line(folder: Path, data: st.DataObject) -> None:
    described = ParquetFile(tags=["x"], path="t", label=LabelColumn(column="kind"))
    stream = io.BytesIO()
    compression = data.draw(st.sampled_from(["none", "snappy", "zstd"]))
    table = pa.table({"a": [1.5, 2.5, 3.5], "kind": [0, 1, 2]})
    pq.write_table(table, stream, compression=compression)
    path = folder / "t.parquet"
    path.write_bytes(data.draw(damaged_bytes(stream.getvalue())))
    check(lambda: parse_parquet(path, described), str(path))


# --- what comes from the network ------------------------------------------------------------------

MODEL = mlp((4,), 2, hidden=3)
PARAMETERS = initial_parameters(MODEL, keccak(b"start"))
MODEL_FILE = encode_model_file(
    PARAMETERS, domain=Domain(1, Address(b"\x01" * 20)), job=JobId(1), model=MODEL
)
TENSOR = encode_tensor(TensorKind.PARAMETERS, PARAMETERS)
SCHEDULED_BODY = msgspec.structs.replace(
    MOMENTUM_BODY,
    training=msgspec.structs.replace(BODY.training, rate_decay_ppm=950_000),
)
PART = encode_part(select_part(np.zeros((5, 4), np.uint8), [0, 1, 0, 1, 0], [1, 3]))


@both(150)
def test_a_damaged_model_file_is_refused_in_one_line(folder: Path, data: st.DataObject) -> None:
    damaged = data.draw(damaged_bytes(MODEL_FILE))
    check(lambda: read_parameters(damaged), "")


@both(150)
def test_damaged_tensors_parts_and_requests_are_decoded_or_refused(
    folder: Path, data: st.DataObject
) -> None:
    from protocol.request import encode_body

    decoders: list[tuple[bytes, Callable[[bytes], object]]] = [
        (TENSOR, lambda one: decode_tensor(one, TensorKind.PARAMETERS, len(PARAMETERS))),
        (PART, decode_part),
        (encode_body(BODY), decode_body),
        (encode_body(SCHEDULED_BODY), decode_body),
    ]
    valid, decode = data.draw(st.sampled_from(decoders))
    damaged = data.draw(damaged_bytes(valid))
    with suppress(InvalidMessage, InvalidParams):
        decode(damaged)
