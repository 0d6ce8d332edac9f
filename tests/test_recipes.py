"""Every recipe: named as its function, documented, served by the records that it asks for and by the demo's, able to take a training step."""

import importlib.util
import re
from functools import partial

import keras
import pytest

import train
from records import demo
from records.datasets import READERS
from tests.conftest import ROOT
from tfmusic import data, models, pretrained, recipes, schema, training
from tfmusic.config import Experiment, InputError
from tfmusic.frontend import LogMel
from tfmusic.tasks import TASKS

VECTOR = {"mtt_musicnn": 200, "msd_musicnn": 200}  # dims of what musicnn's last layer is fed


def _first() -> set[str]:
    """One recipe of each task and kind of input; that every net has gradients, test_models shows, and every kind of batch test_similarity."""
    found = {}
    for name, recipe in recipes.RECIPES.items():
        one = recipe()
        found.setdefault((one.task, one.frozen and one.net.name == "mlp", bool(one.sequences)), name)
    return {*found.values()}


FIRST = _first() - {"tagging", "genre", "emotion", "multitask", "gtzan_cnn1d_msd", "emotion_lstm_valence"}  # trained in test_tasks and test_deploy


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_carries_its_name_and_survives_json(name):
    experiment = recipes.RECIPES[name]()
    assert experiment.recipe == name and experiment.task in TASKS
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment
    what, empty, *rest = recipes.RECIPES[name].__doc__.splitlines()
    assert what.endswith(".") and not empty and re.search(r"2 CPU cores|GPU", " ".join(" ".join(rest).split())), "hardware and minutes"


SHAPES: dict[tuple, tuple] = {}  # nets that were built already


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_fits_its_own_front_end_and_records(name):
    """Symbolically, at the size of its features and an eighth of its filters; the full networks' sizes are frozen in test_models."""
    experiment = recipes.RECIPES[name]()
    layout, settings = recipes.layout(experiment), experiment.frontend
    assert layout.sample_rate_hz == settings.sample_rate_hz
    if experiment.sequences:
        assert layout.features == experiment.sequences
        shape = (None, 128)
    elif experiment.net.name == "mlp":
        shape = (VECTOR[experiment.frozen],)
    else:
        assert layout.widest_window_samples >= settings.window_samples
        shape = LogMel(settings).compute_output_shape((None, settings.window_samples))[1:]
    key = experiment.net.name, shape
    if key not in SHAPES:
        SHAPES[key] = models.MODELS[experiment.net.name](keras.Input(shape), width=0.125).shape
    assert len(SHAPES[key]) == 2 and SHAPES[key][1] > 0


def test_every_task_has_a_default_recipe():
    assert {recipes.RECIPES[name]().task for name in recipes.DEFAULTS.values()} == set(TASKS) == set(recipes.DEFAULTS)


def test_every_file_of_recipes_is_listed():
    files = {path.stem for path in (ROOT / "tfmusic" / "recipes").glob("*.py")} - {"__init__"}
    assert {recipe.__module__ for recipe in recipes.RECIPES.values()} == {f"tfmusic.recipes.{name}" for name in files}


@pytest.mark.parametrize("name", pretrained.PRETRAINED)
def test_a_published_tagger_is_evaluated_as_it_was_published(name):
    """Its front end, net and hop, and its authors' two figures in the docstring."""
    known, recipe = pretrained.PRETRAINED[name], recipes.RECIPES[name]
    experiment = recipe()
    assert recipes.PUBLISHED == tuple(pretrained.PRETRAINED) and str(experiment.init) == name
    assert (experiment.frontend, experiment.net, experiment.evaluation.hop_s) == (known.frontend, known.net, known.hop_s)
    dataset, roc_auc, _, pr_auc = known.published.rsplit(" ", 3)
    assert dataset in recipe.__doc__ and f"ROC-AUC {roc_auc}, PR-AUC {pr_auc}." in recipe.__doc__
    assert train.begun_with(recipes.tagging(), experiment.init).frontend == known.frontend


@pytest.mark.parametrize("line", sorted({recipes.build_line(recipe()) for recipe in recipes.RECIPES.values()}))
def test_the_line_that_builds_the_records_is_one_that_the_reader_takes(line):
    reader = READERS[re.search(r"--dataset (\w+)", line)[1]]
    for flag, known in (("label-set", reader.label_sets), ("protocol", reader.protocols), ("merge", reader.merges)):
        assert all(value in known for value in re.findall(rf"--{flag} (\w+)", line))
    assert ("--ontology" in line) <= ("ontology" in reader.takes) and ("--targets" in line) <= ("targets" in reader.takes)


# --- on the demo collection ----------------------------------------------------------------------------------------------------------------
def demo_of(directory, clips):
    """`demo_records` on a demo of so many clips."""
    made = {}

    def records_of(experiment):
        key = experiment.task, experiment.activation, recipes.layout(experiment)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "DEMO", directory)
            patch.setattr(demo, "write", partial(demo.write, clips=clips, workers=1))
            made[key] = made.get(key) or train.demo_records(experiment)
        return made[key]

    return records_of


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory):
    return demo_of(tmp_path_factory.mktemp("demo"), clips=24)


@pytest.fixture(scope="module")
def families_demo(tmp_path_factory):
    """The first 24 clips' validation and test tracks are music all: of 48 some are of another family."""
    return demo_of(tmp_path_factory.mktemp("families"), clips=48)


@pytest.fixture(scope="module")
def tiny_run(small_demo, tmp_path_factory):
    """A run of a recipe on its demo records, scaled down and made once: what others begin with or learn from."""
    made = {}

    def run_of(experiment):
        made[experiment] = made.get(experiment) or training.fit(scaled(experiment), small_demo(experiment), tmp_path_factory.mktemp("runs") / "run")
        return made[experiment]

    return run_of


def scaled(experiment, width=0.125):
    """One step of 12 of the 17 training clips and an eighth of the filters; front end, augmentation, loss and sampling are the recipe's own."""
    return Experiment.model_validate(
        experiment.model_dump()
        | {
            "data": experiment.data.model_dump() | {"crops_per_clip": 1},
            "net": experiment.net.model_dump() | {"width": width},
            "fit": experiment.fit.model_dump() | {"epochs": 1, "batch_size": 12},
            "evaluation": experiment.evaluation.model_dump() | {"bootstrap": 20},
        }
    )


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FIRST)) for name in recipes.RECIPES])
def test_a_recipe_trains_on_the_demo_scaled_down(name, small_demo, tiny_run, tmp_path, request):
    """Through its own front end. The run that it asks for is that of the recipe that makes it; for a published net stands one of ours."""
    experiment = recipes.RECIPES[name]()
    if experiment.init:
        maker = recipes.MADE_BY.get(experiment.init)
        begun = tiny_run(recipes.RECIPES[maker]() if maker else experiment.model_copy(update={"init": None}))
        experiment = train.begun_with(experiment, begun)
    if experiment.frozen:
        experiment = experiment.model_copy(update={"frozen": str(tiny_run(recipes.genre()))})
    if tagger := experiment.sampling.tagger:
        sampling = experiment.sampling.model_copy(update={"tagger": tiny_run(recipes.RECIPES[recipes.MADE_BY[tagger]]())})
        experiment = experiment.model_copy(update={"sampling": sampling})
    of_families = (experiment.task, experiment.activation) == ("events", "softmax")
    records = (request.getfixturevalue("families_demo") if of_families else small_demo)(experiment)
    run = training.fit(scaled(experiment), records, tmp_path / "run")
    assert (run / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("musicnn") is None, reason=f"the package musicnn is missing: {pretrained.INSTALL}")
@pytest.mark.parametrize("name", ["gtzan_msd_embedding", "gtzan_cnn1d_msd", "mtt_musicnn"])
def test_a_recipe_trains_with_published_weights(name, small_demo, tmp_path):
    """Frozen: its vector alone and beside the log-mel; and gone on from, at its full width."""
    experiment = recipes.RECIPES[name]()
    run = training.fit(scaled(experiment, width=1.0), small_demo(experiment), tmp_path / "run")
    assert (run / "metrics.json").is_file()


def test_the_demo_serves_every_recipe(small_demo):
    """Rates, window lengths, sequences, one label a clip where the loss asks for it, and the numbers that are learnt."""
    for recipe in recipes.RECIPES.values():
        experiment = recipe()
        manifest = schema.read_manifest(small_demo(experiment))
        data.check_records(manifest, experiment)
        if TASKS[experiment.task].outputs[-1] == "targets":
            data.target_columns(manifest, experiment)
        if experiment.activation == "softmax":
            splits = [manifest.split(name) for name in ("train", "valid", "test")]
            assert all(split.tracks == sum(split.label_counts) and not split.unlabelled for split in splits)


def test_a_recipe_that_begins_with_a_run_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    transfer, mined = recipes.RECIPES["emotion_transfer"](), recipes.RECIPES["mtat_similarity_mined"]()
    with pytest.raises(
        InputError, match="emotion_transfer learns from a run, .* make it with: python train.py --recipe fma_cnn2d .* --out runs/genre"
    ):
        train.begun_with(transfer, transfer.init)
    with pytest.raises(InputError, match="--sampling.tagger must name, got none in runs/tagger; .*--recipe mtat_cnn2d .*--demo"):
        train.start(mined, train.Options(demo=True), any_records=False)


# --- README --------------------------------------------------------------------------------------------------------------------------------
def test_readme_lists_every_recipe_beside_its_records():
    """Names as a shell would expand them, `a_{b,c}`."""
    text = (ROOT / "README.md").read_text("utf-8")
    section = text[text.index("## Recipes") :]
    listed = {}
    for names, line in re.findall(r"^\| (`[^|]*) \| [^|]* \| `?([^|`]*)`? \|$", section[: section.index("\n## ")], re.M):
        for name in re.findall(r"`([^`]+)`", names):
            prefix, _, inner = name.partition("{")
            listed |= {prefix + part: line for part in inner.rstrip("}").split(",")}
    expected = {name: recipes.build_line(recipe()) for name, recipe in recipes.RECIPES.items()}
    assert listed == {name: line.removeprefix("python -m records build ").removesuffix(" --out DIR") for name, line in expected.items()}
