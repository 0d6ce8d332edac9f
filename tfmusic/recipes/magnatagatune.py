"""Tagging MagnaTagATune with 50 tags: the systems of report S1, and nets of the literature that stand beside them.

The reports' scores are of an unpublished subset of 9,074 clips, an orientation and not a protocol; published ones name their split.
Nets of Won et al. (SMC 2020) have their Adam and then SGD, but decoupled weight decay where theirs was an L2 term of the loss.
"""

from __future__ import annotations

from tfmusic.config import PRESETS, Augment, Data, Evaluation, Experiment, Fit, FrontEnd, Loss, Net, WaveformAugment

SHORT_CHUNK = FrontEnd(window_s=59_049 / 16_000, n_mels=128)
RESOLUTIONS = FrontEnd(resolutions_ms=(10, 20, 30), frames=101, n_mels=128, log="ln_offset", floor=1e-6)
NOISY = Augment(waveform=WaveformAugment(probability=0.3, gain_db=0.0, noise_snr_db=(10, 40), shift_s=1.0, stretch=0.1))  # .7 ** 3: a third as it was
TWO_STAGE = Fit(epochs=200, learning_rate=1e-4, weight_decay=1e-4, schedule="two_stage", patience=80)  # of Won et al.: all 200 epochs


def _mtat(recipe: str, net: str, dropout: float = 0.0, **settings) -> Experiment:
    """What the taggers of the reports share: 3 s windows of 96 bands, Adam with weight decay."""
    shared = {"net": Net(name=net, dropout=dropout), "fit": Fit(weight_decay=1e-4)}
    return Experiment(recipe=recipe, **(shared | settings))


def mtat_cnn1d() -> Experiment:
    """The 1D CNN that report S1 began with: MagnaTagATune, 50 tags, bands as channels of convolutions over frames.

    Reported test ROC-AUC .65. 2 CPU cores: a minute an epoch.
    """
    return _mtat("mtat_cnn1d", "cnn1d")


def mtat_cnn2d() -> Experiment:
    """The 2D CNN of report S1: MagnaTagATune, 50 tags, 3 s windows of 96 bands.

    Reported test ROC-AUC .75 to .77 on an unpublished subset of 9,074 clips, an orientation and not a protocol. 2 CPU cores: minutes an
    epoch. A report's network had kernel 1 in its fourth layer and a pool that saw 2 of 5 columns; this one has neither, but keeps the
    published pools, which cut off the last 7 of 96 bands (see `cnn2d`).
    """
    return _mtat("mtat_cnn2d", "cnn2d")


def mtat_cnn2d_deep() -> Experiment:
    """The deeper 2D CNN of report S1, five layers and dropout .5: MagnaTagATune, 50 tags; its pools hear all 96 bands.

    Reported test ROC-AUC .86. 2 CPU cores: most of an hour an epoch of the clean split.
    """
    return _mtat("mtat_cnn2d_deep", "cnn2d_deep", dropout=0.5)


def mtat_fcn() -> Experiment:
    """The fully convolutional net of Choi et al. (2016) on whole clips of 29 s: MagnaTagATune, 50 tags.

    Published on the clean split: ROC-AUC .901, PR-AUC .430 (Won et al., SMC 2020), whose Adam and then SGD it has. A GPU is advised.
    """
    return _mtat("mtat_fcn", "fcn", dropout=0.5, frontend=FrontEnd(window_s=29.0), fit=TWO_STAGE, evaluation=Evaluation(hop_s=29.0))


def mtat_multichannel() -> Experiment:
    """The 2D CNN on three resolutions as channels, 10, 20 and 30 ms: MagnaTagATune, 50 tags, 128 bands, 101 frames.

    Reported test ROC-AUC .78 after 10 epochs, where one resolution had .76. Its frames lay end to end, so that Hann's window faded their
    edges out: `--frontend.overlap 0` is that, half of each frame is shared with the next one here. 2 CPU cores: minutes an epoch.
    """
    return _mtat("mtat_multichannel", "cnn2d", frontend=RESOLUTIONS)


def mtat_crnn() -> Experiment:
    """Convolutions, then two GRUs over the 15 steps of time that they leave: MagnaTagATune, 50 tags.

    Reported test ROC-AUC .85, of a net that had pooled time away before its GRU. 2 CPU cores: most of an hour an epoch of the clean split.
    """
    return _mtat("mtat_crnn", "crnn", dropout=0.3)


def mtat_crnn_attention() -> Experiment:
    """`mtat_crnn` with attention over the steps in place of the last one: MagnaTagATune, 50 tags; ours, without a figure.

    2 CPU cores: most of an hour an epoch of the clean split.
    """
    return _mtat("mtat_crnn_attention", "crnn_attention", dropout=0.3)


def mtat_musicnn() -> Experiment:
    """musicnn from fresh weights with its own front end: MagnaTagATune, 50 tags, 187 frames of log10(10,000 x + 1).

    Reported test ROC-AUC .87; published .907 / PR .383 on the full split by its authors, .911 / .449 on the clean one (Won et al., SMC 2020, whose
    Adam and then SGD it has). Its filters are those of the published checkpoints, 128, 64 and 32 frames wide, where the reports have 129, 65 and
    33. It hears what its authors' nets heard in training: `musicnn_patch`, no frame of which holds padding. A GPU is
    advised: on 2 CPU cores a step of 16 windows takes seconds. `mtt_musicnn` has the published weights.
    """
    hop = Evaluation(hop_s=187 * 256 / 16_000)
    return _mtat("mtat_musicnn", "musicnn", dropout=0.5, frontend=PRESETS["musicnn_patch"], fit=TWO_STAGE, evaluation=hop)


def mtat_short_chunk() -> Experiment:
    """Short-chunk CNN, VGG-like: MagnaTagATune, 50 tags, windows of 59,049 samples, 128 bands, 3.7 M parameters.

    `mtat_short_chunk_res` without its shortcuts; Won et al. (SMC 2020) have both, and Adam and then SGD for them. A GPU is advised.
    """
    hop = Evaluation(hop_s=SHORT_CHUNK.window_s)
    return _mtat("mtat_short_chunk", "short_chunk", dropout=0.5, frontend=SHORT_CHUNK, fit=TWO_STAGE, evaluation=hop)


def mtat_short_chunk_res() -> Experiment:
    """Short-chunk CNN with residual connections: MagnaTagATune, 50 tags, windows of 59,049 samples, 128 bands, 12.1 M parameters.

    Published on the clean split: ROC-AUC .9129, PR-AUC .4614 (Won et al., SMC 2020), with Adam for 80 epochs of 200 and then SGD, as here; the
    reports' own number is missing. A GPU is advised: on 2 CPU cores a step of 16 windows takes about a second.
    """
    hop = Evaluation(hop_s=SHORT_CHUNK.window_s)
    return _mtat("mtat_short_chunk_res", "short_chunk_res", dropout=0.5, frontend=SHORT_CHUNK, fit=TWO_STAGE, evaluation=hop)


def mtat_mobile() -> Experiment:
    """A MobileNetV3 for phones of .98 M parameters, mn04 of EfficientAT: MagnaTagATune, 50 tags, 3 s windows of 128 bands.

    Published on AudioSet: mAP .432, taught by transformers (Schmid et al., ICASSP 2023); no figure here. 2 CPU cores: minutes an epoch.
    """
    return _mtat("mtat_mobile", "mobile", dropout=0.2, frontend=FrontEnd(n_mels=128))


def mtat_focal() -> Experiment:
    """`mtat_cnn2d` with focal loss alone (gamma 2, alpha .5): MagnaTagATune, 50 tags.

    Reported test ROC-AUC .71 where the report's baseline had .64. 2 CPU cores: minutes an epoch.
    """
    return _mtat("mtat_focal", "cnn2d", loss=Loss(name="focal", focal_gamma=2.0, focal_alpha=0.5))


def mtat_augmented() -> Experiment:
    """`mtat_cnn2d` with noise, shift and changed tempo in training alone: MagnaTagATune, 50 tags, three windows of each clip an epoch.

    Reported test ROC-AUC .71 where the report's baseline had .64. The report put two changed copies beside each clip, 18,618 for 6,206: here an epoch
    has three windows of a clip where that of `mtat_cnn2d` has one, and a third of them is unchanged. Equal are the epochs, not the steps: this one
    takes three times as many; `mtat_cnn2d --data.crops-per-clip 3` as many. 2 CPU cores: minutes an epoch.
    """
    return _mtat("mtat_augmented", "cnn2d", augment=NOISY, data=Data(crops_per_clip=3))


def mtat_musical_res_focal() -> Experiment:
    """Timbral and temporal filters, residual blocks, three resolutions, focal loss, noise, shift, tempo: MagnaTagATune, 50 tags.

    Reported test ROC-AUC .86. A GPU is advised: on 2 CPU cores a step of 16 windows takes about a second.
    """
    focal = Loss(name="focal", focal_gamma=2.0, focal_alpha=0.5)
    return _mtat("mtat_musical_res_focal", "musical_res", frontend=RESOLUTIONS, loss=focal, augment=NOISY)


def mtat_transfer_resnet() -> Experiment:
    """ResNet-50 of ImageNet on three resolutions in place of three colours: MagnaTagATune, 50 tags.

    Reported: no gain. `--net.weights FILE` is keras.applications' resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5; without it the weights
    are fresh. A GPU is advised.
    """
    return _mtat("mtat_transfer_resnet", "resnet50", frontend=RESOLUTIONS, fit=Fit(learning_rate=1e-4, weight_decay=1e-4))


def mtat_transfer_efficientnet() -> Experiment:
    """EfficientNet-B0 of ImageNet on three resolutions in place of three colours: MagnaTagATune, 50 tags.

    Reported: no gain. `--net.weights FILE` is keras.applications' efficientnetb0_notop.h5; without it the weights are fresh. A GPU is advised.
    """
    fit = Fit(learning_rate=1e-4, weight_decay=1e-4)
    return _mtat("mtat_transfer_efficientnet", "efficientnet_b0", dropout=0.2, frontend=RESOLUTIONS, fit=fit)
