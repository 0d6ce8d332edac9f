"""Genres of GTZAN: report S3's nets on 8 of its 10 genres, segments of 4 s, the mean over a clip's segments.

Reported scores are test accuracies in %, with augmentation, means of three seeds (`--seeds 3`), on a split of the report's own, which mixed segments
and augmented validation. Here a clip's segments stay together, in validation and test 7 of each, the mean of which is scored, or with
`--evaluation.pool max` the greatest. Noise, shift and tempo change in training alone, or not at all with `--augment.waveform.probability 0`: an epoch
has twice 7 segments of a clip, at random places, and half of them are as they were, as if one changed copy lay beside each clip. musicnn hears
16 kHz, so recipes with its vector do, at windows of 4 s, to which it is built anew: it pools over time.
"""

from __future__ import annotations

from tfmusic.config import Augment, Data, Evaluation, Experiment, Fit, FrontEnd, Loss, Net, WaveformAugment

SEGMENT_S = 4.0
SEGMENTS = 7  # of a clip
HOP_S = 4.45  # all clips, 29.93 to 30.65 s, have 7 windows then, the last one at the end
CHANGED = WaveformAugment(probability=0.2, gain_db=0.0, noise_snr_db=(10, 40), shift_s=SEGMENT_S / 2, stretch=0.1)  # .8 ** 3: half are as they were


def _gtzan(recipe: str, net: str, frozen: str | None = None, **settings) -> Experiment:
    """What the nets of the report share: n_fft 1024, hop 512, 128 bands, Adam 1e-4, batches of 32, two crops for each of a clip's segments."""
    log_mel = {} if net == "mlp" else {"n_fft": 1024, "hop_samples": 512, "n_mels": 128}
    return Experiment(
        recipe=recipe,
        task="genre",
        frozen=frozen,
        frontend=FrontEnd(sample_rate_hz=16_000 if frozen else 22_050, window_s=SEGMENT_S, **log_mel),
        augment=Augment(waveform=CHANGED),
        data=Data(crops_per_clip=2 * SEGMENTS),
        net=Net(name=net),
        loss=Loss(name="crossentropy"),
        fit=Fit(epochs=100, batch_size=32, learning_rate=1e-4, monitor="val_accuracy", patience=20),
        evaluation=Evaluation(hop_s=HOP_S),
        **settings,
    )


def gtzan_cnn1d_3() -> Experiment:
    """The 1D CNN of three layers of 32 channels: GTZAN, 8 genres, 4 s segments.

    Reported 60.7. 2 CPU cores: seconds an epoch.
    """
    return _gtzan("gtzan_cnn1d_3", "cnn1d_3")


def gtzan_cnn1d_4() -> Experiment:
    """The 1D CNN of four layers, channels doubling and kernels shrinking: GTZAN, 8 genres, 4 s segments.

    Reported 61.3. 2 CPU cores: seconds an epoch.
    """
    return _gtzan("gtzan_cnn1d_4", "cnn1d_4")


def gtzan_cnn2d() -> Experiment:
    """The 2D twin of `gtzan_cnn1d_4`: GTZAN, 8 genres, 4 s segments.

    Reported 73.8. 2 CPU cores: minutes an epoch.
    """
    return _gtzan("gtzan_cnn2d", "cnn2d_4")


def gtzan_mtt_embedding() -> Experiment:
    """Two linear layers on musicnn's vector of MagnaTagATune: GTZAN, 8 genres, 4 s segments; hidden 32.

    Reported 73.8. 2 CPU cores: minutes an epoch, nearly all of them musicnn's. Needs `pip install --no-deps musicnn==0.1.0`.
    """
    return _gtzan("gtzan_mtt_embedding", "mlp", frozen="mtt_musicnn")


def gtzan_msd_embedding() -> Experiment:
    """Two linear layers on musicnn's vector of the Million Song Dataset: GTZAN, 8 genres, 4 s segments; hidden 32.

    Reported 86.7, the report's best. 2 CPU cores and installation as of `gtzan_mtt_embedding`.
    """
    return _gtzan("gtzan_msd_embedding", "mlp", frozen="msd_musicnn")


def gtzan_cnn1d_msd() -> Experiment:
    """The 1D CNN beside musicnn's vector of the Million Song Dataset: GTZAN, 8 genres, 4 s segments.

    Reported 74.9 with augmentation and without segments. 2 CPU cores and installation as of `gtzan_mtt_embedding`.
    """
    return _gtzan("gtzan_cnn1d_msd", "cnn1d_4", frozen="msd_musicnn")


def gtzan_cnn2d_msd() -> Experiment:
    """The 2D CNN beside musicnn's vector of the Million Song Dataset: GTZAN, 8 genres, 4 s segments.

    Reported 84.0; 79.3 without segments, both with augmentation. 2 CPU cores and installation as of `gtzan_mtt_embedding`.
    """
    return _gtzan("gtzan_cnn2d_msd", "cnn2d_4", frozen="msd_musicnn")


def gtzan_resnet34_msd() -> Experiment:
    """ResNet-34 beside musicnn's vector of the Million Song Dataset: GTZAN, 8 genres, 4 s segments.

    Reported 86.0; 83.6 without segments, both with augmentation. A GPU is advised. Installation as of `gtzan_mtt_embedding`.
    """
    return _gtzan("gtzan_resnet34_msd", "resnet34", frozen="msd_musicnn")


def gtzan_vgg13() -> Experiment:
    """VGG-13 on the log-mel as an image: GTZAN, 8 genres, 4 s segments.

    Reported, of seven such nets: 75.6 to 80.4. A GPU is advised.
    """
    return _gtzan("gtzan_vgg13", "vgg13")


def gtzan_vgg16() -> Experiment:
    """VGG-16 on the log-mel as an image: GTZAN, 8 genres, 4 s segments.

    Reported, of seven such nets: 75.6 to 80.4. A GPU is advised.

    ImageNet's weights, if wanted: `--net.weights` keras.applications' vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5.
    """
    return _gtzan("gtzan_vgg16", "vgg16")


def gtzan_vgg19() -> Experiment:
    """VGG-19 on the log-mel as an image: GTZAN, 8 genres, 4 s segments.

    Reported, of seven such nets: 75.6 to 80.4. A GPU is advised.

    ImageNet's weights, if wanted: `--net.weights` keras.applications' vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5.
    """
    return _gtzan("gtzan_vgg19", "vgg19")


def gtzan_resnet18() -> Experiment:
    """ResNet-18 on the log-mel as an image: GTZAN, 8 genres, 4 s segments.

    Reported, of seven such nets: 75.6 to 80.4. A GPU is advised.
    """
    return _gtzan("gtzan_resnet18", "resnet18")


def gtzan_resnet34() -> Experiment:
    """ResNet-34 on the log-mel as an image: GTZAN, 8 genres, 4 s segments.

    Reported, of seven such nets: 75.6 to 80.4. A GPU is advised.
    """
    return _gtzan("gtzan_resnet34", "resnet34")


def gtzan_resnet50() -> Experiment:
    """ResNet-50 on the log-mel as an image: GTZAN, 8 genres, 4 s segments.

    Reported, of seven such nets: 75.6 to 80.4. A GPU is advised.

    ImageNet's weights, if wanted: `--net.weights` keras.applications' resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5.
    """
    return _gtzan("gtzan_resnet50", "resnet50")


def gtzan_resnet101() -> Experiment:
    """ResNet-101 on the log-mel as an image: GTZAN, 8 genres, 4 s segments.

    Reported, of seven such nets: 75.6 to 80.4. A GPU is advised.

    ImageNet's weights, if wanted: `--net.weights` keras.applications' resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5.
    """
    return _gtzan("gtzan_resnet101", "resnet101")
