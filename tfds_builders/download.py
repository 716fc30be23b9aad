"""Files from the web: resumable, with progress, checked against what came the first time."""

import contextlib
import hashlib
import http.client
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import tqdm
from etils import epath

from ncl_jax.errors import InputError
from ncl_jax.files import remove_drafts, replaced
from ncl_jax.video import decode

# Of the folder that the files go to; columns as in TFDS: url, bytes, SHA-256, file name.
CHECKSUMS = "checksums.tsv"
_BLOCK = 1 << 20
_ATTEMPTS = 5
_SILENCE = 60.0  # seconds without a byte before a connection counts as lost


class DownloadError(InputError):
    """A file that could not be fetched or is another one than before; one line."""


def fetch(url: str, folder: epath.Path, pause: float = 2.0) -> epath.Path:
    """Fetches a file to `folder`, going on where an earlier attempt stopped.

    The size and SHA-256 of the first complete download are kept in `folder/checksums.tsv`; a
    later one has to agree. A file that is there and recorded is not fetched again.

    Args:
      url: http or https.
      folder: where it goes, under the last part of its address.
      pause: seconds before the second attempt, doubled for each further one.

    Raises:
      DownloadError: the server does not give it, or gives another file than the first time.
    """
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url}: expected an address that begins with https:// or http://")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / url.rpartition("/")[2]
    record = _records(folder).get(url)
    if path.exists() and record and record[0] == path.stat().length:
        return path
    part = path.with_name(path.name + ".part")
    for attempt in range(_ATTEMPTS):
        try:
            _receive(url, part)
            break
        except urllib.error.HTTPError as error:
            with error:  # it holds the connection
                raise DownloadError(f"{url}: expected the file, got HTTP {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == _ATTEMPTS - 1:
                raise DownloadError(
                    f"{url}: expected the file, got {error} ({_ATTEMPTS} times); "
                    "run the same command again to resume"
                ) from error
            time.sleep(pause * 2**attempt)
    size, digest = part.stat().length, _digest(part)
    _validator(part).unlink(missing_ok=True)
    if record and record != (size, digest):
        part.unlink()
        raise DownloadError(
            f"{url}: expected {record[0]:,} bytes with SHA-256 {record[1]} as in the first "
            f"download, got {size:,} with {digest}; if the new file is correct, remove its line "
            f"from {folder / CHECKSUMS}"
        )
    if not record:
        with open(os.fspath(folder / CHECKSUMS), "a") as file:
            file.write(f"{url}\t{size}\t{digest}\t{path.name}\n")
    part.rename(path)
    return path


def _receive(url: str, part: epath.Path) -> None:
    """Appends what is missing; starts anew where the server has another file or cannot resume."""
    done = part.stat().length if part.exists() else 0
    headers = {}
    if done and _validator(part).exists():
        headers = {"Range": f"bytes={done}-", "If-Range": _validator(part).read_text()}
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_SILENCE
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            error.close()
            return  # all of it is there
        raise
    with response:
        resumed = response.status == 206
        done = done if resumed else 0
        _validator(part).unlink(missing_ok=True)
        if validator := response.headers.get("ETag") or response.headers.get("Last-Modified"):
            _validator(part).write_text(validator)
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        bar = tqdm.tqdm(
            total=total, initial=done, desc=part.stem, unit="B", unit_scale=True, unit_divisor=1024
        )
        with bar, open(os.fspath(part), "ab" if resumed else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
                done += len(block)
    if total is not None and done != total:
        raise OSError(f"{done:,} of {total:,} bytes")


def _validator(part: epath.Path) -> epath.Path:
    return part.with_name(part.name + ".etag")


def _records(folder: epath.Path) -> dict[str, tuple[int, str]]:
    path = folder / CHECKSUMS
    lines = path.read_text().splitlines() if path.exists() else []
    rows = (line.split("\t") for line in lines if line.count("\t") == 3)
    return {url: (int(size), digest) for url, size, digest, _ in rows}


def _digest(path: epath.Path) -> str:
    with open(os.fspath(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract_videos(archive: epath.Path, folder: epath.Path) -> int:
    """Unpacks the video files of a tar archive into one folder; what is there stays.

    Folders inside the archive are dropped, so no member can leave `folder`; links and other
    special members are passed over.

    Returns:
      How many video files the archive holds.

    Raises:
      DownloadError: the archive is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_drafts(folder)
    count = 0
    with _readable(archive) as tar:
        for member in tqdm.tqdm(tar, desc=f"unpacking {archive.name}", unit="file"):
            name = member.name.replace("\\", "/").rpartition("/")[2]
            if not member.isfile() or epath.Path(name).suffix.lower() not in decode.SUFFIXES:
                continue
            count += 1
            place = folder / name
            if place.exists() and place.stat().length == member.size:
                continue
            source = tar.extractfile(member)
            assert source is not None
            with source, replaced(place, tidy=False) as file:
                shutil.copyfileobj(source, file)
    return count


@contextlib.contextmanager
def _readable(archive: epath.Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(os.fspath(archive)) as tar:
            yield tar
    except (tarfile.TarError, EOFError) as error:
        raise DownloadError(f"{archive.name}: expected a tar archive, got {error}") from error
