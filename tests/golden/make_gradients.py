"""Let TensorFlow differentiate the default model: what the gradients of an explanation are held to.

Needs keras 3 with TensorFlow, and numpy. Run it from anywhere::

    python tests/golden/make_gradients.py

It writes gradients.npz, next to itself: for each of the model's golden inputs, of which there are 32, the gradient of
the probability of the likeliest class by the input, `by_x` float32, and that class, `index`.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

MODELS = Path(__file__).parents[2] / "models"


def main() -> None:
    """Write them."""
    model = keras.models.load_model(MODELS / "turbofan.h5", compile=False)
    with np.load(MODELS / "turbofan.golden.npz") as golden:
        x = tf.constant(golden["x"][:32], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        likeliest = tf.reduce_max(model(x, training=False), axis=-1)
    index = np.argmax(model(x, training=False), axis=-1)
    by_x = tape.gradient(likeliest, x).numpy()
    np.savez_compressed(Path(__file__).parent / "gradients.npz", by_x=by_x, index=index)


if __name__ == "__main__":
    main()
