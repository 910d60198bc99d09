"""What the numbers depend on beside the model's own file: one digest over all of it."""

import hashlib
import json

from lstm_serve.loading.sidecars.architecture_json import Described
from lstm_serve.loading.sidecars.card import Card
from lstm_serve.loading.sidecars.scaling import ScalingCard


def digest_of(sha256: str, card: Card, described: Described | None) -> str | None:
    """The sha256 of the model's own and of what was said besides it, by which its answers are told apart.

    None where nothing was said that they depend on.
    """
    said = {
        "scaling": _scaling(card.scaling),
        "output_scaling": _scaling(card.output_scaling),
        "inputs": {name: _scaling(of.scaling) for name, of in (card.inputs or {}).items() if of.scaling} or None,
        "outputs": {
            name: [_scaling(of.scaling), of.threshold]
            for name, of in (card.outputs or {}).items()
            if of.scaling or of.threshold
        }
        or None,
        "recurrent_activation": card.recurrent_activation,
        "output_activation": card.output_activation,
        "hidden_activation": card.hidden_activation,
        "return_sequences": card.return_sequences,
        "mask_zero": card.mask_zero,
        "threshold": card.threshold,
        "architecture": None if described is None else described.config,
        "keras": None if described is None or described.keras is None else described.keras.text,
    }
    told = {name: value for name, value in said.items() if value is not None}
    if not told:
        return None
    return hashlib.sha256(json.dumps({"model": sha256, **told}, sort_keys=True).encode()).hexdigest()


def _scaling(of: ScalingCard | None) -> list[list[float]] | None:
    return None if of is None else [of.offset, of.divisor]
