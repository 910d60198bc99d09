import hashlib
import os
import socket
from pathlib import Path

import pytest

from lstm_serve.errors import UnreadableFile
from lstm_serve.formats.folder import LFS_POINTER, Folder


def test_a_plain_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    here = Folder(tmp_path)
    assert "a" in here
    assert "b" not in here
    assert here.read("a", 5) == b"12345"
    with pytest.raises(UnreadableFile, match="a is larger than"):
        here.read("a", 4)


def test_the_way_to_the_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Folder(tmp_path / "link").read("a", 1) == b"1"


def test_a_link_inside_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "secret").write_bytes(b"1")
    inside = tmp_path / "real"
    (inside / "a").symlink_to(tmp_path / "secret")
    (inside / "variables").symlink_to(tmp_path)
    here = Folder(inside)
    assert "a" in here
    with pytest.raises(UnreadableFile, match=r"^a cannot be read: it is a symbolic link"):
        here.read("a", 10)
    with pytest.raises(UnreadableFile, match="variables is a link or a file"):
        here.folder("variables")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        for name in ("fifo", "folder", "s"):
            with pytest.raises(UnreadableFile, match=f"^{name} cannot be read"):
                Folder(tmp_path).read(name, 10)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(UnreadableFile, match="the file b is missing"):
        Folder(tmp_path).read("b", 10)
    with pytest.raises(UnreadableFile, match="the folder variables is missing"):
        Folder(tmp_path).folder("variables")
    with pytest.raises(UnreadableFile, match="a is a link or a file"):
        Folder(tmp_path).folder("a")


def test_a_git_lfs_pointer_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(LFS_POINTER + b".github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(UnreadableFile, match="git lfs pull"):
        Folder(tmp_path).read("a", 1000)


def test_the_sha256_is_of_what_was_read_here_and_below(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("c", "b/d", "unread"):
        (tmp_path / name).write_bytes(name.encode())
    top = Folder(tmp_path)
    top.read("c", 10)
    top.folder("b").read("d", 10)
    lines = "".join(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in ("b/d", "c"))
    assert top.sha256() == hashlib.sha256(lines.encode()).hexdigest()
