"""Convolutions with recurrent layers over the time that they leave."""

from __future__ import annotations

import keras

from tfmusic.models.blocks import BatchNormalization, as_image, scaled

CRNN = [  # filters, pool (frames, mels); 3x3, stride 1: (188, 96) -> (94, 48) -> (31, 16) -> (15, 4) -> (15, 1)
    (64, (2, 2)),
    (128, (3, 3)),
    (128, (2, 4)),
    (128, (1, 4)),
]
CRNN_GRUS = [32, 32]


def crnn(features: keras.KerasTensor, width: float = 1.0, layers=CRNN, grus=CRNN_GRUS) -> keras.KerasTensor:
    """Convolutional recurrent network (Choi et al., ICASSP 2017): convolutions shrink the log-mel to steps, two GRUs read them in order.

    Convolution, batch normalization, ELU, max pooling and dropout .1, four times; the last GRU's last state. 394,100 trainable parameters at
    96 bands with a head of 50 classes; published with dropout .3 before the head.

    The paper pools frames and bands by 2, 3, 4 and 4, which makes 15 steps of its 29 s, 1,366 frames padded to 1,440. Of a 3 s window the
    same pools would leave one step, and nothing to recur over. Here bands are pooled as published, 96 to 1, and frames by 2, 3, 2 and 1: 15
    steps of 188 frames. The GRUs are unrolled, so that a phone's runtime needs no loop: the graph grows with the steps, one for 12 frames.

    Args:
        features: `[shape=(batch, frames, mels)]` or `[shape=(batch, frames, mels, channels)]`.
        width: factor on the filters and units `float > 0`.
        layers: rows (filters, (frames, mels) pooled); a pool over bands is cut to what is left of them.
        grus: units of the recurrent layers.

    Returns:
        One vector an example `[shape=(batch, dims)]`; 32 dims.

    Raises:
        ValueError: too few frames for two steps, below 24 with these pools.
    """
    x = BatchNormalization(name="input_norm")(as_image(features))  # (batch, frames, mels, channels)
    for number, (filters, (frames, mels)) in enumerate(layers, start=1):
        x = keras.layers.Conv2D(scaled(filters, width), 3, padding="same", name=f"conv{number}")(x)
        x = keras.layers.ELU()(BatchNormalization(name=f"norm{number}")(x))
        x = keras.layers.MaxPooling2D((min(frames, x.shape[1]), min(mels, x.shape[2])))(x)
        x = keras.layers.Dropout(0.1)(x)
    if x.shape[1] < 2:
        raise ValueError(f"features of crnn must have frames for two steps of its GRUs, got {features.shape[1]} frames, one step")
    x = keras.layers.Reshape((x.shape[1], -1))(x)  # (batch, steps, mels * filters)
    for number, units in enumerate(grus, start=1):
        x = keras.layers.GRU(scaled(units, width), return_sequences=number < len(grus), unroll=True, name=f"gru{number}")(x)
    return x
