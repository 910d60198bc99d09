"""Make the golden files of keras3/: models that Keras saves, with inputs and what Keras answers.

    python tests/golden/make_golden.py [CASE ...]

Needs Keras 3.15 with TensorFlow, which neither the service nor its tests need. What it writes is checked in.
"""

from pathlib import Path

import keras
import numpy as np
from cases import case, made
from keras import layers

HERE = Path(__file__).parent / "keras3"


@case
def functional_masks() -> keras.Model:
    """Masks that pass through a graph, which Keras 3 writes down as operations."""
    given = keras.Input((6, 3))
    masked = layers.Masking()(given)
    wide = layers.Dense(4, activation="tanh")(masked)
    sequence = layers.LSTM(3, return_sequences=True)(wide)
    joined = layers.Concatenate()([sequence, wide])
    summed = layers.Add()([sequence, layers.Dense(3)(wide)])
    both = layers.Concatenate()([joined, summed])
    return keras.Model(given, layers.Bidirectional(layers.GRU(2, return_sequences=True))(both))


@case
def functional_ids() -> keras.Model:
    """Two recurrent layers on one masked Embedding."""
    ids = keras.Input((6,), name="ids")
    rows = layers.Embedding(10, 4, mask_zero=True)(ids)
    joined = layers.Concatenate()([layers.LSTM(3)(rows), layers.Bidirectional(layers.GRU(3))(rows)])
    return keras.Model(ids, layers.Dense(2, activation="softmax")(joined))


@case
def concatenate_masked_and_not() -> keras.Model:
    """One branch has a mask, the other has lost it."""
    given = keras.Input((6, 3))
    masked = layers.Masking()(given)
    plain = layers.Conv1D(3, 3, padding="same")(given)
    return keras.Model(given, layers.LSTM(4)(layers.Concatenate()([masked, plain])))


@case
def concatenate_in_time() -> keras.Model:
    """Sequences one after the other, and their masks with them."""
    given = keras.Input((6, 3))
    masked = layers.Masking()(given)
    twice = layers.Concatenate(axis=1)([masked, layers.Dense(3)(masked)])
    return keras.Model(given, layers.LSTM(4)(twice))


@case
def merges() -> keras.Model:
    """Each way to merge two branches."""
    given = keras.Input((6, 3))
    a, b = layers.LSTM(4)(given), layers.GRU(4)(given)
    ways = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
    return keras.Model(given, layers.Concatenate()([way()([a, b]) for way in ways]))


@case
def merges_masked() -> keras.Model:
    """Each way to merge two masked branches, and one masked with one that is not."""
    given = keras.Input((6, 3))
    masked = layers.Masking()(given)
    a, b = layers.LSTM(3, return_sequences=True)(masked), layers.Dense(3)(masked)
    plain = layers.Conv1D(3, 1)(given)
    ways = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
    merged = [way()(pair) for way in ways for pair in ([a, b], [a, plain], [plain, a])]
    outputs = [layers.GlobalMaxPooling1D()(y) for y in merged]
    outputs += [layers.GlobalAveragePooling1D()(y) for y in merged]
    return keras.Model(given, layers.Concatenate()(outputs))


@case
def activations() -> keras.Model:
    """Every activation by its name."""
    given = keras.Input((4, 3))
    names = "linear tanh sigmoid hard_sigmoid softmax relu relu6 elu selu softplus softsign silu exponential gelu"
    names += " leaky_relu mish hard_silu celu hard_tanh log_softmax log_sigmoid tanh_shrink"
    last = layers.LSTM(5, activation="softsign", recurrent_activation="hard_sigmoid")(given)
    return keras.Model(given, layers.Concatenate()([layers.Dense(4, activation=name)(last) for name in names.split()]))


@case
def activations_of_keras_3() -> keras.Model:
    """Those that Keras 2 did not have, of gates too."""
    given = keras.Input((4, 3))
    names = "soft_shrink hard_shrink sparse_plus sparse_sigmoid squareplus sparsemax"
    sequence = layers.GRU(4, "squareplus", "sparse_sigmoid", return_sequences=True)(given)
    last = layers.LSTM(5, activation="sparse_plus", recurrent_activation="sparsemax")(sequence)
    return keras.Model(given, layers.Concatenate()([layers.Dense(4, activation=name)(last) for name in names.split()]))


@case
def rows_normalized() -> keras.Model:
    """Along time, along both axes, in groups, by the length and by the mean square, of a masked sequence."""
    given = keras.Input((6, 3))
    wide = layers.Dense(4)(layers.Masking()(given))
    each = [
        layers.LayerNormalization(axis=1),
        layers.LayerNormalization(axis=1, scale=False),
        layers.GroupNormalization(groups=2),
        layers.GroupNormalization(groups=-1, center=False),
        layers.GroupNormalization(groups=3, axis=1, epsilon=0.1),
        layers.UnitNormalization(),
        layers.UnitNormalization(axis=[1, 2]),
        layers.RMSNormalization(),
        layers.RMSNormalization(axis=[1, 2], epsilon=0.1),
    ]
    return keras.Model(given, layers.Concatenate()([layers.LSTM(2)(layer(wide)) for layer in each]))


@case
def resized() -> keras.Model:
    """Steps of 0 at the ends, steps taken off, each step three times; the mask ends there."""
    given = keras.Input((6, 3))
    masked = layers.Masking()(given)
    longer = layers.ZeroPadding1D((1, 3))(masked)
    shorter = layers.Cropping1D((0, 2))(layers.Conv1D(4, 3)(longer))
    parts = [layers.ZeroPadding1D(2)(shorter), layers.Cropping1D(1)(masked), layers.UpSampling1D(3)(masked)]
    return keras.Model(given, layers.Concatenate()([layers.LSTM(3)(part) for part in parts]))


@case
def activation_layers() -> keras.Model:
    """Layers that activate, as layers and as an activation."""
    return keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.GRU(5, return_sequences=True, activation=layers.LeakyReLU(negative_slope=0.1)),
            layers.ReLU(max_value=0.2, negative_slope=0.1, threshold=0.05),
            layers.Dense(4),
            layers.PReLU(shared_axes=[1], alpha_initializer="random_normal"),
            layers.ELU(alpha=0.5),
            layers.Dense(4),
            layers.LeakyReLU(),
            layers.Softmax(),
        ]
    )


@case
def backwards_mask() -> keras.Model:
    """A reversed sequence keeps the mask of the unreversed one."""
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            layers.Masking(),
            layers.LSTM(4, return_sequences=True, go_backwards=True),
            layers.GRU(3),
        ]
    )


@case
def zero_output() -> keras.Model:
    """Zeros where the last step is masked."""
    return keras.Sequential(
        [keras.Input((6, 3)), layers.Masking(), layers.LSTM(4, zero_output_for_mask=True), layers.Dense(2)]
    )


@case
def stacked_cells() -> keras.Model:
    """Several cells in one layer, backwards, with a mask."""
    cells = [layers.LSTMCell(4), layers.GRUCell(3, reset_after=False), layers.SimpleRNNCell(2, use_bias=False)]
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            layers.Masking(),
            layers.RNN(cells, return_sequences=True, go_backwards=True),
            layers.LSTM(3),
        ]
    )


@case
def bidirectional_cells() -> keras.Model:
    """Stacked cells in both directions, with a mask."""
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            layers.Masking(),
            layers.Bidirectional(layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True)),
            layers.Bidirectional(layers.LSTM(2), merge_mode="sum"),
        ]
    )


@case
def nested() -> keras.Model:
    """Models in a model, one of them called twice, with statistics and a frozen layer."""
    given = keras.Input((6, 3))
    inner = keras.Sequential(
        [
            keras.Input((6, 3)),
            layers.LSTM(4, return_sequences=True),
            layers.BatchNormalization(moving_mean_initializer="random_normal"),
            layers.Dense(3, trainable=False),
            layers.BatchNormalization(moving_variance_initializer="ones", trainable=False),
        ]
    )
    branch = keras.Input((6, 3))
    twice = keras.Model(branch, layers.Add()([layers.Dense(3, name="dense")(branch), branch]))
    y = twice(inner(twice(given)))
    return keras.Model(given, layers.Dense(2)(layers.GRU(3)(y)))


@case
def shared_layer() -> keras.Model:
    """One layer called twice."""
    given = keras.Input((6, 3))
    shared = layers.Dense(3, activation="tanh")
    return keras.Model(given, layers.LSTM(3)(layers.Add()([shared(given), shared(layers.ReLU()(given))])))


@case
def shapes() -> keras.Model:
    """Layers that change the shape, and one layer for each step."""
    return keras.Sequential(
        [
            keras.Input((4, 6, 3)),
            layers.TimeDistributed(layers.Conv1D(5, 3, activation="relu")),
            layers.TimeDistributed(layers.BatchNormalization(moving_mean_initializer="random_normal")),
            layers.TimeDistributed(layers.MaxPooling1D(2)),
            layers.TimeDistributed(layers.Flatten()),
            layers.Reshape((5, -1)),
            layers.Permute((2, 1)),
            layers.LSTM(3, return_sequences=True),
            layers.GlobalAveragePooling1D(keepdims=True),
            layers.Flatten(),
            layers.RepeatVector(3),
            layers.GRU(2),
        ]
    )


@case
def regularization() -> keras.Model:
    """Layers of which nothing is left."""
    return keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.GaussianNoise(0.1),
            layers.LSTM(3, return_sequences=True, dropout=0.2, recurrent_dropout=0.2),
            layers.SpatialDropout1D(0.1),
            layers.GaussianDropout(0.1),
            layers.AlphaDropout(0.1),
            layers.ActivityRegularization(l1=0.1),
            layers.AveragePooling1D(3, strides=1, padding="same"),
            layers.GlobalMaxPooling1D(),
            layers.Dropout(0.1),
        ]
    )


@case
def normalizations() -> keras.Model:
    """Statistics, along several axes, and masks through them."""
    first = layers.Normalization(axis=(1, 2))
    first.adapt(np.random.default_rng(5).normal(3, 2, (9, 6, 3)).astype(np.float32))
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            layers.Masking(),
            first,
            layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0]),
            layers.Rescaling([0.5, 2.0, 3.0], offset=0.1),
            layers.LayerNormalization(center=False, gamma_initializer="random_normal"),
            layers.BatchNormalization(axis=1, moving_mean_initializer="random_normal", scale=False),
            layers.LSTM(3),
        ]
    )


@case
def float64() -> keras.Model:
    """Weights of twice the precision."""
    return keras.Sequential([keras.Input((6, 3)), layers.LSTM(4, dtype="float64"), layers.Dense(2, dtype="float64")])


@case
def mixed_float16() -> keras.Model:
    """A policy of half precision."""
    return keras.Sequential(
        [keras.Input((6, 3)), layers.LSTM(4, dtype="mixed_float16"), layers.Dense(2, dtype="mixed_float16")]
    )


@case
def float16() -> keras.Model:
    """Weights of half the precision."""
    return keras.Sequential([keras.Input((6, 3)), layers.GRU(4, dtype="float16"), layers.Dense(2, dtype="float16")])


@case
def free_length() -> keras.Model:
    """Any number of steps."""
    return keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.Conv1D(4, 3, strides=2, padding="same"),
            layers.LSTM(3, return_sequences=True),
            layers.GlobalAveragePooling1D(),
        ]
    )


def main() -> None:
    """Save every case as .h5 and .keras, and its inputs and outputs."""
    HERE.mkdir(exist_ok=True)
    for name, model in made():
        generator = np.random.default_rng(11)
        # Zeros and small random numbers in one: biases and statistics must show.
        model.set_weights([w + generator.normal(0, 0.2, w.shape).astype(w.dtype) ** 2 for w in model.get_weights()])
        shape = tuple(size or 7 for size in model.input_shape[1:])
        if "ids" in name:
            x = generator.integers(0, 10, (4, *shape)).astype(np.float32)
            x[0, 3:] = 0
        else:
            x = generator.normal(0, 1, (4, *shape)).astype(np.float32)
            x[1, :2] = 0
            x[2, 4:] = 0
            x[3, 2] = 0
        model.save(HERE / f"{name}.h5")
        model.save(HERE / f"{name}.keras")
        # What was saved, read back: set_weights does not reach what a Normalization has worked out already.
        saved = keras.models.load_model(HERE / f"{name}.keras")
        np.savez(HERE / f"{name}.golden.npz", x=x, y=np.asarray(saved.predict(x, verbose=0)))


if __name__ == "__main__":
    main()
