"""One function per system: what is trained, on what data, how long it takes and what to expect. `RECIPES` is all of them by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tfmusic.config import PRESETS, Augment, Evaluation, Experiment, Fit, FrontEnd, Loss, Net, Sampling, Similarity, SpecAugment


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

    Default of `--task genre`. Embedded demo collection: two minutes on 2 CPU cores; its score means nothing outside. Elsewhere: README's table.
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
    demo collection: two minutes on 2 CPU cores; its figures mean nothing outside.
    """
    return tagging().model_copy(update={"recipe": "multitask", "task": "multitask"})


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


TAGGER = Path("runs/tagger")  # where the recipes that learn from a tagger look for its run, unless a flag names another


def _mtat_similarity(
    recipe: str, net: str = "cnn2d", dropout: float = 0.0, sampling: Sampling | None = None, init: Path | None = None, **similarity
) -> Experiment:
    """What the similarity systems of the reports share: MagnaTagATune, 50 tags, 3 s windows of 96 bands, given triplets, cosine distance."""
    return Experiment(
        recipe=recipe,
        task="similarity",
        init=init,
        net=Net(name=net, dropout=dropout, embedding=256),
        sampling=sampling or Sampling(batches="triplets"),
        similarity=Similarity(**similarity),
        fit=Fit(batch_size=48, weight_decay=1e-4, monitor="val_map_at_r"),
    )


def mtat_similarity_linear() -> Experiment:
    """Linear projection of the log-mel to an embedding, random triplets by shared tag: MagnaTagATune, 50 tags.

    Reported Recall@1/2/4/8 .418/.545/.665/.772, cosine distance .385/.515/.640/.759; on an unpublished subset, an orientation and not a
    protocol. 2 CPU cores: minutes an epoch. `--similarity.distance euclidean` is the reports' other distance (.383/.517/.645/.757).
    """
    return _mtat_similarity("mtat_similarity_linear", net="linear")


def mtat_similarity_transfer() -> Experiment:
    """A trained tagger as backbone with a linear embedding, random triplets by shared tag: MagnaTagATune, 50 tags.

    The best of the reports: Recall@1/2/4/8 .476/.617/.749/.846. Begins with the run in runs/tagger, or `--init RUN`, and takes its front end
    and net; `--freeze LAYER` keeps its first layers. 2 CPU cores: minutes an epoch.
    """
    return _mtat_similarity("mtat_similarity_transfer", init=TAGGER).model_copy(
        update={"fit": Fit(batch_size=48, weight_decay=1e-4, monitor="val_map_at_r", init_learning_rate=1e-4)}
    )


def mtat_similarity_mined() -> Experiment:
    """Triplets out of a tagger's errors: the positive from a tag it missed, the negative from one it invented: MagnaTagATune, 50 tags.

    Reported Recall@1/2/4/8 .351/.478/.612/.737, below random triplets. The tagger is the run in runs/tagger, or `--sampling.tagger RUN`.
    Such a negative often shares other tags with its anchor (README's log has the measurement); `--sampling.clean-negatives` leaves those out.
    2 CPU cores: minutes an epoch.
    """
    return _mtat_similarity("mtat_similarity_mined", sampling=Sampling(batches="errors", tagger=TAGGER))


def mtat_similarity_extremes() -> Experiment:
    """Triplets of a tagger's surest tags: the positive from its highest, the negative from its lowest: MagnaTagATune, 50 tags.

    Reported to collapse: all triplets are easy and the loss goes to zero, which `active` in the logs shows. The tagger as in
    `mtat_similarity_mined`. 2 CPU cores: minutes an epoch.
    """
    return _mtat_similarity("mtat_similarity_extremes", sampling=Sampling(batches="extremes", tagger=TAGGER))


def mtat_similarity_short_chunk_res() -> Experiment:
    """Short-chunk CNN with an embedding head, random triplets by shared tag: MagnaTagATune, 50 tags, windows of 59,049 samples.

    The reports' number is missing. A GPU is advised: on 2 CPU cores a step of 48 windows takes about three seconds.
    """
    experiment = _mtat_similarity("mtat_similarity_short_chunk_res", net="short_chunk_res")
    tagger = mtat_short_chunk_res()
    return experiment.model_copy(update={"frontend": tagger.frontend, "evaluation": tagger.evaluation})


def mtat_similarity_crnn() -> Experiment:
    """Convolutions and two GRUs over the time that is left, with an embedding head, random triplets by shared tag: MagnaTagATune, 50 tags.

    Reported Recall@1/2/4/8 .234/.375/.535/.730, of a net that had pooled time away before its GRU; this one keeps 15 steps. 2 CPU cores:
    most of an hour an epoch of the clean split.
    """
    return _mtat_similarity("mtat_similarity_crnn", net="crnn", dropout=0.3)


def mtat_similarity_musicnn() -> Experiment:
    """musicnn with an embedding head, random triplets by shared tag: MagnaTagATune, 50 tags, log10(10,000 x + 1) of 96 bands.

    Reported Recall@1/2/4/8 .354/.512/.674/.797. A GPU is advised: on 2 CPU cores a step of 48 windows takes more than ten seconds.
    """
    experiment = _mtat_similarity("mtat_similarity_musicnn", net="musicnn", dropout=0.5)
    return experiment.model_copy(update={"frontend": PRESETS["musicnn"]})


def mtat_similarity_semi_hard() -> Experiment:
    """Semi-hard triplets mined inside batches of 12 tags x 4 clips: MagnaTagATune, 50 tags; the reports' future work, without a figure.

    `--similarity.mining all|hard|weighted` are the other rules, `--sampling.positives group` takes the song instead of the tags. 2 CPU
    cores: minutes an epoch.
    """
    return _mtat_similarity("mtat_similarity_semi_hard", sampling=Sampling())


def mtat_similarity_proxy_anchor() -> Experiment:
    """Proxy anchor, one trained proxy a tag, on batches of 12 tags x 4 clips: MagnaTagATune, 50 tags; future work of the reports.

    `--similarity.loss proxy_nca` is the older loss with proxies. 2 CPU cores: minutes an epoch.
    """
    return _mtat_similarity("mtat_similarity_proxy_anchor", sampling=Sampling(), loss="proxy_anchor")


def mtat_similarity_contrastive() -> Experiment:
    """Supervised contrastive loss, each pair weighted by the tags it shares: MagnaTagATune, 50 tags; future work of the reports.

    `--similarity.overlap idf` counts rare tags more. 2 CPU cores: minutes an epoch.
    """
    return _mtat_similarity("mtat_similarity_contrastive", sampling=Sampling(), loss="supervised_contrastive")


def mtat_similarity_crops() -> Experiment:
    """NT-Xent on two augmented crops of every clip: MagnaTagATune; the baseline whose loss sees no tags.

    2 CPU cores: minutes an epoch.
    """
    masks = SpecAugment(probability=1.0)
    experiment = _mtat_similarity("mtat_similarity_crops", sampling=Sampling(batches="crops"), loss="nt_xent")
    return experiment.model_copy(update={"augment": Augment(spec_augment=masks)})


RECIPES: dict[str, Callable[[], Experiment]] = {
    recipe.__name__: recipe
    for recipe in (
        tagging,
        genre,
        events,
        emotion,
        multitask,
        similarity,
        mtat_cnn2d,
        mtat_focal,
        mtat_short_chunk_res,
        mtat_similarity_linear,
        mtat_similarity_transfer,
        mtat_similarity_mined,
        mtat_similarity_extremes,
        mtat_similarity_short_chunk_res,
        mtat_similarity_crnn,
        mtat_similarity_musicnn,
        mtat_similarity_semi_hard,
        mtat_similarity_proxy_anchor,
        mtat_similarity_contrastive,
        mtat_similarity_crops,
    )
}
DEFAULTS = {  # task -> the recipe of `--task` alone; these recipes fit any records of their task
    name: name for name in ("tagging", "genre", "events", "emotion", "multitask", "similarity")
}
