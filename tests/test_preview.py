"""The preview shows what the training stream makes, bit for bit the same windows, and writes what one can play and see offline."""

import numpy as np
import pytest
import soundfile

from tests.conftest import EXPERIMENT, RATE_HZ, SEQUENCE_PARTS
from tfmusic import data, pictures, preview, preview_cli, schema
from tfmusic.config import Augment, Experiment, InputError, SpecAugment, WaveformAugment

EVERYTHING = Augment(
    waveform=WaveformAugment(probability=0.4, stretch=0.2, pitch_semitones=2, shift_s=0.05),
    spec_augment=SpecAugment(probability=0.7, time_frames=5, mel_bands=3),
    mixup_alpha=0.4,
)


def experiment(given=EVERYTHING, **changes):
    frontend = EXPERIMENT.frontend.model_copy(update={"window_s": 0.4})
    return EXPERIMENT.model_copy(update={"augment": given, "frontend": frontend, **changes})


@pytest.fixture(scope="module")
def manifest(records):
    return schema.read_manifest(records)


@pytest.fixture(scope="module")
def shown(records, manifest):
    return preview.examples(records, manifest, experiment(), 12)


def test_the_last_step_is_what_the_net_is_trained_on(shown, records, manifest):
    """12 of a batch of 8 and one of 8: features, and labels where their share can be seen, are those of the stream."""
    batches = [*data.train_batches(records, manifest, experiment()).take(2).as_numpy_iterator()]
    features, labels = (np.concatenate([pick(batch) for batch in batches])[:12] for pick in (lambda b: b[0], lambda b: b[1]["labels"]))
    assert [*shown[0].features] == [preview.BEFORE, preview.CHANGED, preview.MASKED, preview.MIXED] and len(shown) == 12
    np.testing.assert_allclose([example.features[preview.MIXED] for example in shown], features, atol=1e-3)
    told = [[example.labels.get(label, 0) for label in manifest.labels] for example in shown]
    np.testing.assert_allclose(told, labels, atol=preview.SHARE)


def test_a_later_epoch_is_another_one(shown, records, manifest):
    (later,) = preview.examples(records, manifest, experiment(), 1, epoch=1)
    stream = data.train_batches(records, manifest, experiment(), first_epoch=1).take(1)
    np.testing.assert_allclose(later.features[preview.MIXED], next(iter(stream))[0][0], atol=1e-3)
    assert not np.array_equal(later.before, shown[0].before)


def test_it_tells_which_changes_a_window_was_drawn_for(shown):
    """Without any it is heard as it was, bit for bit; with noise or gain it is another. .4 of the windows each: all kinds are among 12."""
    for example in shown:
        same = np.array_equal(example.before, example.after)
        assert same or example.drawn
        assert not same or not {"noise", "gain", "pitch"} & {*example.drawn}
        np.testing.assert_array_equal(same, np.array_equal(example.features[preview.CHANGED], example.features[preview.BEFORE]))
    assert {name for example in shown for name in example.drawn} == {"stretch", "pitch", "shift", "noise", "gain"}


def test_what_is_off_is_not_shown(records, manifest):
    masks = Augment(spec_augment=EVERYTHING.spec_augment)
    for given, steps in ((Augment(), [preview.BEFORE]), (masks, [preview.BEFORE, preview.MASKED])):
        (example,) = preview.examples(records, manifest, experiment(given), 1)
        assert [*example.features] == steps and not example.drawn
        np.testing.assert_array_equal(example.after, example.before)
        (exhibit,) = preview.exhibits([example], given)
        assert len(exhibit.sounds) == 1 and "Waveform" not in exhibit.text


def test_the_command_writes_what_plays_offline(records, tmp_path, capsys):
    """Sounds, pictures and a page without a link to anywhere."""
    flags = (
        f"--recipe tagging --records {records} --count 2 --fit.batch-size 4 --frontend.sample-rate-hz {RATE_HZ} --frontend.window-s .4 "
        "--frontend.n-fft 256 --frontend.hop-samples 128 --frontend.n-mels 16 --augment.waveform.probability 1"
    ).split()
    preview_cli.preview([*flags, "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out == f"examples: {tmp_path / 'out' / 'index.html'}\n"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"index.html", *(f"0{number}{end}" for number in (1, 2) for end in ("-before.wav", "-after.wav", ".png"))}
    before, after = (soundfile.read(tmp_path / "out" / f"01-{name}.wav", dtype="int16") for name in ("before", "after"))
    assert before[1] == RATE_HZ and len(before[0]) == len(after[0]) == round(0.4 * RATE_HZ) and not np.array_equal(before[0], after[0])
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<audio") == 4 and page.count("data:image/png") == 2 and "http" not in page and "Waveform: noise, gain" in page
    with pytest.raises(InputError, match="must be a new or empty folder"):
        preview_cli.preview([*flags, "--out", str(tmp_path / "out")])


def test_what_cannot_be_shown_is_refused(records, manifest):
    sequences = Experiment.model_validate(EXPERIMENT.model_dump() | {"sequences": {}, "net": {"name": "lstm"}} | SEQUENCE_PARTS)
    with pytest.raises(InputError, match="nothing augments"):
        preview.examples(records, manifest, sequences, 1)
    with pytest.raises(InputError, match="must be > 0, got 0"):
        preview.examples(records, manifest, experiment(), 0)
    with pytest.raises(InputError, match="8000 Hz"):
        preview.examples(records, manifest, experiment(frontend=EXPERIMENT.frontend.model_copy(update={"sample_rate_hz": 16_000})), 1)


def test_pictures_have_the_colours_of_the_first():
    """Louder and quieter steps can be compared; of channels the first is drawn; silence has a scale, too."""
    first = np.linspace(-40, 0, 12).reshape(4, 3)
    axes = pictures.spectrograms({"before": first, "mixup": np.stack([first + 9, first], axis=-1)}).axes
    assert {image.get_clim() for place in axes[:2] for image in place.images} == {(-40.0, 0.0)}
    np.testing.assert_array_equal(axes[1].images[0].get_array(), (first + 9).T)
    assert pictures.spectrograms({"before": np.zeros((4, 3))}).axes[0].images[0].get_clim()[1] > 0
