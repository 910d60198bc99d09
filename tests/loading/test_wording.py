"""What is said of text in another encoding, of a part of a checkpoint, and of layers that are Keras' own."""

import json
from pathlib import Path

import pytest
from kerasfiles import dense, lstm, save_sequential
from kinds import LABELS, made

from lstm_serve import load_model
from lstm_serve.cli import main
from lstm_serve.errors import ModelError, SettingsError, UnreadableFile, Unsupported
from lstm_serve.explain.report import report
from lstm_serve.settings import Settings
from lstm_serve.web.api_keys import Keys

TEXT = '{"description": "Verschlei\u00df", "classes": ["a", "b", "c"]}'
UTF_16, LATIN_1 = "is text in UTF-16; save it as UTF-8", "is not text in UTF-8"


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", UTF_16), ("latin-1", LATIN_1)])
def test_text_in_another_encoding_is_told_the_same_everywhere(
    tmp_path: Path, encoding: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(tmp_path, LABELS)
    table = tmp_path / "x.csv"
    table.write_text("Gr\u00f6\u00dfe,b,c\n" + "1,2,3\n" * 6, encoding)
    assert main.main(["predict", str(path), str(table)]) != 0
    assert said in capsys.readouterr().err
    (tmp_path / "m.card.json").write_text(TEXT, encoding)
    with pytest.raises(UnreadableFile, match=rf"its card m\.card\.json {said}"):
        load_model(path)
    keys = tmp_path / "keys"
    keys.write_text("schl\u00fcssel-schl\u00fcssel\n", encoding)
    with pytest.raises(SettingsError, match=f"{keys}, {said}"):
        Keys(Settings(model=path, api_keys_file=keys))


def test_a_list_of_weights_in_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text("[[1.0]]", "utf-16")
    with pytest.raises(ModelError, match=UTF_16):
        load_model(path)


def test_a_part_of_a_checkpoint_leads_to_its_index(tmp_path: Path) -> None:
    path = tmp_path / "ck.data-00000-of-00001"
    path.write_bytes(b"\0")
    with pytest.raises(UnreadableFile, match=r"is a part of a checkpoint; name ck\.index, or ck$"):
        load_model(path)


@pytest.mark.parametrize(("class_name", "own"), [("LocallyConnected2D", False), ("Mine", True)])
def test_layers_of_keras_are_of_nobodys_making(tmp_path: Path, class_name: str, own: bool) -> None:  # noqa: FBT001
    path = save_sequential(tmp_path / "m.h5", [lstm(), (class_name, {}, [])])
    with pytest.raises(Unsupported, match=json.dumps(class_name)[1:-1]) as caught:
        load_model(path)
    assert ("of your own making" in str(caught.value)) == own


@pytest.mark.parametrize(("units", "card", "said"), [(3, {}, 1), (1, {}, 0), (3, {"output_activation": "softmax"}, 0)])
def test_several_linear_outputs_may_be_logits(tmp_path: Path, units: int, card: dict[str, str], said: int) -> None:
    path = made(tmp_path, [lstm(), dense(units, activation="linear")], **card)
    text = report(load_model(path), path)
    assert text.count("If the loss had from_logits=True, say output_activation in the card.") == said


def test_a_notebook_shows_a_model_and_hostile_names_stay_text(tmp_path: Path) -> None:
    layers = [("LSTM", lstm()[1] | {"name": "<script>x</script>"}, lstm()[2]), dense(3, activation="softmax")]
    html = load_model(made(tmp_path, layers, name="wear", version=3))._repr_html_()
    assert "<p>wear, version 3: classes, (None, 5, 3) to (None, 3), not verified</p>" in html
    assert "<td>LSTM</td>" in html
    assert "&lt;script&gt;x&lt;/script&gt;" in html
    assert "<script" not in html
