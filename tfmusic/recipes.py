"""One function per system: what is trained, on what data, how long it takes and what to expect. `RECIPES` is all of them by name."""

from __future__ import annotations

from collections.abc import Callable

from tfmusic.config import Augment, Evaluation, Experiment, Fit, FrontEnd, Loss, Net, SpecAugment


def tagging() -> Experiment:
    """Tags for any records: the 2D CNN on 3 s windows of 72 bands with SpecAugment and mixup.

    Default of `--task tagging`. Embedded demo collection: two minutes on 2 CPU cores, test ROC-AUC about .94, which means nothing outside.
    NSynth test set, 23 tags: README's table. 72 bands, because the net's pools divide them (see `cnn2d`).
    """
    return Experiment(
        recipe="tagging",
        frontend=FrontEnd(n_mels=72),
        augment=Augment(spec_augment=SpecAugment(probability=0.5, time_frames=16, mel_bands=8), mixup_alpha=0.2),
        net=Net(name="cnn2d", dropout=0.2),
        fit=Fit(epochs=24),
    )


def mtat_cnn2d() -> Experiment:
    """The 2D CNN of report S1: MagnaTagATune, 50 tags, 3 s windows of 96 bands.

    Reported test ROC-AUC .75 to .77 on an unpublished subset of 9,074 clips, an orientation and not a protocol. 2 CPU cores: minutes an
    epoch. A report's network had kernel 1 in its fourth layer and a pool that saw 2 of 5 columns; this one has neither, but keeps the
    published pools, which cut off the last 7 of 96 bands (see `cnn2d`).
    """
    return Experiment(recipe="mtat_cnn2d", net=Net(name="cnn2d"), fit=Fit(weight_decay=1e-4))


def mtat_focal() -> Experiment:
    """`mtat_cnn2d` with focal loss alone (gamma 2, alpha .5): MagnaTagATune, 50 tags.

    Reported test ROC-AUC .71 where the report's baseline had .64. 2 CPU cores: minutes an epoch.
    """
    return mtat_cnn2d().model_copy(update={"recipe": "mtat_focal", "loss": Loss(name="focal", focal_gamma=2.0, focal_alpha=0.5)})


def mtat_short_chunk_res() -> Experiment:
    """Short-chunk CNN with residual connections: MagnaTagATune, 50 tags, windows of 59,049 samples, 128 bands, 12.1 M parameters.

    Published on the clean split: ROC-AUC .9129, PR-AUC .4614 (Won et al., SMC 2020); the reports' own number is missing. A GPU is
    advised: on 2 CPU cores a step of 16 windows takes about a second.
    """
    return Experiment(
        recipe="mtat_short_chunk_res",
        frontend=FrontEnd(window_s=59_049 / 16_000, n_mels=128),
        net=Net(name="short_chunk_res", dropout=0.5),
        fit=Fit(epochs=200, learning_rate=1e-4, weight_decay=1e-4, patience=20),
        evaluation=Evaluation(hop_s=59_049 / 16_000),
    )


RECIPES: dict[str, Callable[[], Experiment]] = {recipe.__name__: recipe for recipe in (tagging, mtat_cnn2d, mtat_focal, mtat_short_chunk_res)}
DEFAULTS = {"tagging": "tagging"}  # task -> the recipe of `--task` alone; these recipes fit any records of their task
