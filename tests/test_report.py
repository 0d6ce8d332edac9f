"""What report.html shows of mistakes, augmentation and merged labels, and that it needs nothing else."""

import numpy as np
import pytest

from tests.conftest import EXPERIMENT
from tfmusic import catalogue, exhibits, pictures, report, run, schema, training
from tfmusic.config import Augment, SpecAugment, WaveformAugment


@pytest.fixture(scope="module")
def manifest(records):
    return schema.read_manifest(records)


def test_the_worst_false_positives_are_those_of_the_highest_scores(trained, records, manifest):
    """Of labels a to d: a's worst is track 3 with .9, though track 5, which has it, scores more; b is true of all; c's is .2, d's .6."""
    kept = run.outputs(trained)
    y_true, scores = np.zeros((16, 4), np.uint8), np.zeros((16, 4), np.float32)
    y_true[5, 0], scores[5, 0], scores[3, 0] = 1, 0.95, 0.9
    y_true[:, 1], scores[:, 1] = 1, 1.0
    scores[7, 2], scores[7, 3] = 0.2, 0.6
    (exhibit,) = exhibits.of_mistakes(kept | {"y_true": y_true, "scores": scores}, records, manifest)
    ids, labels = kept["ids"], manifest.labels
    assert exhibit.rows[1:] == [
        [labels[0], "0.900", ids[3], labels[1]],
        [labels[3], "0.600", ids[7], labels[1]],
        [labels[2], "0.200", ids[7], labels[1]],
    ]
    track = catalogue.whole_tracks(records, manifest, "test", {3})[3]
    assert track.id == ids[3]
    samples = round(exhibits.HEARD_S * manifest.layout.sample_rate_hz)
    np.testing.assert_array_equal(exhibit.sounds[0].waveform, track.waveform[:samples])
    assert exhibit.sounds[1].caption == f"{labels[3]} 0.600: {ids[7]} ({labels[1]})"


def test_no_mistakes_without_scores_or_without_negatives(trained, records, manifest):
    kept = run.outputs(trained)
    assert exhibits.of_mistakes(kept | {"y_true": np.ones((16, 4))}, records, manifest) == []
    assert exhibits.of_mistakes({name: kept[name] for name in ("ids", "y_true")}, records, manifest) == []


def test_an_augmented_run_shows_what_it_heard_and_needs_nothing_beside_it(records, tmp_path):
    """Four training examples with pictures and two sounds each, a model card, mistakes to listen to; nothing is fetched from anywhere."""
    augment = Augment(
        waveform=WaveformAugment(probability=1.0), spec_augment=SpecAugment(probability=1.0, time_frames=5, mel_bands=3), mixup_alpha=0.4
    )
    changes = {"augment": augment, "fit": EXPERIMENT.fit.model_copy(update={"epochs": 1, "histogram_epochs": 1})}
    directory = training.fit(EXPERIMENT.model_copy(update=changes), records, tmp_path / "run")
    report.write(directory)
    page = (directory / run.REPORT).read_text()
    parts = page.split("<h2>Training example ")
    assert len(parts) == 5 and all(part.count("data:image/png") == 1 and part.count("<audio") == 2 for part in parts[1:4])
    assert page.split("<h2>Worst false positives")[1].split("<h2>")[0].count("<audio") == 4
    card = page.split("<h2>Model card")[1].split("<h2>")[0]
    assert "windows of 0.5 s at 8000 Hz" in card and "train 32, valid 12, test 16 tracks" in card and "best 1 by val_map" in card
    assert "src='http" not in page and "href=" not in page and "@import" not in page
    events = b"".join(path.read_bytes() for path in (directory / run.TENSORBOARD / "train").glob("events*"))
    assert b"conv1" in events  # histograms, asked for


def test_labels_before_and_after_merging_are_side_by_side(manifest):
    """Sorted by number; what went into another label says so; of very many the most frequent."""
    many = {f"label {number}": number for number in range(pictures.MERGED + 5)}
    merged = manifest.model_copy(
        update={"merges": {"female": "voice"}, "counts_before": {"female": 3, "guitar": 9, "voice": 4}, "counts_after": many}
    )
    before, after = pictures.merged(merged).axes
    assert [label.get_text() for label in before.get_yticklabels()] == ["female → voice", "voice", "guitar"]
    assert [bar.get_width() for bar in before.patches] == [3, 4, 9]
    assert len(after.patches) == pictures.MERGED and "65 labels, the 60 most frequent" in after.get_title()
    assert [one.title for one in report._labels(merged)] == ["Labels", "Labels before and after merging"]
    assert [one.title for one in report._labels(manifest)] == ["Labels"]
