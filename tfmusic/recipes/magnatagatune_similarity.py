"""Music similarity on MagnaTagATune: the systems of reports S0 and S1, and what they left to future work.

Records: as in `magnatagatune`.
"""

from __future__ import annotations

from pathlib import Path

from tfmusic.config import Augment, Experiment, Fit, Net, Sampling, Similarity, SpecAugment
from tfmusic.recipes.magnatagatune import mtat_musicnn, mtat_short_chunk_res

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
    experiment = _mtat_similarity("mtat_similarity_short_chunk_res", net="short_chunk_res", dropout=0.5)
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

    Reported Recall@1/2/4/8 .354/.512/.674/.797. Front end and windows of `mtat_musicnn`. A GPU is advised: on 2 CPU cores a
    step of 48 windows takes more than ten seconds.
    """
    experiment = _mtat_similarity("mtat_similarity_musicnn", net="musicnn", dropout=0.5)
    tagger = mtat_musicnn()
    return experiment.model_copy(update={"frontend": tagger.frontend, "evaluation": tagger.evaluation})


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
