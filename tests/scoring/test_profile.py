"""What `lstm-serve profile` notes of training data, and what another look at the same rows says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kerasfiles import dense, lstm, numbers, save_sequential
from profiles import FEATURES, carded, profile_of, train_of, write
from serving import ROOT

from lstm_serve import load_model
from lstm_serve.cli.main import main
from lstm_serve.model.profile import Column, Profile, column, psi
from lstm_serve.scoring import predict


def test_what_is_written_is_what_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, train = carded(tmp_path), train_of(5300)  # the last 300 make no chunk
    assert main(["profile", str(model), str(write(tmp_path / "train.csv", train))]) == 0
    assert "5,300 rows, 3 features, chunks of 1,000, 2,000\n" in capsys.readouterr().out
    assert (tmp_path / "m.profile.json").stat().st_size < 4096
    found = load_model(model).profile
    assert found is not None
    x = train.astype(np.float32)
    alone = profile_of(x)
    for read, made in zip(found.columns, alone.columns, strict=True):
        assert read[1:5] == made[1:5], "the range and the quantiles"
        assert read.edges == made.edges
        np.testing.assert_allclose(read.shares, made.shares, atol=1e-6)
        np.testing.assert_allclose([read.mean, read.sd], [made.mean, made.sd], rtol=1e-8)
    assert [each.rows for each in found.chunks] == [1000, 2000]
    parts = x[:5000].reshape(5, 1000, 3)
    of_chunks = np.array([psi(alone.counts(part), alone.shares) for part in parts])
    np.testing.assert_allclose(found.chunks[0].psi.mean, of_chunks.mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(found.chunks[0].psi.sd, of_chunks.std(axis=0, ddof=1), rtol=1e-3)
    assert found.spoken is not None
    windows = np.lib.stride_tricks.sliding_window_view(x, load_model(model).input_shape[0] or 0, axis=0)
    positive = (load_model(model).predict(windows.transpose(0, 2, 1)) >= 0.5).mean()
    np.testing.assert_allclose(found.spoken.classes, [1 - positive, positive], atol=1e-6)


def test_the_greatest_float32_is_a_value_as_others(tmp_path: Path) -> None:
    """It marks what was not measured; of all rows, of some, or the least one."""
    greatest = np.finfo(np.float32).max
    train = np.tile(np.array([[greatest, greatest, -greatest], [greatest, 1.5, 2.5]], np.float32), (20, 1))
    np.save(tmp_path / "train.npy", train)
    model = carded(tmp_path)
    assert main(["profile", str(model), str(tmp_path / "train.npy")]) == 0
    found = load_model(model).profile
    assert found is not None
    np.testing.assert_array_equal(found.counts(train) / len(train), found.shares)
    assert not found.out_of_range(train).any()


def test_one_that_is_there_is_replaced_by_force_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, train = carded(tmp_path), write(tmp_path / "train.csv", train_of(40))
    there = tmp_path / "m.profile.json"
    there.write_text("{")
    assert main(["profile", str(model), str(train)]) == 1
    assert capsys.readouterr().err == f"lstm-serve: {there} exists already; --force replaces it\n"
    assert there.read_text() == "{"
    assert main(["profile", str(model), str(train), "--force"]) == 0
    assert load_model(model).profile is not None
    said = capsys.readouterr()
    assert "m.profile.json: 40 rows, 3 features\n" in said.out
    assert "so the limits of drift stay at their least; 2000 rows and more can raise them" in said.err


def test_no_window_reaches_from_one_unit_into_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "SEQUENCES_AT_ONCE", 7)
    model, rows, units = carded(tmp_path), np.random.default_rng(3).normal(0, 3, (60, 3)), np.arange(60) // 10
    train = write(tmp_path / "train.csv", rows)
    header, *lines = train.read_text().splitlines()
    train.write_text("\n".join([f"{header},unit", *(f"{line},{k}" for line, k in zip(lines, units, strict=True))]))
    on = load_model(model)
    positive = [(on.predict_series(rows, by=by) >= 0.5).mean() for by in (units, None)]
    assert abs(positive[0] - positive[1]) > 1e-3
    assert main(["profile", str(model), str(train), "--by", "unit"]) == 0
    found = load_model(model).profile
    assert found is not None
    assert found.spoken is not None
    np.testing.assert_allclose(found.spoken.classes, [1 - positive[0], positive[0]], atol=1e-6)


def test_a_broken_sensor_is_answered_and_is_out_of_range() -> None:
    """The gates of the default model saturate: 3e38 hides that an engine is near failure, and no error tells of it."""
    model = load_model(ROOT / "models/turbofan.h5")
    rows = np.loadtxt(ROOT / "models/turbofan.example.csv", delimiter=",", skiprows=1)[-20:, 1:]
    broken = rows.copy()
    broken[-1, 13] = 3e38
    y = model.predict(np.stack([rows, broken]))
    assert np.isfinite(y).all()
    assert y.argmax(axis=1).tolist() == [0, 4]
    assert model.profile is not None
    assert model.profile.out_of_range(broken[-1:])[13] == 1


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60),
)
def test_every_row_is_in_one_bin_and_the_training_in_its_own(train: list[float], rows: list[float]) -> None:
    """Counts are those of a search in the edges; a window that is the training is nowhere from it."""
    x = np.array(train, np.float32)
    of = column("a", x)
    profile = Profile(len(x), (of,))
    assert 1 <= len(of.edges) <= 9
    assert list(of.edges) == sorted(set(of.edges))
    np.testing.assert_allclose(sum(of.shares), 1)
    y = np.array(rows, np.float32)
    counts = profile.counts(y[:, np.newaxis])
    expected = np.bincount(np.searchsorted(of.edges, y, side="right"), minlength=10)
    assert counts[0].tolist() == expected.tolist()
    assert psi(profile.counts(x[:, np.newaxis]), profile.shares)[0] < 1e-9
    assert profile.out_of_range(x[:, np.newaxis])[0] == 0


def test_a_value_that_is_a_tenth_of_all_has_its_own_bin() -> None:
    """So that half a standard deviation is seen in a column of few values, and any other value in a constant one."""
    x = train_of(5000).astype(np.float32)
    profile = profile_of(x)
    for k, shift in ((1, profile.columns[1].sd / 2), (1, -profile.columns[1].sd / 2), (2, 0.01), (2, -0.01)):
        moved = x.copy()
        moved[:, k] += np.float32(shift)
        assert psi(profile.counts(moved), profile.shares)[k] > 5
    assert profile.columns[2].sd == 0
    assert profile.wasserstein(x)[2] == 0


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.5, 2.0])
def test_the_distance_of_a_shift_is_the_shift(shift: float) -> None:
    """Up to what the quantiles leave open: of a normal column 0.02 of a standard deviation."""
    x = np.random.default_rng(2).normal(3, 2, (20_000, 1)).astype(np.float32)
    profile = profile_of(x)
    found = profile.wasserstein(x + np.float32(shift * profile.columns[0].sd))
    np.testing.assert_allclose(found, abs(shift), atol=0.02)


def test_limits_are_those_of_chunks_no_larger_than_the_window(tmp_path: Path) -> None:
    """And never under 0.2 and 0.25."""
    model = carded(tmp_path)
    slow = train_of(10_000)
    slow[:, 0] += np.linspace(0, 20, 10_000)
    assert main(["profile", str(model), str(write(tmp_path / "train.csv", slow))]) == 0
    profile = load_model(model).profile
    assert profile is not None
    (small, _, large) = profile.chunks
    assert profile.limits(1999)[0][0] == small.psi.mean[0] + 3 * small.psi.sd[0] > 0.2
    assert profile.limits(20_000)[1][0] == max(0.25, large.wasserstein.mean[0] + 3 * large.wasserstein.sd[0])
    assert profile.limits(999)[0].tolist() == [0.2] * 3
    assert profile.limits(1000)[1][2] == 0.25


GOOD: dict[str, Any] = {
    "rows": 3,
    "features": [
        {
            "name": name,
            "min": 0,
            "max": 9,
            "low": [1, 1, 1, 2],
            "high": [7, 8, 8, 8],
            "mean": 4,
            "sd": 2,
            "edges": [3],
            "shares": [0.5, 0.5],
        }
        for name in FEATURES
    ],
    "chunks": [],
    "answers": None,
}


def changed(**more: Any) -> str:
    features = [{**GOOD["features"][0], **more}, *GOOD["features"][1:]]
    return json.dumps({**GOOD, "features": features})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is wrong: the profile: Invalid JSON"),
        ("[]", "is wrong: the profile"),
        ("[" * 100_000, "is wrong"),
        (" " * ((1 << 20) + 1), "is larger than 1 MiB"),
        (changed(sd=-1), "features.0.sd: "),
        (changed(mean="4"), "features.0.mean: "),
        (changed(mean=1e300), "features.0.mean: "),
        (changed(edges=[3, 3], shares=[0.2, 0.3, 0.5]), "features.0: edges: expected numbers that ascend"),
        (changed(edges=[3], shares=[1.0]), "features.0: shares: expected 2, one more than edges"),
        (changed(edges=[*range(10)], shares=[0.1] * 11), "features.0.edges: "),
        (changed(shares=[0.5, 0.6]), "features.0: shares: expected shares whose sum is 1"),
        (changed(max=-1), "features.0: expected min, low, high and max in ascending order"),
        (changed(more=1), "features.0.more: "),
        (changed(name="d"), "is of other data: its feature 1 is 'd', and the model's is 'a'"),
        (json.dumps({**GOOD, "features": GOOD["features"][:2]}), "it has 2 features, and the model takes 3"),
        (
            json.dumps({**GOOD, "answers": {"classes": [0.5, 0.25, 0.25], "entropy": [0.1] * 10}}),
            "it has 3 classes, and the model 2",
        ),
        (
            json.dumps(
                {
                    **GOOD,
                    "chunks": [
                        {"rows": 9, "psi": {"mean": [1], "sd": [1]}, "wasserstein_sd": {"mean": [1], "sd": [1]}}
                    ],
                }
            ),
            "chunks: expected 3 numbers of each, one a feature",
        ),
    ],
)
def test_a_wrong_one_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, told: str
) -> None:
    model = carded(tmp_path)
    (tmp_path / "m.profile.json").write_text(content)
    assert main(["inspect", str(model)]) == 3
    said = capsys.readouterr().err
    assert "its profile m.profile.json " in said
    assert told in said
    assert "Make it again with lstm-serve profile --force, or take it away" in said


def test_a_good_one_by_hand_is_read(tmp_path: Path) -> None:
    model = carded(tmp_path)
    (tmp_path / "m.profile.json").write_text(json.dumps(GOOD))
    profile = load_model(model).profile
    assert profile is not None
    assert profile.columns[1] == Column("b", 0, 9, (1, 1, 1, 2), (7, 8, 8, 8), 4, 2, (3.0,), (0.5, 0.5))


def test_one_whose_edges_are_closer_than_float32_is_read(tmp_path: Path) -> None:
    """As it was once written where the card scales: a value of its own bin still has one."""
    after = float(np.nextafter(8.1, 9))
    low, high = [8.1, 8.1, 8.1, 8.1], [8.3, 8.3, 8.3, 8.3]
    of = {"min": 8.1, "max": 8.3, "low": low, "high": high, "mean": 8.2, "sd": 0.1}
    several = {"edges": [8.1, after, after + 1e-9, 8.3], "shares": [0, 0.5, 0.125, 0.125, 0.25]}
    model = carded(tmp_path)
    for more, expected in (
        ({"edges": [8.1, after, 8.3], "shares": [0, 0.5, 0, 0.5]}, [0, 0.5, 0, 0.5]),
        (several, [0, 0.5, 0.25, 0.25]),
    ):
        (tmp_path / "m.profile.json").write_text(changed(**of, **more))
        profile = load_model(model).profile
        assert profile is not None
        assert list(profile.columns[0].shares) == expected
        for dtype in (np.float32, np.float64):
            x = np.tile(np.array([[8.1], [8.3]], dtype), 3)
            assert profile.counts(x)[0, :4].tolist() == [0, 1, 0, 1]
            assert profile.out_of_range(x)[0] == 0


def test_what_cannot_be_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(tmp_path / "train.csv", train_of(40))
    table = ("Embedding", {"input_dim": 9, "output_dim": 3, "batch_input_shape": [None, 5]}, [numbers(9, 3)])
    save_sequential(tmp_path / "ids.h5", [table, lstm(), dense()])
    assert main(["profile", str(tmp_path / "ids.h5"), str(train)]) == 1
    assert "ids.h5: the model cannot be profiled, nor watched for drift: it takes ids" in capsys.readouterr().err
