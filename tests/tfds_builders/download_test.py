"""Downloads from a local server that breaks off, resumes, forgets and changes its mind."""

import hashlib
import http.server
import io
import pathlib
import socketserver
import tarfile
import threading
from collections.abc import Iterator

import pytest
from etils import epath

from tfds_builders import build, download
from tfds_builders.msvd import msvd_dataset_builder


class Site:
    """Files by path, and how the server behaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.break_after: list[int] = []  # bytes after which each next answer ends early
        self.ranges = True
        self.asked: list[tuple[str, str]] = []  # path, Range header
        self.url = ""


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Range", "")))
            data = state.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            etag = f'"{hashlib.sha256(data).hexdigest()[:8]}"'
            start = 0
            if state.ranges and self.headers.get("If-Range") == etag:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(data) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", etag)
            self.end_headers()
            limit = state.break_after.pop(0) if state.break_after else len(data)
            self.wfile.write(data[start : start + limit])

        def log_message(self, *_: object) -> None:
            pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield state
        server.shutdown()
        thread.join()


DATA = bytes(range(256)) * 4000


def _fetch(site: Site, folder: pathlib.Path) -> epath.Path:
    return download.fetch(f"{site.url}/a.tar", epath.Path(folder), pause=0.01)


def test_a_broken_connection_is_taken_up_where_it_broke(
    site: Site, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.files["/a.tar"] = DATA
    site.break_after = [300_000, 1, 500_000]
    assert _fetch(site, tmp_path).read_bytes() == DATA
    assert [header for _, header in site.asked] == [
        "", "bytes=300000-", "bytes=300001-", "bytes=800001-"
    ]  # fmt: skip
    row = (tmp_path / download.CHECKSUMS).read_text().split("\t")
    assert row[1:] == [str(len(DATA)), hashlib.sha256(DATA).hexdigest(), "a.tar\n"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", download.CHECKSUMS]
    assert "a.tar: 100%" in capsys.readouterr().err
    _fetch(site, tmp_path)  # it is there
    assert len(site.asked) == 4


def test_a_killed_download_goes_on_in_the_next_run(site: Site, tmp_path: pathlib.Path) -> None:
    site.files["/a.tar"] = DATA
    site.break_after = [1000] * 5
    with pytest.raises(download.DownloadError, match=r"a\.tar: .*bytes \(5 times\); run the same"):
        _fetch(site, tmp_path)
    assert (tmp_path / "a.tar.part").stat().st_size == 5000
    assert not (tmp_path / "a.tar").exists()
    assert _fetch(site, tmp_path).read_bytes() == DATA
    assert site.asked[-1] == ("/a.tar", "bytes=5000-")


def test_a_server_without_ranges_or_with_another_file_starts_anew(
    site: Site, tmp_path: pathlib.Path
) -> None:
    site.files["/a.tar"] = DATA
    site.ranges = False
    site.break_after = [1000]
    assert _fetch(site, tmp_path).read_bytes() == DATA
    site.ranges = True
    (tmp_path / "b").mkdir()
    site.break_after = [1000] * 5
    with pytest.raises(download.DownloadError):
        _fetch(site, tmp_path / "b")
    site.files["/a.tar"] = DATA[::-1]
    assert _fetch(site, tmp_path / "b").read_bytes() == DATA[::-1]


def test_a_whole_part_needs_no_byte_more(site: Site, tmp_path: pathlib.Path) -> None:
    site.files["/a.tar"] = DATA
    site.break_after = [1000] * 5
    with pytest.raises(download.DownloadError):
        _fetch(site, tmp_path)
    (tmp_path / "a.tar.part").write_bytes(DATA)
    assert _fetch(site, tmp_path).read_bytes() == DATA


def test_another_file_than_the_first_time_is_refused(site: Site, tmp_path: pathlib.Path) -> None:
    site.files["/a.tar"] = DATA
    _fetch(site, tmp_path).unlink()
    site.files["/a.tar"] = DATA[:-1] + b"?"
    with pytest.raises(download.DownloadError, match="in the first download, got 1,024,000 with"):
        _fetch(site, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [download.CHECKSUMS]


def test_missing_files_and_other_addresses(site: Site, tmp_path: pathlib.Path) -> None:
    with pytest.raises(download.DownloadError, match="got HTTP 404"):
        _fetch(site, tmp_path)
    with pytest.raises(download.DownloadError, match="begins with https"):
        download.fetch("file:///etc/passwd", epath.Path(tmp_path))


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("YouTubeClips/link.avi")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return buffer.getvalue()


def test_msvd_is_fetched_and_unpacked_and_nothing_leaves_the_folder(
    site: Site,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    members = {"YouTubeClips/a_1_2.avi": b"one", "../../evil.avi": b"two", "/abs.avi": b"three"}
    site.files["/YouTubeClips.tar"] = _tar({**members, "YouTubeClips/notes.sh": b"rm"})
    site.files["/AllVideoDescriptions.txt"] = b"a_1_2 a clip\n"
    monkeypatch.setattr(msvd_dataset_builder, "HOME", site.url)
    flags = ["msvd", f"--manual_dir={tmp_path / 'm'}", f"--data_dir={tmp_path / 'd'}", "--download"]
    assert build.main(flags) == 2  # the lists are missing, and that is said
    assert "missing train_list.txt; val_list.txt; test_list.txt" in capsys.readouterr().err
    clips = tmp_path / "m" / "msvd" / "YouTubeClips"
    assert {path.name: path.read_bytes() for path in clips.iterdir()} == {
        "a_1_2.avi": b"one", "evil.avi": b"two", "abs.avi": b"three", ".unpacked": b"3\n"
    }  # fmt: skip
    assert list(tmp_path.parent.glob("*/evil.avi")) == []
    assert not list(clips.parent.glob("*.tar*"))
    count = len(site.asked)
    assert build.main(flags) == 2
    assert len(site.asked) == count
    assert build.main(["msrvtt/9k", *flags[1:]]) == 2
    assert "none of its files can be downloaded" in capsys.readouterr().err


def test_a_damaged_archive(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"nothing")
    with pytest.raises(download.DownloadError, match=r"a\.tar: expected a tar archive"):
        download.extract_videos(epath.Path(tmp_path / "a.tar"), epath.Path(tmp_path / "out"))
