"""What memory a model's arrays may take: a setting, in every form; and a small file that claims much takes none."""

import io
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kerasfiles import save_embedding
from serving import GOLDEN, PATIENCE

from lstm_serve import load_model
from lstm_serve.errors import UnreadableFile
from lstm_serve.formats.array_budget import ALWAYS, MAX_RATIO, RAISE, Budget

CHECKPOINT = GOLDEN / "savedmodel" / "tf21__func_ck" / "ck.index"
FORMS = [
    GOLDEN / "asker" / "k215_model.h5",
    GOLDEN / "asker" / "k3_model.keras",
    GOLDEN / "asker" / "k3_model.weights.h5",
    GOLDEN / "asker" / "k3_weights_arr.npz",
    CHECKPOINT,
]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
@pytest.mark.parametrize(("share", "reason"), [(2.5, "the arrays up to .* need more"), (5, "more than 4 times")])
def test_in_every_form_the_message_names_the_setting(path: Path, share: float, reason: str) -> None:
    stored = path.with_name("ck.data-00000-of-00001") if path == CHECKPOINT else path
    with pytest.raises(UnreadableFile, match=reason) as refused:
        load_model(path, max_bytes=int(stored.stat().st_size / share))
    assert str(refused.value).endswith(RAISE)


@given(st.integers(1, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 44))
def test_what_is_taken_is_within_the_setting_and_within_what_the_file_may_hold(
    most: int, size: int, array: int
) -> None:
    budget = Budget(most)
    try:
        budget.expect(size)
        budget.take(array, "a")
    except UnreadableFile as refused:
        assert ("max_bytes" in str(refused)) == (size > 4 * most or most <= ALWAYS + MAX_RATIO * size)  # noqa: PT017
    else:
        assert array <= most
        assert array <= ALWAYS + MAX_RATIO * size


def test_arrays_over_256_mib_are_read(tmp_path: Path) -> None:
    path = save_embedding(tmp_path / "m.h5", 240_000)
    model = load_model(path)
    assert model.id_limit == 240_000
    assert model.predict(np.full((1, 6), 239_999)).shape == (1, 2)
    with pytest.raises(UnreadableFile, match=r"'embeddings:0' need more than 256 MiB.*LSTMSERVE_MAX_MODEL_BYTES"):
        load_model(path, max_bytes=256 << 20)


def test_a_keras_file_that_was_packed_anew_is_read_whatever_its_size(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        for name, array in {"lstm/cell/vars/0": (15, 404), "lstm/cell/vars/1": (101, 404)}.items():
            file[f"layers/{name}"] = np.ones(array, np.float32)
        file["layers/lstm/cell/vars/2"] = np.ones(404, np.float32)
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = np.ones((101, 5), "f4"), np.ones(5, "f4")
        # Of an optimizer, say: it is unpacked, and not read.
        file["optimizer/vars/0"] = np.random.default_rng(0).integers(0, 256, 65 << 20, np.uint8)
    with (
        zipfile.ZipFile(GOLDEN / "asker" / "k3_model.keras") as source,
        zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED, compresslevel=0) as target,
    ):
        for name in ("config.json", "metadata.json"):
            target.writestr(name, source.read(name))
        target.write(tmp_path / "model.weights.h5", "model.weights.h5")
    assert load_model(tmp_path / "m.keras", replay=False).output_shape == (5,)


def test_zips_of_more_than_2_gib_have_another_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    with (
        zipfile.ZipFile(GOLDEN / "asker" / "k3_model.keras") as source,
        zipfile.ZipFile(tmp_path / "m.keras", "w") as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    data = (tmp_path / "m.keras").read_bytes()
    assert b"PK\x06\x07" in data
    assert load_model(tmp_path / "m.keras").output_shape == (5,)
    record = data.rindex(b"PK\x06\x06")
    for at, number in ((0, b"PK\0\0"), (32, struct.pack("<Q", 1 << 40)), (40, struct.pack("<Q", 1 << 40))):
        (tmp_path / "m.keras").write_bytes(data[: record + at] + number + data[record + at + len(number) :])
        with pytest.raises(UnreadableFile, match=r"not where it says|expected at most 4096 members"):
            load_model(tmp_path / "m.keras")


def claiming(path: Path) -> None:
    save_embedding(path, 1_500_000, chunks=(100_000, 300), compression="gzip")


def claiming_and_unwritten(path: Path) -> None:
    save_embedding(path, 10)
    with h5py.File(path, "r+") as file:
        group = file["model_weights/layer_0"]
        del group["embeddings:0"]
        group.create_dataset("embeddings:0", (1_500_000, 300), "f4")


def packed_zeros(path: Path, *, name: str, head: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("config.json" if name != "arr_0.npy" else "arr_1.npy", "{}")
        archive.writestr("metadata.json" if name != "arr_0.npy" else "arr_2.npy", '{"keras_version": "3.8.0"}')
        with archive.open(name, "w", force_zip64=True) as member:
            member.write(head)
            for _ in range(1 << 6):
                member.write(bytes(12 << 20))


def packed_array(path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (3 << 26,)})
    packed_zeros(path, name="arr_0.npy", head=head.getvalue())


CLAIMS: dict[str, Callable[[Path], None]] = {
    "gzip.h5": claiming,
    "unwritten.h5": claiming_and_unwritten,
    "zeros.keras": lambda path: packed_zeros(path, name="model.weights.h5"),
    "zeros.npz": packed_array,
}
CHILD = """
import resource, sys
from lstm_serve import load_model
from lstm_serve.errors import UnreadableFile
with open("/proc/self/statm") as file:
    room = int(file.read().split()[0]) * resource.getpagesize() + (400 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
try:
    load_model(sys.argv[1])
except UnreadableFile as refused:
    print(refused)
"""


@pytest.mark.long
@pytest.mark.parametrize("name", CLAIMS)
def test_a_small_file_that_claims_a_large_array_is_refused_before_memory_is_taken(tmp_path: Path, name: str) -> None:
    CLAIMS[name](tmp_path / name)
    assert (tmp_path / name).stat().st_size < 4 << 20
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert "MiB, which a file of its size never holds" in done.stdout, done
