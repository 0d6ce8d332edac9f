"""Recipes that fit any records of their task: the defaults of `--task`."""

from __future__ import annotations

from tfmusic.config import Augment, Experiment, Fit, FrontEnd, Loss, Net, SpecAugment


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


def genre() -> Experiment:
    """One label out of all for any records: the 2D CNN on 4 s windows of 72 bands with SpecAugment and mixup, mean over a track's windows.

    Default of `--task genre`. Embedded demo collection: two minutes on 2 CPU cores; its score means nothing outside. Real ones: README's table.
    """
    return tagging().model_copy(
        update={
            "recipe": "genre",
            "task": "genre",
            "frontend": FrontEnd(window_s=4.0, n_mels=72),
            "loss": Loss(name="crossentropy"),
            "fit": Fit(epochs=24, monitor="val_accuracy"),
        }
    )


def events() -> Experiment:
    """Sound events, several at a time, for any records: the 2D CNN on 3 s windows of 72 bands with SpecAugment and mixup.

    Default of `--task events`. `--loss.name crossentropy` takes one event a clip. Embedded demo collection: two minutes on 2 CPU cores; its score
    means nothing outside. ESC-10: README's table.
    """
    return tagging().model_copy(update={"recipe": "events", "task": "events"})


def emotion() -> Experiment:
    """Valence, energy or any other numbers the records have: the 2D CNN on 3 s windows of 72 bands with SpecAugment, squared error.

    Default of `--task emotion`. `--targets valence` learns one of them. Embedded demo collection: two minutes on 2 CPU cores; its figures mean
    nothing outside.
    """
    return tagging().model_copy(
        update={
            "recipe": "emotion",
            "task": "emotion",
            "augment": Augment(spec_augment=SpecAugment(probability=0.5, time_frames=16, mel_bands=8)),
            "fit": Fit(epochs=24, monitor="val_r2"),
        }
    )


def multitask() -> Experiment:
    """Tags and numbers with one network for any records that have both: the 2D CNN of `tagging` with two heads.

    Default of `--task multitask`. `--loss.targets-weight` weighs the squared error of the standardised targets beside the labels' loss. Embedded
    demo collection: two minutes on 2 CPU cores; its figures mean nothing outside. No mixup: what is unknown of one clip would be of its partner too.
    """
    masks = SpecAugment(probability=0.5, time_frames=16, mel_bands=8)
    return tagging().model_copy(update={"recipe": "multitask", "task": "multitask", "augment": Augment(spec_augment=masks)})


def similarity() -> Experiment:
    """Music similarity for any records: the 2D CNN with an embedding of 128 dims, semi-hard triplets in batches of 12 tags x 4 clips.

    Default of `--task similarity`. Embedded demo collection: two minutes on 2 CPU cores; its figures mean nothing outside. NSynth test set and
    others: README's log. Two clips are alike when they share a tag; `--sampling.positives group` takes the group instead.
    """
    return Experiment(
        recipe="similarity",
        task="similarity",
        frontend=FrontEnd(n_mels=72),
        augment=Augment(spec_augment=SpecAugment(probability=0.5, time_frames=16, mel_bands=8)),
        net=Net(name="cnn2d", embedding=128),
        fit=Fit(epochs=24, batch_size=48, monitor="val_map_at_r"),
    )
