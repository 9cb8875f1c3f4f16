"""Which files the benchmark data sets consist of: sizes, checksums, and their public homes.

They are named as `configs/datasets/` names them. A home may be any mirror: the checksum decides.
CIFAR-10 is published as one archive. Its batches are kept one by one and packed by xz, which has
many forms of one content; so their checksums are of what they unpack to.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One file as it is published."""

    name: str
    """Of the file while it is on its way."""
    homes: tuple[str, ...]
    """Addresses, in the order in which they are asked."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file of a data set, as it lies in a folder."""

    dataset: str
    path: str
    """Below the folder."""
    size_bytes: int
    """Of the content that ``sha256`` is of."""
    sha256: str
    download: Download
    member: str | None = None
    """Name in the archive that is downloaded; the file is then packed by xz."""

    @property
    def is_packed(self) -> bool:
        """Whether size and checksum are of what the file unpacks to."""
        return self.member is not None


_MNIST_HOMES: Final = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_FASHION_HOMES: Final = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
_CIFAR_BATCH_BYTES: Final = 30_730_000


def _idx(dataset: str, homes: tuple[str, ...], name: str, size: int, sha256: str) -> DataFile:
    return DataFile(
        dataset=dataset,
        path=f"{dataset}/{name}",
        size_bytes=size,
        sha256=sha256,
        download=Download(
            name=name,
            homes=tuple(home + name for home in homes),
            size_bytes=size,
            sha256=sha256,
        ),
    )


MNIST: Final = tuple(
    _idx("mnist", _MNIST_HOMES, *row)
    for row in (
        (
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    )
)

FASHION_MNIST: Final = tuple(
    _idx("fashion-mnist", _FASHION_HOMES, *row)
    for row in (
        (
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    )
)

CIFAR_10_ARCHIVE: Final = Download(
    name="cifar-10-binary.tar.gz",
    homes=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    size_bytes=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)

CIFAR_10: Final = tuple(
    DataFile(
        dataset="cifar-10",
        path=f"cifar-10/{member}.xz",
        size_bytes=_CIFAR_BATCH_BYTES,
        sha256=sha256,
        download=CIFAR_10_ARCHIVE,
        member=member,
    )
    for member, sha256 in (
        (
            "data_batch_1.bin",
            "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        ),
        (
            "data_batch_2.bin",
            "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        ),
        (
            "data_batch_3.bin",
            "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        ),
        (
            "data_batch_4.bin",
            "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        ),
        (
            "data_batch_5.bin",
            "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        ),
        (
            "test_batch.bin",
            "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        ),
    )
)

DATASETS: Final = {
    "mnist": MNIST,
    "fashion-mnist": FASHION_MNIST,
    "cifar-10": CIFAR_10,
}
