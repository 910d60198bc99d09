"""Whether one model may take the place of another: what clients know of the one has to be so of the other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kerasfiles import save_embedding
from serving import ASKER, GOLDEN, SMALL

from lstm_serve import load_model
from lstm_serve.engine.activations import SIGMOID
from lstm_serve.engine.operations.pointwise import Activate, Unscaling
from lstm_serve.errors import Incompatible
from lstm_serve.model.graph import Node, Source
from lstm_serve.model.metadata import Feature, OutputWords, SeriesRules
from lstm_serve.model.model import Model
from lstm_serve.serving.compatibility import expect_same


def test_what_must_stay() -> None:
    old = load_model(ASKER / "k215_model.h5")
    columns = tuple(Feature(name=f"s{k}") for k in range(15))
    carded = replace(old, about=replace(old.about, classes=tuple("abcde"), features=columns))
    expect_same(carded, old)
    in_volts = (Feature(name="s0", unit="V"), *columns[1:])
    changed: Any
    for changed in ({"version": "2", "description": "better"}, {"features": in_volts}):
        expect_same(replace(carded, about=replace(carded.about, **changed)), carded)
    for changed, words in (
        ({"classes": None}, "classes"),
        ({"classes": tuple("edcba")}, r"classes: .*'a', 'b'.* before, .*'e', 'd'.* now"),
        ({"features": (*columns[1:], columns[0])}, "features"),
    ):
        with pytest.raises(Incompatible, match=f"its {words}"):
            expect_same(replace(carded, about=replace(carded.about, **changed)), carded)
    proven = replace(old, origin=replace(old.origin, golden_rows=3))
    expect_same(proven, old)
    with pytest.raises(Incompatible, match="is verified, and the new one is not"):
        expect_same(old, proven)
    values = load_model(SMALL / "values.h5")
    unscaled = Unscaling(name="output_scaling", offset=np.zeros(1), scale=np.ones(1))
    probable = Activate(name="output_activation", activation=SIGMOID)
    for layer, words in ((unscaled, "output scaling"), (probable, "output as probabilities")):
        changed = replace(values, nodes=(*values.nodes, Node(layer, (Source(len(values.nodes) - 1),))), added=1)
        expect_same(changed, changed)
        for new, before in ((changed, values), (values, changed)):
            with pytest.raises(Incompatible, match=f"its {words}"):
                expect_same(new, before)
    for new, words in (
        (replace(old, about=replace(old.about, name="other")), "name"),
        (replace(old, inputs=(old.inputs[0]._replace(dtype=np.dtype(np.float64)),)), "input type"),
    ):
        with pytest.raises(Incompatible, match=f"its {words}"):
            expect_same(new, old)
    for stem, words in (("values", "kind"), ("free", "input shape"), ("binary", "kind")):
        new = load_model(SMALL / f"{stem}.h5")
        with pytest.raises(Incompatible, match=f"its {words}"):
            expect_same(replace(new, about=old.about), old)


def test_what_a_number_of_a_row_means_must_stay_and_what_is_done_in_a_gap_may_change() -> None:
    old = load_model(ASKER / "k215_model.h5")
    timed, refusing = (
        replace(old, about=replace(old.about, series=rules))
        for rules in (SeriesRules(seq="time"), SeriesRules(gap="refuse"))
    )
    expect_same(refusing, old)
    for new, before in ((timed, old), (old, timed)):
        with pytest.raises(Incompatible, match="its meaning of seq"):
            expect_same(new, before)


def test_ids_and_each_of_several_inputs_and_outputs_must_stay(tmp_path: Path) -> None:
    several = load_model(GOLDEN / "several" / "k3__state_and_rul.h5")
    expect_same(several, several)
    renamed = replace(several, inputs=(several.inputs[0]._replace(name="text"), *several.inputs[1:]))
    words = OutputWords(("a", "b", "c")), OutputWords()
    changes: tuple[tuple[Model, str], ...] = (
        (renamed, "inputs"),
        (replace(several, output_names=("condition", "rul")), "outputs"),
        (replace(several, about=replace(several.about, outputs=words)), "outputs"),
    )
    for new, which in changes:
        with pytest.raises(Incompatible, match=f"its {which}"):
            expect_same(new, several)
    old, new = (load_model(save_embedding(tmp_path / f"{count}.h5", count)) for count in (9, 10))
    with pytest.raises(Incompatible, match="its number of ids: 9 before, 10 now"):
        expect_same(replace(new, about=old.about), old)
