"""The OpenAPI document of the default model, as docs/openapi.json has it; run as a script, it writes it anew."""

import json
from pathlib import Path

from lstm_serve.settings import Settings
from lstm_serve.web.app import create_app

ROOT = Path(__file__).parents[2]
WRITTEN = ROOT / "docs/openapi.json"


def made() -> str:
    """The document of the code as it is; its examples, zeros for each number, are left out."""
    document = create_app(Settings(model=ROOT / "models/turbofan.h5")).openapi()
    return json.dumps(_without_examples(document), indent=1) + "\n"


def _without_examples(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_examples(item) for key, item in value.items() if key not in {"example", "examples"}}
    return [_without_examples(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    WRITTEN.write_text(made())
