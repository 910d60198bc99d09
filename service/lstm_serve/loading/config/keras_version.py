"""The Keras that saved a file, as far as the file tells it."""

import re
from dataclasses import dataclass, replace

from lstm_serve.errors import UnreadableFile


@dataclass(frozen=True, slots=True)
class KerasVersion:
    """The Keras that saved a file; `text` is as in the file, such as "2.2.4-tf".

    `build_input_shape` says whether a Sequential's config has that key, which tells TensorFlow 2.1 from 2.2; None in
    a functional model, which cannot tell. `theano` says that the file's backend was Theano.
    """

    text: str | None
    major: int
    minor: int
    build_input_shape: bool | None = None
    theano: bool = False

    @classmethod
    def parse(cls, text: str | None) -> "KerasVersion":
        """Of `keras_version`; None, as Keras 1.0 wrote it, is 1.0."""
        if text is None:
            return cls(None, 1, 0)
        match = re.match(r"(\d{1,4})\.(\d{1,4})", text)
        if match is None or len(text) > 100 or not text.isprintable():
            raise UnreadableFile(f"keras_version {text[:40]!a} is not a version number")
        return cls(text, int(match[1]), int(match[2]))

    def with_backend(self, backend: str | None) -> "KerasVersion":
        """The same version with what the file says of its backend."""
        return replace(self, theano=backend == "theano")

    def with_wiring(self, build_input_shape: bool | None) -> "KerasVersion":  # noqa: FBT001 - as the field
        """The same version with what the model's config says of it, unless the file's form says it for certain."""
        return self if self.build_input_shape is not None else replace(self, build_input_shape=build_input_shape)

    @property
    def known(self) -> bool:
        """Whether the file tells it."""
        return self.major > 0

    @property
    def default_gate(self) -> str | None:
        """What `recurrent_activation` is where nobody says it; None where this version does not tell that."""
        if self.text == "2.2.4-tf":  # TensorFlow 1.13 to 2.1, and 2.0 changed it
            return None
        # Keras 2.3.0 changed it, and tf.keras with TensorFlow 2.
        return "sigmoid" if (self.major, self.minor) >= (2, 3) else "hard_sigmoid" if self.known else None


# Of weights that came without a version, as a list of arrays does.
UNKNOWN = KerasVersion(None, 0, 0)
# Of a Keras 3 that does not say which, as its JSON does not: any since 3.4 computes the same.
KERAS_3 = KerasVersion("3", 3, 4)
