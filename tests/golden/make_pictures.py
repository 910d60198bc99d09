"""Save models of convolutions, and what Keras answers: run once with Keras 3, once with 2.15.

    python make_pictures.py [CASE ...]

writes pictures/<keras>__<case>, as .h5 and .keras, and its golden predictions beside this script.
"""

from pathlib import Path

import keras
import numpy as np
from cases import KERAS_3, case, made, save_answers, save_whole
from keras import layers as L  # noqa: N812

HERE = Path(__file__).parent / "pictures"


@case
def picture() -> keras.Model:
    """Groups, dilations, and each feature by itself, in two axes and in three, free where nothing needs their size."""
    given = keras.Input((None, None, 4))
    x = L.Conv2D(6, (3, 2), padding="same", groups=2, activation="relu")(given)
    x = L.BatchNormalization()(L.Conv2D(4, 2, dilation_rate=(2, 1))(x))
    x = L.MaxPooling2D((2, 1), padding="same")(x)
    x = L.DepthwiseConv2D(2, strides=2, padding="same", depth_multiplier=2)(x)
    x = L.SeparableConv2D(5, 2, padding="same", depth_multiplier=2, activation="tanh")(x)
    x = L.SpatialDropout2D(0.1)(L.AveragePooling2D(2, strides=1, padding="same")(x))
    ends = [L.GlobalMaxPooling2D()(x), L.GlobalAveragePooling2D()(x)]
    return keras.Model(given, L.Dense(3, activation="softmax")(L.Concatenate()(ends)))


@case
def in_space() -> keras.Model:
    """Three axes, and then time."""
    given = keras.Input((4, 5, 4, 2))
    x = L.AveragePooling3D((1, 2, 2))(L.Conv3D(4, (2, 1, 2), padding="same", groups=2, activation="elu")(given))
    x = L.GlobalMaxPooling3D()(x) if KERAS_3 else L.Flatten()(L.MaxPooling3D((2, 1, 1))(x))
    return keras.Model(given, L.Dense(2)(x))


@case
def along_time() -> keras.Model:
    """One axis, and what makes a sequence longer by a kernel."""
    given = keras.Input((9, 4))
    x = L.Conv1D(6, 3, padding="causal", dilation_rate=2, groups=2, activation="relu")(given)
    x = L.SeparableConv1D(4, 3, strides=2, padding="same")(x)
    x = L.DepthwiseConv1D(2, depth_multiplier=2, activation="tanh")(x)
    x = L.Conv1DTranspose(5, 2, strides=3, padding="same", activation="relu")(x)
    return keras.Model(given, L.Dense(2)(L.LSTM(3)(L.Conv1DTranspose(3, 4, strides=2)(x))))


@case
def resized() -> keras.Model:
    """Zeros around, less of it, more of it in both ways, and a kernel that makes it larger."""
    given = keras.Input((4, 3, 2))
    x = L.ZeroPadding2D(((1, 0), (0, 2)))(given)
    x = L.UpSampling2D((2, 1))(L.Cropping2D(((0, 1), (1, 0)))(x))
    x = L.UpSampling2D((1, 3), interpolation="bilinear")(x)
    x = L.Conv2DTranspose(3, (3, 2), strides=(1, 2), padding="same")(x)
    x = L.Conv2DTranspose(2, (2, 3), strides=(3, 2))(L.ZeroPadding2D(1)(x))
    return keras.Model(given, L.Dense(2)(L.GRU(3)(L.TimeDistributed(L.Flatten())(x))))


@case
def movie() -> keras.Model:
    """Pictures through time: states, both directions, and a softmax over each gate's filters."""
    given = keras.Input((3, 5, 4, 2))
    x = L.Bidirectional(L.ConvLSTM2D(2, (3, 2), padding="same", return_sequences=True), merge_mode="ave")(given)
    y, h, c = L.ConvLSTM2D(2, 2, strides=(2, 1), recurrent_activation="hard_sigmoid", return_state=True)(x)
    z = L.ConvLSTM1D(2, 2, dilation_rate=2, go_backwards=True, return_sequences=True, recurrent_activation="softmax")(
        L.Reshape((5, 4, 6))(L.Permute((2, 3, 1, 4))(given))
    )
    ends = [L.Flatten()(each) for each in (y, h, c, z)]
    return keras.Model(given, L.Dense(2)(L.Concatenate()(ends)))


def main() -> None:
    """Save every case, with its inputs and outputs."""
    for name, model in made():
        generator = np.random.default_rng(11)
        model.set_weights([w + generator.normal(0, 0.3, w.shape).astype(w.dtype) ** 2 for w in model.get_weights()])
        x = generator.normal(0, 1, (3, *(size or 7 for size in model.input_shape[1:]))).astype(np.float32)
        save_answers(model, save_whole(model, HERE, name), x)


if __name__ == "__main__":
    main()
