"""Recurrent layers: over the time that convolutions leave, or over the features themselves."""

from __future__ import annotations

import keras

from tfmusic.models.blocks import AttentionPooling, BatchNormalization, as_image, cut, input_norm, scaled

CRNN = [  # filters, pool (frames, mels); 3x3, stride 1: (188, 96) -> (94, 48) -> (31, 16) -> (15, 4) -> (15, 1)
    (64, (2, 2)),
    (128, (3, 3)),
    (128, (2, 4)),
    (128, (1, 4)),
]
CRNN_GRUS = [32, 32]


def crnn(features: keras.KerasTensor, width: float = 1.0, layers=CRNN, grus=CRNN_GRUS, attention: int = 0) -> keras.KerasTensor:
    """Convolutional recurrent network (Choi et al., ICASSP 2017): convolutions shrink the log-mel to steps, two GRUs read them in order.

    Convolution, batch normalization, ELU, max pooling and dropout .1, four times; the last GRU's last state. 394,100 trainable parameters at
    96 bands with a head of 50 classes; published with dropout .3 before the head.

    The paper pools frames and bands by 2, 3, 4 and 4, which makes 15 steps of its 29 s, 1,366 frames padded to 1,440. Of a 3 s window the
    same pools would leave one step, and nothing to recur over. Here bands are pooled as published, 96 to 1, and frames by 2, 3, 2 and 1: 15
    steps of 188 frames. The GRUs are unrolled, so that a phone's runtime needs no loop: the graph grows with the steps, one for 12 frames.

    With `attention` the last GRU's states of all steps are pooled by `AttentionPooling` in place of the last one; of 32 units that is 1,088
    parameters more, 395,188.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`.
        width: factor on the filters and units `float > 0`.
        layers: rows (filters, (frames, mels) pooled); a pool over bands is cut to what is left of them.
        grus: units of the recurrent layers.
        attention: units of the attention over steps `int >= 0`; 0: the last step's state.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 32 dims.

    Raises:
        ValueError: too few frames for two steps, below 24 with these pools.
    """
    x = BatchNormalization(name="input_norm")(as_image(features))  # (batch, frames, mels, channels)
    for number, (filters, (frames, mels)) in enumerate(layers, start=1):
        x = keras.layers.Conv2D(scaled(filters, width), 3, padding="same", name=f"conv{number}")(x)
        x = keras.layers.ELU()(BatchNormalization(name=f"norm{number}")(x))
        x = keras.layers.MaxPooling2D(cut((frames, mels), x))(x)
        x = keras.layers.Dropout(0.1)(x)
    x = _steps(x, features, "crnn")
    for number, units in enumerate(grus, start=1):
        every = bool(attention) or number < len(grus)
        x = keras.layers.GRU(scaled(units, width), return_sequences=every, unroll=True, name=f"gru{number}")(x)
    return AttentionPooling(scaled(attention, width), name="attention")(x) if attention else x


def _steps(x, features, name: str):
    """A map as steps in time `[shape=(batch, frames, mels * filters)]`, two at least."""
    if x.shape[1] < 2:
        raise ValueError(f"features of {name} must have frames for two steps of its GRUs, got {features.shape[1]} frames, one step")
    return keras.layers.Reshape((x.shape[1], -1))(x)


CRNN_EVENTS = [(128, (2, 5)), (128, (2, 4)), (128, (2, 2))]  # filters, pool (frames, mels): (101, 96) -> (50, 19) -> (25, 4) -> (12, 2)
CRNN_EVENTS_GRU = 64


def crnn_events(features: keras.KerasTensor, width: float = 1.0, layers=CRNN_EVENTS, gru=CRNN_EVENTS_GRU) -> keras.KerasTensor:
    """The CRNN baseline of FSD50K (Fonseca et al., TASLP 2022), after Cakir et al. (TASLP 2017).

    5x5 convolutions without bias, batch normalization, ReLU, max pooling, three times; a GRU in each direction reads the steps, and their last
    states are multiplied. Published as .96 M; 959,816 trainable parameters with 96 bands and a head of 200 classes, counted on the same
    author's PyTorch model (github.com/edufonseca/uclser20).

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`; published: 101 frames, 96 bands, 1 s at 22,050 Hz.
        width: factor on the filters and units `float > 0`.
        layers: rows (filters, (frames, mels) pooled); a pool is cut to what is left.
        gru: units in each direction `int > 0`.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 64 dims.

    Raises:
        ValueError: too few frames for two steps, below 16 with these pools.
    """
    x = input_norm(features)  # (batch, frames, mels, channels)
    for number, (filters, pool) in enumerate(layers, start=1):
        x = keras.layers.Conv2D(scaled(filters, width), 5, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = keras.layers.ReLU()(BatchNormalization(name=f"norm{number}")(x))
        x = keras.layers.MaxPooling2D(cut(pool, x))(x)
    x = _steps(x, features, "crnn_fsd")
    return keras.layers.Bidirectional(keras.layers.GRU(scaled(gru, width), unroll=True), merge_mode="mul", name="gru")(x)


LSTM = [128, 128]  # units
UNROLLED = 64  # frames up to which the layers are unrolled: 30 s of music have about 62 beats


def lstm(features: keras.KerasTensor, width: float = 1.0, layers=LSTM) -> keras.KerasTensor:
    """LSTMs over a sequence of any length, padded with frames of exact zeros, which are left out everywhere.

    Masking, batch normalization over the frames that are there, LSTM layers; the last layer's state after the last such frame. Padding must come
    last; a frame of exact zeros before it, as silence is in chroma, is left out as well. The report (S4) gives no sizes; ours count 264,714
    trainable parameters with 128 features a frame and 10 classes.

    Up to 64 frames, where their number is known, the layers are unrolled for runtimes without loops.

    Args:
        features: `[shape=(batch, frames, dims)]`, frames may be None; or `[shape=(batch, frames, dims, channels)]`.
        width: factor on the units `float > 0`.
        layers: units of each layer.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 128 dims. Of an example without a frame zeros.

    >>> lstm(keras.Input((None, 128))).shape
    (None, 128)
    """
    frames, *dims = features.shape[1:]
    x = features if len(dims) == 1 else keras.layers.Reshape((-1 if frames is None else frames, dims[0] * dims[1]))(features)
    x = keras.layers.Masking(name="masking")(x)
    x = BatchNormalization(name="input_norm")(x)
    for number, units in enumerate(layers, start=1):
        every, unroll = number < len(layers), frames is not None and frames <= UNROLLED
        # cuDNN's kernel refuses masks of sequences without a frame and with silence at their beginning.
        x = keras.layers.LSTM(scaled(units, width), return_sequences=every, unroll=unroll, use_cudnn=False, name=f"lstm{number}")(x)
    return x
