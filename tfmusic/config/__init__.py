"""Every setting of an experiment: frozen pydantic models with units in the names, ranges in the types and one line of help a field.

A recipe returns an `Experiment`, the command line overrides its fields, the run writes it to experiment.json, and nothing else decides
anything. No TensorFlow here: `--help` and `--list` read this package only.
"""

from tfmusic.config.base import VERSION, InputError, Settings, printable
from tfmusic.config.experiment import Experiment
from tfmusic.config.hearing import FEATURE_READS, PRESETS, Features, FrontEnd, Layout
from tfmusic.config.learning import (
    SAMPLING_READS,
    SIMILARITY_READS,
    Augment,
    Data,
    Evaluation,
    Fit,
    Loss,
    Net,
    Sampling,
    Similarity,
    SpecAugment,
    WaveformAugment,
)

__all__ = [
    "FEATURE_READS",
    "PRESETS",
    "SAMPLING_READS",
    "SIMILARITY_READS",
    "VERSION",
    "Augment",
    "Data",
    "Evaluation",
    "Experiment",
    "Features",
    "Fit",
    "FrontEnd",
    "InputError",
    "Layout",
    "Loss",
    "Net",
    "Sampling",
    "Settings",
    "Similarity",
    "SpecAugment",
    "WaveformAugment",
    "printable",
]
