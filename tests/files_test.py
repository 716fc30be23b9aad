"""Files that are replaced: links, streams and failures."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from ncl_jax import files
from ncl_jax.files import remove_drafts, replaced, write_text

KILLED = """
import os, sys
from ncl_jax.files import replaced
with replaced(sys.argv[1]) as stream:
    stream.write(b"half")
    stream.flush()
    os._exit(9)
"""


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "a.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_stream_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        write_text(pipe, "through")
        assert reader.communicate(timeout=10)[0] == "through"
    assert pipe.is_fifo()
    code = "from ncl_jax.files import write_text; write_text('/dev/stdout', 'seen'); print('too')"
    with open(tmp_path / "out.txt", "w") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert "too" in (tmp_path / "out.txt").read_text()
    assert os.path.islink("/dev/stdout")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def fail():
        with replaced(tmp_path / "a.txt") as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path):
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.txt"], check=False)
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "b.txt"], check=False)
    assert len(list(tmp_path.iterdir())) == 2  # the second had removed what the first had left
    write_text(tmp_path / "a.txt", "new")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2
    assert left[0].startswith(".b.txt.")
    remove_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_another_is_writing_is_left_alone(tmp_path):
    with replaced(tmp_path / "a.txt") as stream:
        stream.write(b"first")
        write_text(tmp_path / "a.txt", "second")
        assert (tmp_path / "a.txt").read_text() == "second"
    assert (tmp_path / "a.txt").read_text() == "first"


def test_savers_at_once_leave_one_whole_file(tmp_path):
    texts = [str(number) * 10_000 for number in range(4)]

    def save(text):
        for _ in range(50):
            write_text(tmp_path / "a.txt", text)

    threads = [threading.Thread(target=save, args=[text]) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (tmp_path / "a.txt").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_a_sentence_with_the_place(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as failed:
        write_text(tmp_path / "a.txt", "new")
    assert str(failed.value) == (
        f"{tmp_path}/a.txt could not be written: No space left on device; what was there is as it "
        "was. Free space there, or choose another place, and run the same command again"
    )
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
