"""Whatever the numbers depend on beside the file is in the digest by which answers, and kept states, are told apart."""

from typing import Any

from lstm_serve.loading.config.keras_version import KerasVersion
from lstm_serve.loading.digest import digest_of
from lstm_serve.loading.sidecars.architecture_json import Described
from lstm_serve.loading.sidecars.card import Card

ONE, OTHER = {"mean": [1.0], "scale": [2.0]}, {"mean": [1.0], "scale": [3.0]}
SAID: list[dict[str, Any]] = [
    {"scaling": ONE},
    {"scaling": OTHER},
    {"output_scaling": ONE},
    {"output_scaling": OTHER},
    {"inputs": {"a": {"scaling": ONE}}},
    {"inputs": {"a": {"scaling": OTHER}}},
    {"inputs": {"b": {"scaling": ONE}}},
    {"outputs": {"a": {"scaling": ONE}}},
    {"outputs": {"b": {"scaling": ONE}}},
    {"outputs": {"a": {"threshold": 0.25}}},
    {"outputs": {"a": {"threshold": 0.75}}},
    {"threshold": 0.25},
    {"threshold": 0.75},
    {"recurrent_activation": "sigmoid"},
    {"output_activation": "sigmoid"},
    {"hidden_activation": "sigmoid"},
    {"return_sequences": True},
    {"return_sequences": False},
    {"mask_zero": True},
    {"mask_zero": False},
]
WORDS = {"name": "m", "version": "2", "classes": ["a", "b"], "features": ["x"], "metadata": {"a": 1}}
KERAS = None, KerasVersion.parse("2.4.0")
DESCRIBED = [Described(config, keras) for config in ({"a": 1}, {"a": 2}) for keras in KERAS]


def test_all_that_is_said_of_the_numbers_is_told_apart() -> None:
    said: list[tuple[Card, Described | None]] = [(Card.model_validate(each), None) for each in SAID]
    said += [(Card(), each) for each in DESCRIBED]
    found = [digest_of(sha256, *each) for each in said for sha256 in ("0" * 64, "1" * 64)]
    assert len({digest for digest in found if digest is not None}) == 2 * (len(SAID) + len(DESCRIBED))


def test_words_make_no_other_model() -> None:
    assert digest_of("0" * 64, Card.model_validate(WORDS), None) is None
    named = {"outputs": {"a": {"name": "b", "classes": ["a", "b"]}}, "inputs": {"a": {"features": ["x"]}}}
    assert digest_of("0" * 64, Card.model_validate(named), None) is None
