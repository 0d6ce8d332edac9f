"""musicnn's four published taggers (Pons and Serra, 2019), to evaluate as they are or to go on from.

`--epochs 0` trains nothing: published weights, the published front end, whole tracks in windows side by side. Their weights come with
`pip install --no-deps musicnn==0.1.0`. A tag that is in the records and in the published list keeps its weights, by name; of others the last
layer is fresh, so score the published net on records of its own tags only.
"""

from __future__ import annotations

from pathlib import Path

from tfmusic.config import PRESETS, Evaluation, Experiment, Fit, Net


def _musicnn(recipe: str, net: str) -> Experiment:
    """A published net at its own windows; a small step, should it be trained on."""
    return Experiment(
        recipe=recipe,
        init=Path(recipe),
        frontend=PRESETS["musicnn_patch"],
        net=Net(name=net, dropout=0.5),
        fit=Fit(learning_rate=1e-4),
        evaluation=Evaluation(hop_s=187 * 256 / 16_000),
    )


def mtt_musicnn() -> Experiment:
    """musicnn as published for MagnaTagATune, 50 tags: `--epochs 0` evaluates it, more go on from there.

    Published on MagnaTagATune's full split: ROC-AUC .907, PR-AUC .383. 2 CPU cores: minutes to evaluate; a GPU is advised to train.
    """
    return _musicnn("mtt_musicnn", "musicnn")


def mtt_vgg() -> Experiment:
    """The VGG that musicnn was published beside, for MagnaTagATune, 50 tags: `--epochs 0` evaluates it, more go on from there.

    Published on MagnaTagATune's full split: ROC-AUC .903, PR-AUC .382. 2 CPU cores: minutes to evaluate; a GPU is advised to train.
    """
    return _musicnn("mtt_vgg", "musicnn_vgg")


def msd_musicnn() -> Experiment:
    """musicnn as published for the Million Song Dataset, 50 tags: `--epochs 0` evaluates it, more go on from there.

    Published on the Million Song Dataset: ROC-AUC .880, PR-AUC .289. Its audio is not to be had: records are a csv of your own with its tags.
    2 CPU cores: some ten clips a second to evaluate; a GPU is advised to train.
    """
    return _musicnn("msd_musicnn", "musicnn")


def msd_vgg() -> Experiment:
    """The VGG that musicnn was published beside, for the Million Song Dataset, 50 tags: `--epochs 0` evaluates it, more go on from there.

    Published on the Million Song Dataset: ROC-AUC .877, PR-AUC .282. Records as of `msd_musicnn`. A GPU is advised to train.
    """
    return _musicnn("msd_vgg", "musicnn_vgg_msd")
