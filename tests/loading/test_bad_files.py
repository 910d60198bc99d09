"""Damaged files, each loaded in a process of its own: an error of our own that names it, or arrays that are whole.

Never anything else that is raised, never more than a few seconds or 400 MB, and never the end of the process.
"""

import copy
import io
import json
import select
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import GOLDEN, PATIENCE

from lstm_serve.errors import UnreadableFile
from lstm_serve.formats import hdf5, zip_file
from lstm_serve.formats.array_budget import Budget

SECONDS = 10  # of a processor
MIB = 400

FILES = [
    GOLDEN / "features" / "k122__bi.h5",
    GOLDEN / "features" / "k224__emb_bi.h5",
    GOLDEN / "features" / "tf215__frozen.h5",
    GOLDEN / "masks" / "tf20__gru_bi_rs.h5",
    GOLDEN / "keras3" / "functional_masks.h5",
    GOLDEN / "keras3" / "nested.h5",
    GOLDEN / "keras3" / "nested.keras",
    GOLDEN / "asker" / "k122_weights_arr.npz",
    GOLDEN / "asker" / "k122_arch.json",
]


class Child:
    """The process that loads, and the one file that it is given anew each time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "model"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("load_child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def load(self, data: bytes) -> str:
        """How it went. Fails where it took too long, or too much, or died."""
        self.path.write_bytes(data)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{self.path}\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, f"nothing after {PATIENCE} s"
        line = self.process.stdout.readline()
        assert line, f"it died: {self.process.wait()}"
        answer = json.loads(line)
        assert answer["seconds"] < SECONDS
        assert answer["mib"] < MIB
        return str(answer["how"])


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    child = Child(tmp_path_factory.mktemp("bad"))
    yield child
    child.process.kill()
    child.process.communicate()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_cut_short_anywhere_is_refused(child: Child, path: Path) -> None:
    data = path.read_bytes()
    ends = {*range(0, min(len(data), 200), 7), *range(200, len(data), len(data) // 40), len(data) - 1}
    assert {child.load(data[:end]) for end in sorted(ends)} == {"refused"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    head=st.booleans(),
)
def test_bytes_that_are_others_are_refused_or_give_arrays_that_are_whole(
    child: Child, path: Path, changes: list[tuple[float, int]], *, head: bool
) -> None:
    data = bytearray(path.read_bytes())
    room = min(len(data), 6000) if head else len(data)
    for place, value in changes:
        data[int(place * room)] = value
    assert child.load(bytes(data)) in {"refused", "loaded"}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_bit_that_is_another_is_refused_or_gives_arrays_that_are_whole(
    child: Child, path: Path, place: float, bit: int
) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    assert child.load(bytes(data)) in {"refused", "loaded"}


CONFIGS = [
    GOLDEN / "keras3" / f"{name}.keras" for name in ("nested", "functional_masks", "bidirectional_cells", "shapes")
]
JUNK: list[Any] = [None, True, -1, 0, 1e308, 1 << 70, 1 << 22, "", "same", "LSTM", [], {}, [None], [[1]], ["in", 0, 0]]
JUNK += [{"class_name": "LSTM", "config": {}}, {"class_name": {}}]


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key))
        places(value[key], found)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(CONFIGS),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from([*JUNK, ...])), min_size=1, max_size=4
    ),
)
def test_a_config_of_other_things_is_refused_or_gives_arrays_that_are_whole(
    child: Child, path: Path, changes: list[tuple[float, Any]]
) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    for place, junk in changes:
        found = places(config, [])
        where, key = found[int(place * len(found))]
        if junk is ...:
            del where[key]
        else:
            where[key] = copy.deepcopy(junk)
    assert child.load(zipped(members | {"config.json": json.dumps(config).encode()})) in {"refused", "loaded"}


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def zipped(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def heap(change: bytes, at: int) -> bytes:
    """A whole model whose first heap of texts says something else of itself, `at` bytes after its signature."""
    data = bytearray((GOLDEN / "masks" / "tf20__gru_bi_rs.h5").read_bytes())
    start = data.index(b"GCOL") + at
    data[start : start + len(change)] = change
    return bytes(data)


# Made where they are read: every worker would make hundreds of MB only to know the tests.
BOMBS: dict[str, Callable[[], bytes]] = {
    "an array that says that it is large": lambda: zipped(
        {"arr_0.npy": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,)}\n")}
    ),
    "a header of code": lambda: zipped({"arr_0.npy": npy("__import__('os').system('touch hacked')\n")}),
    "a header without end": lambda: zipped({"arr_0.npy": npy("(" * 60_000)}),
    "zeros packed well": lambda: zipped(
        {"arr_0.npy": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (140000000,)}\n", bytes(140_000_000))}
    ),
    "zeros packed well, and allowed": lambda: zipped(
        {"arr_0.npy": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (30000000,)}\n", bytes(120_000_000))}
    ),
    "a list as deep as it is long": lambda: b"[" * 5_000_000,
    "a list of many lists": lambda: b"[" + b"[]," * 5_000_000 + b"[]]",
    "a number of many digits": lambda: b"[[" + b"9" * 1_000_000 + b"]]",
    "a heap of no size": lambda: heap(struct.pack("<Q", 0), 8),
    "a heap of any size": lambda: heap(struct.pack("<Q", 1 << 40), 8),
    "a text of any size": lambda: heap(struct.pack("<Q", (1 << 64) - 8), 24),
    "a text of no number": lambda: heap(bytes(16), 16),
    "many zeros": lambda: bytes(50_000_000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused(child: Child, bomb: str) -> None:
    assert child.load(BOMBS[bomb]()) == "refused"
    assert not Path("hacked").exists()


def test_numbers_of_the_good_file_come_through(child: Child) -> None:
    assert child.load(FILES[0].read_bytes()) == "loaded"
    assert np.load(FILES[0].with_name(f"{FILES[0].name}.golden.npz"))["y0"].size


def test_a_lack_of_memory_is_not_called_damage() -> None:
    said = "takes more memory than there is"
    model = GOLDEN / "asker" / "k3_model.h5"
    with model.open("rb") as file, pytest.raises(UnreadableFile, match=said), hdf5.opened(file, Budget()):
        raise MemoryError
    with model.with_suffix(".keras").open("rb") as file, pytest.raises(UnreadableFile, match=said):  # noqa: SIM117
        with zip_file.opened(file):
            raise MemoryError
