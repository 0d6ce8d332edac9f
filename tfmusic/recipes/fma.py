"""Genres and emotion on FMA: report S4's LSTMs over frames and beats, its CNN, and numbers learnt in place of labels.

The report's subset is not given, nor are its nets' sizes and how it merged genres to ten: scores are an orientation. Emotion is Echo Nest's
valence, energy and danceability; tracks without them are left out of its loss and figures, which are Spearman's rank correlations.
"""

from __future__ import annotations

from pathlib import Path

from tfmusic.config import Evaluation, Experiment, Features, Fit, FrontEnd, Loss, Net

CLIP = FrontEnd(sample_rate_hz=22_050, window_s=30.0, n_fft=2048, hop_samples=512, n_mels=128)
GENRES = Path("runs/genre")  # where `emotion_transfer` looks for the run of `fma_cnn2d`, unless --init names another
GENRE = {"task": "genre", "loss": Loss(name="crossentropy")}


def _lstm(recipe: str, kind: str, monitor: str, **settings) -> Experiment:
    """LSTMs over a track's sequence of features, 128 mel bands or 12 pitch classes or both, 1,292 frames of 30 s or about 62 beats."""
    return Experiment(
        recipe=recipe,
        frontend=FrontEnd(sample_rate_hz=CLIP.sample_rate_hz),
        sequences=Features(kind=kind, n_fft=CLIP.n_fft, hop_samples=CLIP.hop_samples, n_mels=CLIP.n_mels),
        net=Net(name="lstm", dropout=0.2),
        fit=Fit(batch_size=32, monitor=monitor),
        **settings,
    )


def _cnn(recipe: str, monitor: str, **settings) -> Experiment:
    """The fully convolutional net on whole clips of 30 s: the report's 2D CNN is not described."""
    shared = {"fit": Fit(learning_rate=1e-4, monitor=monitor)}
    return Experiment(
        recipe=recipe, frontend=CLIP, net=Net(name="fcn", dropout=0.5), evaluation=Evaluation(hop_s=CLIP.window_s), **(shared | settings)
    )


def fma_lstm_mel_raw() -> Experiment:
    """LSTMs over 128 mel bands of each frame: FMA, ten genres, whole clips.

    Reported accuracy .28. A GPU is advised: 1,292 steps a track.
    """
    return _lstm("fma_lstm_mel_raw", "log_mel", "val_accuracy", **GENRE)


def fma_lstm_chroma_raw() -> Experiment:
    """LSTMs over 12 pitch classes of each frame: FMA, ten genres, whole clips.

    Reported accuracy .18. A GPU is advised: 1,292 steps a track.
    """
    return _lstm("fma_lstm_chroma_raw", "chroma", "val_accuracy", **GENRE)


def fma_lstm_fused_raw() -> Experiment:
    """LSTMs over mel bands and pitch classes side by side of each frame: FMA, ten genres, whole clips.

    Reported accuracy .29. A GPU is advised: 1,292 steps a track.
    """
    return _lstm("fma_lstm_fused_raw", "fused", "val_accuracy", **GENRE)


def fma_lstm_mel_beat() -> Experiment:
    """LSTMs over 128 mel bands of each beat, their mean: FMA, ten genres, whole clips.

    Reported accuracy .38. 2 CPU cores: seconds an epoch.
    """
    return _lstm("fma_lstm_mel_beat", "beat_mel", "val_accuracy", **GENRE)


def fma_lstm_chroma_beat() -> Experiment:
    """LSTMs over 12 pitch classes of each beat, their mean: FMA, ten genres, whole clips.

    Reported accuracy: none. 2 CPU cores: seconds an epoch.
    """
    return _lstm("fma_lstm_chroma_beat", "beat_chroma", "val_accuracy", **GENRE)


def fma_lstm_fused_beat() -> Experiment:
    """LSTMs over mel bands and pitch classes side by side of each beat, their mean: FMA, ten genres, whole clips.

    Reported accuracy .37. 2 CPU cores: seconds an epoch.
    """
    return _lstm("fma_lstm_fused_beat", "beat_fused", "val_accuracy", **GENRE)


def fma_cnn2d() -> Experiment:
    """A 2D CNN on whole clips of 30 s: FMA, ten genres.

    Reported accuracy .38, macro F1 .29. A GPU is advised. With `--out runs/genre` it is what `emotion_transfer` begins with.
    """
    return _cnn("fma_cnn2d", "val_accuracy", **GENRE)


def emotion_cnn_valence() -> Experiment:
    """The 2D CNN of `fma_cnn2d` for one number, valence: FMA, whole clips of 30 s, squared error.

    Reported Spearman .174. A GPU is advised.
    """
    return _cnn("emotion_cnn_valence", "val_spearman", task="emotion", targets=("valence",))


def emotion_cnn_energy() -> Experiment:
    """The 2D CNN of `fma_cnn2d` for one number, energy: FMA, whole clips of 30 s, squared error.

    Reported Spearman .741. A GPU is advised.
    """
    return _cnn("emotion_cnn_energy", "val_spearman", task="emotion", targets=("energy",))


def emotion_cnn_danceability() -> Experiment:
    """The 2D CNN of `fma_cnn2d` for one number, danceability: FMA, whole clips of 30 s, squared error.

    Reported Spearman .420. A GPU is advised.
    """
    return _cnn("emotion_cnn_danceability", "val_spearman", task="emotion", targets=("danceability",))


def emotion_lstm_valence() -> Experiment:
    """LSTMs over the mel bands of each beat for one number, valence: FMA, whole clips, squared error.

    Reported Spearman -.144. 2 CPU cores: seconds an epoch.
    """
    return _lstm("emotion_lstm_valence", "beat_mel", "val_spearman", task="emotion", targets=("valence",))


def emotion_lstm_energy() -> Experiment:
    """LSTMs over the mel bands of each beat for one number, energy: FMA, whole clips, squared error.

    Reported Spearman .144. 2 CPU cores: seconds an epoch.
    """
    return _lstm("emotion_lstm_energy", "beat_mel", "val_spearman", task="emotion", targets=("energy",))


def emotion_lstm_danceability() -> Experiment:
    """LSTMs over the mel bands of each beat for one number, danceability: FMA, whole clips, squared error.

    Reported Spearman .257. 2 CPU cores: seconds an epoch.
    """
    return _lstm("emotion_lstm_danceability", "beat_mel", "val_spearman", task="emotion", targets=("danceability",))


def emotion_transfer() -> Experiment:
    """A genre CNN that learns energy: FMA, whole clips of 30 s, all layers slowly; `--freeze LAYER` keeps the first ones.

    Reported Spearman .541, below the .741 of `emotion_cnn_energy`; step 1e-4, 5 epochs. Begins with the run in runs/genre, or `--init RUN`, and
    takes its front end and net: `python train.py --recipe fma_cnn2d --records DIR --out runs/genre` makes it. A GPU is advised.
    """
    fit = Fit(epochs=5, learning_rate=1e-4, monitor="val_spearman")
    return _cnn("emotion_transfer", "val_spearman", task="emotion", targets=("energy",), init=GENRES, fit=fit)


def emotion_multitask() -> Experiment:
    """One network, three numbers: valence, energy and danceability: FMA, whole clips of 30 s, squared error of each in its own spread.

    Reported Spearman -.064, .458 and -.045, below a net for each. A GPU is advised.
    """
    return _cnn("emotion_multitask", "val_spearman", task="emotion", targets=("valence", "energy", "danceability"))
