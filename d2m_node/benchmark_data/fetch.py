"""The benchmark data from their public homes, checked before they are put in their place.

A download that was interrupted goes on where it stopped. What is on its way has a name of its own,
so that a file of the right name is always whole.
"""

import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import httpx

from d2m_node.benchmark_data.files import DataFile, Download
from d2m_node.benchmark_data.verify import find_flaw
from d2m_node.errors import UserError

TIMEOUT: Final = httpx.Timeout(30.0)
PART_SUFFIX: Final = ".part"
MAX_MEMBERS: Final = 64
_XZ_PRESET: Final = 1

OnBytes = Callable[[int], None]
"""Called with the bytes of a download that are here, from time to time."""


class DownloadFailed(UserError):
    """A file could not be had; the message names its home and the reason."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of one file."""

    file: DataFile
    state: str
    """`HERE` if it was there before, `FETCHED`, or what went wrong."""

    @property
    def is_good(self) -> bool:
        """Whether the file is in its place now."""
        return self.state in (HERE, FETCHED)


HERE: Final = "here"
FETCHED: Final = "fetched"


def fetch_files(
    files: Sequence[DataFile],
    folder: Path,
    *,
    on_start: Callable[[Download], OnBytes],
    on_done: Callable[[Fetched], None],
) -> None:
    """Bring files into a folder; those that are there and right are left alone.

    One download may bring several files. A failure is told for each of them, and the rest goes on.

    Raises UserError if the folder cannot be written.
    """
    missing: dict[Download, list[DataFile]] = {}
    for file in files:
        if find_flaw(file, folder) is None:
            on_done(Fetched(file, HERE))
        else:
            missing.setdefault(file.download, []).append(file)
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client:
        for download, wanted in missing.items():
            place = (folder / wanted[0].path).parent
            try:
                place.mkdir(parents=True, exist_ok=True)
                whole = _bring(client, download, place, on_start(download))
                _put_in_place(whole, wanted, folder)
                state = FETCHED
            except DownloadFailed as exc:
                state = str(exc)
            except OSError as exc:
                raise UserError(f"{place}: cannot be written: {exc.strerror}") from exc
            for file in wanted:
                on_done(Fetched(file, state))


def _bring(client: httpx.Client, download: Download, place: Path, on_bytes: OnBytes) -> Path:
    """Download a file under its interim name, from the first home that has it."""
    part = place / (download.name + PART_SUFFIX)
    reasons = []
    for home in download.homes:
        try:
            _receive(client, home, download, part, on_bytes)
            return part
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            reasons.append(f"{home}: {str(exc) or type(exc).__name__}")
        except DownloadFailed as exc:
            reasons.append(f"{home}: {exc}")
    raise DownloadFailed("; ".join(reasons))


def _receive(
    client: httpx.Client, home: str, download: Download, part: Path, on_bytes: OnBytes
) -> None:
    """Append to what is here until all is; raises DownloadFailed, or an error of httpx.

    What turns out wrong is removed: the next try starts from nothing.
    """
    here = part.stat().st_size if part.exists() else 0
    if here < download.size_bytes:
        headers = {"Accept-Encoding": "identity"}
        if here:
            headers["Range"] = f"bytes={here}-"
        with client.stream("GET", home, headers=headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()
                raise DownloadFailed("it ends before what is here; the next try begins anew")
            response.raise_for_status()
            is_continued = response.status_code == httpx.codes.PARTIAL_CONTENT
            if is_continued and not _starts_at(response, here):
                raise DownloadFailed("it sent another part than was asked for")
            with part.open("ab" if is_continued else "wb") as file:
                _copy(response, file, download, on_bytes)
    on_bytes(part.stat().st_size)
    if part.stat().st_size < download.size_bytes:
        raise DownloadFailed(f"it ended after {part.stat().st_size} of {download.size_bytes} bytes")
    if part.stat().st_size > download.size_bytes or _hash_file(part) != download.sha256:
        part.unlink()
        raise DownloadFailed("it is not the published file: size or checksum differ")


def _starts_at(response: httpx.Response, position: int) -> bool:
    sent: str = response.headers.get("Content-Range", "")
    return sent.startswith(f"bytes {position}-")


def _copy(response: httpx.Response, file: IO[bytes], download: Download, on_bytes: OnBytes) -> None:
    """Write what comes, as it comes, and little more than there should be."""
    for chunk in response.iter_raw():
        file.write(chunk)
        on_bytes(file.tell())
        if file.tell() > download.size_bytes:
            return


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put_in_place(whole: Path, wanted: Sequence[DataFile], folder: Path) -> None:
    """Turn a checked download into the files it holds. Raises DownloadFailed."""
    if wanted[0].member is None:
        _rename(whole, folder / wanted[0].path)
        return
    members = {file.member: file for file in wanted}
    try:
        with tarfile.open(whole, mode="r:gz") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS or not members:
                    break
                file = members.get(member.name.rpartition("/")[2])
                stream = archive.extractfile(member) if file and member.isreg() else None
                if file is not None and stream is not None:
                    _pack(stream.read(file.size_bytes + 1), file, folder / file.path)
                    members.pop(file.member)
    except (tarfile.TarError, zlib.error, EOFError) as exc:
        raise DownloadFailed(f"{whole.name}: damaged archive: {exc}") from exc
    if members:
        raise DownloadFailed(f"the archive lacks {', '.join(str(name) for name in members)}")
    whole.unlink()


def _pack(content: bytes, file: DataFile, path: Path) -> None:
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DownloadFailed(f"{file.member} of the archive has another checksum")
    interim = path.with_name(path.name + PART_SUFFIX)
    interim.write_bytes(lzma.compress(content, preset=_XZ_PRESET))
    _rename(interim, path)


def _rename(interim: Path, path: Path) -> None:
    """Give a whole file its name, once its bytes are on the disk."""
    with interim.open("rb") as file:
        os.fsync(file.fileno())
    interim.replace(path)
