"""One function per system: what is trained, on what data, how long it takes and what to expect. `RECIPES` is all of them by name.

A module for each dataset; all functions of one without an underscore are recipes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from types import ModuleType

from tfmusic.config import Experiment, InputError, Layout
from tfmusic.recipes import any_records, fma, fsd50k, gtzan, magnatagatune, magnatagatune_similarity, musicnn
from tfmusic.recipes.any_records import emotion, events, genre, multitask, similarity, tagging  # noqa: F401 (for `recipes.tagging()`)
from tfmusic.space import Range, Space, replaced, rounded

DEFAULTS = {  # task -> the recipe of `--task` alone; these recipes fit any records of their task
    name: name for name in ("tagging", "genre", "events", "emotion", "multitask", "similarity")
}


def _of(module: ModuleType) -> dict[str, Callable[[], Experiment]]:
    found = inspect.getmembers(module, inspect.isfunction)
    written = sorted((one.__code__.co_firstlineno, name, one) for name, one in found if one.__module__ == module.__name__ and name[0] != "_")
    return {name: one for _, name, one in written}


RECIPES: dict[str, Callable[[], Experiment]] = {
    name: recipe
    for module in (any_records, magnatagatune, musicnn, magnatagatune_similarity, fsd50k, gtzan, fma)
    for name, recipe in _of(module).items()
}
PUBLISHED = tuple(_of(musicnn))  # taggers whose weights are to be had; keys of `tfmusic.pretrained.PRETRAINED`
MADE_BY = {magnatagatune_similarity.TAGGER: "mtat_cnn2d", fma.GENRES: "fma_cnn2d"}  # where a recipe looks for a run -> the recipe that makes it

FMA = "--dataset fma --audio DIR --protocol medium --merge ten --single"
RECORDS = {  # how the names of recipes begin -> what reads their dataset; the longest that fits
    "": "--dataset csv --csv FILE --audio DIR",
    "genre": "--dataset csv --csv FILE --audio DIR --single",
    "emotion": "--dataset csv --csv FILE --audio DIR --targets NAME",
    "multitask": "--dataset csv --csv FILE --audio DIR --targets NAME",
    "mtat_": "--dataset magnatagatune --audio DIR --protocol clean",
    "mtt_": "--dataset magnatagatune --audio DIR --protocol full",
    "fsd50k_": "--dataset fsd50k --audio DIR --ontology FILE",
    "fsd50k_families_": "--dataset fsd50k --audio DIR --ontology FILE --label-set families6 --single",
    "gtzan_": "--dataset gtzan --audio DIR --label-set genres8",
    "fma_": FMA,
    "emotion_": f"{FMA} --targets valence energy danceability",
}


STEP_SIZES = 10.0  # times and part of a recipe's own learning rate that a search goes to
NET = {"fit.weight_decay": Range(1e-6, 1e-2, log=True), "net.dropout": Range(0.0, 0.5), "net.width": (0.5, 1.0, 2.0)}
MASKS = {"augment.spec_augment.probability": Range(0.0, 1.0)}
LABELS = NET | MASKS | {"augment.mixup_alpha": Range(0.0, 0.5), "loss.focal_gamma": Range(0.0, 4.0)}
ALIKE = {"similarity.margin": Range(0.05, 0.5), "similarity.temperature": Range(0.03, 0.3, log=True)}
SPACES = {  # task, or how the names of recipes begin -> what `tune` changes of them; the longest that fits, of its fields those that a recipe reads
    "tagging": LABELS,
    "genre": LABELS,
    "events": LABELS,
    "emotion": NET | MASKS,
    "multitask": NET | MASKS,
    "similarity": NET | MASKS | ALIKE,
    "fsd50k_cnn4_oversampled": LABELS | {"data.oversample": Range(0.001, 0.006, log=True)},  # how many windows rare classes get
    "fsd50k_cnn4_best": LABELS | {"data.oversample": Range(0.001, 0.006, log=True)},
}


def space(experiment: Experiment) -> Space:
    """What a search changes of a recipe: its learning rate, from a tenth to ten times, and of `SPACES` all that it reads.

    The width stays that of the weights that a net begins with; `linear` has none.

    >>> space(RECIPES["gtzan_mtt_embedding"]())["fit.learning_rate"]
    Range(low=1e-05, high=0.001, log=True)
    """
    fitting = [name for name in SPACES if experiment.recipe.startswith(name) or name == experiment.task]
    rate = experiment.fit.learning_rate
    declared = {"fit.learning_rate": Range(rounded(rate / STEP_SIZES), rounded(rate * STEP_SIZES), log=True)}
    declared |= SPACES[max(fitting, key=len)]
    if experiment.init or experiment.net.weights or experiment.net.name == "linear":
        del declared["net.width"]
    return {path: one for path, one in declared.items() if _reads(experiment, path, one)}


def _reads(experiment: Experiment, path: str, one: Range | tuple) -> bool:
    """Whether a field does anything here: `Experiment` refuses all others."""
    try:
        for value in (one.low, one.high) if isinstance(one, Range) else one:
            replaced(experiment, {path: value})
    except InputError:
        return False
    return True


def layout(experiment: Experiment) -> Layout:
    """Of the records that an experiment reads: its rate, chunks that its windows fit into, or the sequences that its net wants."""
    rate_hz, defaults = experiment.frontend.sample_rate_hz, Layout()
    if experiment.sequences:
        return Layout(sample_rate_hz=rate_hz, payload="features", features=experiment.sequences)
    cut_s = experiment.augment.waveform.cut_samples(experiment.frontend.window_samples) / rate_hz  # a window that is played faster is longer
    return Layout(sample_rate_hz=rate_hz, chunk_s=max(defaults.chunk_s, math.ceil(10 * (cut_s + defaults.stride_s)) / 10))


def build_line(experiment: Experiment) -> str:
    """The command that builds the records of a recipe.

    >>> build_line(RECIPES["fsd50k_cnn4"]())
    'python -m records build --dataset fsd50k --audio DIR --ontology FILE --sample-rate-hz 22050 --chunk-s 9 --out DIR'
    """
    source = RECORDS[max((name for name in RECORDS if experiment.recipe.startswith(name)), key=len)]
    wanted = layout(experiment)
    settings = [("", wanted, Layout()), ("features.", wanted.features, Layout().features)]
    flags = [
        f"--{prefix}{name.replace('_', '-')} {value:g}" if isinstance(value, (int, float)) else f"--{prefix}{name.replace('_', '-')} {value}"
        for prefix, ours, defaults in settings
        for name, value in ours
        if value != getattr(defaults, name) and name != "features"
    ]
    return " ".join(["python -m records build", source, *flags, "--out DIR"])
