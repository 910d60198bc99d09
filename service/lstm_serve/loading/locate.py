"""A folder with one model in it, as KServe and TensorFlow Serving mount them."""

from pathlib import Path

from lstm_serve.errors import UnreadableFile
from lstm_serve.loading.files import detect, keras_v3
from lstm_serve.model.files import GOLDEN

MAX_ENTRIES = 10_000


def model_in(folder: Path) -> Path:
    """The folder if it is a model itself; the one loadable file in it; or else what is in its highest numbered folder.

    What a file is, its content says; JSON is not looked at, since it may be anything.
    """
    entries = []
    for entry in folder.iterdir():
        entries.append(entry)
        if len(entries) > MAX_ENTRIES:
            raise UnreadableFile(f"is a folder of more than {MAX_ENTRIES} files; name the model's file")
    names = {entry.name for entry in entries}
    if "saved_model.pb" in names or keras_v3.is_folder(names):
        return folder.absolute()  # what "." is called, its card and golden predictions are
    models = sorted(entry for entry in entries if not entry.name.endswith(GOLDEN) and detect.is_model(entry))
    if len(models) > 1:
        listed = ", ".join(model.name for model in models[:10])
        raise UnreadableFile(f"is a folder with {len(models)} models ({listed[:200]}); name one of them")
    if models:
        return models[0]
    versions = [entry for entry in entries if entry.name.isascii() and entry.name.isdigit() and entry.is_dir()]
    if not versions:
        raise UnreadableFile("is a folder without a model in it, where a file that model.save() wrote was expected")
    return model_in(max(versions, key=lambda version: int(version.name[:20])))
