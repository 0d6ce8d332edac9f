"""Sound events of FSD50K: report S2's nets on 200 classes and on AudioSet's families, and the dataset's own baselines.

Reported figures are of the evaluation set. The four-layer CNNs were reported with "a scheduler", which is taken for one that halves the step size on
a plateau of the monitor, as for all other nets here; those of three layers have the reported cosine. The best epoch of validation counts. Every
window is a random crop, but for `fsd50k_cnn3` the first 6 s; shorter sounds are repeated.
"""

from __future__ import annotations

from tfmusic.config import PRESETS, Augment, Data, Evaluation, Experiment, Fit, FrontEnd, Loss, Net, SpecAugment

WINDOW = FrontEnd(sample_rate_hz=22_050, window_s=6.0, short="tile", n_fft=1024, hop_samples=256, n_mels=128, normalise="window")
SECOND = FrontEnd(
    sample_rate_hz=22_050, window_s=1.0, short="tile", n_fft=2048, frame_samples=660, hop_samples=220, n_mels=96, f_min_hz=50, f_max_hz=10_500
)
PLATEAU = Fit(batch_size=32, schedule="plateau", patience=12)
COSINE = Fit(batch_size=32, schedule="cosine")
OVERSAMPLED = Data(oversample=0.005)  # every class in .5 % of the windows or more, near the most that 144 leaves allow; the report gives no share


def _fsd50k(recipe: str, net: str, dropout: float = 0.0, frontend: FrontEnd = WINDOW, **settings) -> Experiment:
    """What the nets of the report share: 6 s at 22,050 Hz in 128 bands, batches of 32, Adam .001; tracks are scored every half window."""
    shared = {"fit": PLATEAU, "evaluation": Evaluation(hop_s=frontend.window_s / 2)}
    return Experiment(recipe=recipe, task="events", frontend=frontend, net=Net(name=net, dropout=dropout), **(shared | settings))


def fsd50k_cnn4() -> Experiment:
    """The four-layer CNN of report S2: FSD50K, 200 classes, 6 s windows of 128 bands.

    Reported mAP .443, of families .747, d' 2.273, lwlrap .633. A GPU is advised: on 2 CPU cores a step of 32 windows takes seconds. SpecAugment
    is `--augment.spec-augment.probability .5`.
    """
    return _fsd50k("fsd50k_cnn4", "cnn4", dropout=0.2)


def fsd50k_cnn4_focal() -> Experiment:
    """`fsd50k_cnn4` with class weights, focal loss and logits that begin at the classes' shares: FSD50K, 200 classes.

    Reported mAP .440, of families .745, d' 2.292, lwlrap .629. A GPU is advised.
    """
    return _fsd50k("fsd50k_cnn4_focal", "cnn4", 0.2, loss=Loss(name="focal", class_weights=True, prior_bias=True))


def fsd50k_cnn4_oversampled() -> Experiment:
    """`fsd50k_cnn4` with clips of rare classes drawn more often: FSD50K, 200 classes.

    Reported mAP .439, of families .739, d' 2.247, lwlrap .625. A GPU is advised.
    """
    return _fsd50k("fsd50k_cnn4_oversampled", "cnn4", 0.2, data=OVERSAMPLED)


def fsd50k_cnn4_best() -> Experiment:
    """`fsd50k_cnn4_oversampled` with SpecAugment and mixup, the best of report S2: FSD50K, 200 classes.

    Reported mAP .470, of families .754, d' 2.309, lwlrap .643. A GPU is advised.
    """
    augment = Augment(spec_augment=SpecAugment(probability=0.5), mixup_alpha=0.2)
    return _fsd50k("fsd50k_cnn4_best", "cnn4", 0.2, data=OVERSAMPLED, augment=augment)


def fsd50k_cnn3() -> Experiment:
    """The three-layer CNN of report S2, cosine decay, no random crop: FSD50K, 200 classes, 6 s windows of 128 bands.

    Reported mAP .327 to .414. A GPU is advised: on 2 CPU cores a step of 32 windows takes seconds.
    """
    return _fsd50k("fsd50k_cnn3", "cnn3", dropout=0.2, fit=COSINE, data=Data(crop="start"))


def fsd50k_families_cnn3() -> Experiment:
    """The three-layer CNN on one of AudioSet's six top families: FSD50K, 5 s windows of 64 bands, cross-entropy.

    Reported mAP .577; of five families, records of `--label-set families5`, .676. A GPU is advised: on 2 CPU cores a step takes seconds.
    """
    frontend = WINDOW.model_copy(update={"window_s": 5.0, "n_mels": 64})
    return _fsd50k("fsd50k_families_cnn3", "cnn3", 0.2, frontend, loss=Loss(name="crossentropy"), fit=COSINE)


def fsd50k_families_panns_cnn6() -> Experiment:
    """PANNs CNN6 on one of AudioSet's six top families: FSD50K, 5 s windows at 32 kHz, PANNs' own log-mel, cross-entropy.

    Reported mAP .624. `--net.weights FILE` is PANNs' Cnn6_mAP=0.343.pth, which needs PyTorch to be read; without it the weights are fresh.
    A GPU is advised.
    """
    frontend = PRESETS["panns"].model_copy(update={"window_s": 5.0, "short": "tile"})
    return _fsd50k("fsd50k_families_panns_cnn6", "cnn6", 0.5, frontend, loss=Loss(name="crossentropy"))


def fsd50k_panns_cnn6() -> Experiment:
    """PANNs CNN6 on all classes, the report's wish: FSD50K, 200 classes, 6 s windows at 32 kHz, PANNs' own log-mel.

    No figure. `--net.weights` as in `fsd50k_families_panns_cnn6`; `--net.name cnn10` and `cnn14` are its larger siblings. A GPU is advised.
    """
    return _fsd50k("fsd50k_panns_cnn6", "cnn6", 0.5, PRESETS["panns"].model_copy(update={"window_s": 6.0, "short": "tile"}))


def fsd50k_crnn() -> Experiment:
    """The CRNN baseline of FSD50K, .96 M parameters: 200 classes, 1 s windows of 96 bands.

    Published mAP .417 (Fonseca et al., TASLP 2022). A GPU is advised. 30 ms frames every 10 ms and bands from 50 to 10,500
    Hz are what the same author's uclser20 uses.
    """
    return _fsd50k("fsd50k_crnn", "crnn_fsd", frontend=SECOND)


def fsd50k_vgg_like() -> Experiment:
    """The VGG-like baseline of FSD50K, .27 M parameters, its best: 200 classes, 1 s windows of 96 bands.

    Published mAP .434 (Fonseca et al., TASLP 2022). A GPU is advised.
    """
    return _fsd50k("fsd50k_vgg_like", "vgg_like", frontend=SECOND)


def fsd50k_resnet18() -> Experiment:
    """The ResNet-18 baseline of FSD50K, 11.3 M parameters: 200 classes, 1 s windows of 96 bands.

    Published mAP .373 (Fonseca et al., TASLP 2022). A GPU is advised.
    """
    return _fsd50k("fsd50k_resnet18", "resnet18", frontend=SECOND)


def fsd50k_densenet121() -> Experiment:
    """The DenseNet-121 baseline of FSD50K: 200 classes, 1 s windows of 96 bands.

    Published mAP .425 with 12.5 M parameters (Fonseca et al., TASLP 2022); its sizes are not published, this one has 7.2 M. A GPU is advised.
    """
    return _fsd50k("fsd50k_densenet121", "densenet121", frontend=SECOND)
