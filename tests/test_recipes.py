"""Every recipe: named as its function, documented, and able to take a training step on any records."""

import pytest

from tests.conftest import EXPERIMENT
from tfmusic import models, recipes, training
from tfmusic.config import Experiment, Layout
from tfmusic.frontend import LogMel
from tfmusic.tasks import TASKS


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_carries_its_name_and_survives_json(name):
    experiment = recipes.RECIPES[name]()
    assert experiment.recipe == name and experiment.task in TASKS
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment
    assert len(recipes.RECIPES[name].__doc__.splitlines()) > 1


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_trains_scaled_down(name, records, one_label, trained, tmp_path):
    """One step of 24 windows; what begins with a tagger, or learns from its errors, takes this suite's."""
    full = recipes.RECIPES[name]()
    experiment = full.model_copy(
        update={
            "init": trained if full.init else None,
            "sampling": full.sampling.model_copy(update={"tagger": trained if full.sampling.tagger else None}),
            "frontend": EXPERIMENT.frontend,
            "net": full.net.model_copy(update={"width": 0.125}),
            "fit": full.fit.model_copy(update={"epochs": 1, "batch_size": 24}),
            "evaluation": EXPERIMENT.evaluation,
        }
    )
    run = training.fit(experiment, one_label if experiment.activation == "softmax" else records, tmp_path / "run")
    assert (run / "metrics.json").is_file()


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_builds_its_own_front_end_and_net_at_full_size(name):
    experiment = recipes.RECIPES[name]()
    frontend = LogMel(experiment.frontend)
    shape = frontend.compute_output_shape((None, experiment.frontend.window_samples))[1:]
    deployed = models.deploy(frontend, models.build(experiment.net, shape, 50), experiment.activation)
    assert deployed.output["tags"].shape == (None, 50)
    assert experiment.frontend.window_s <= Layout().chunk_s - Layout().stride_s  # the default records serve it


def test_every_task_has_a_default_recipe():
    assert {recipes.RECIPES[name]().task for name in recipes.DEFAULTS.values()} == set(TASKS) == set(recipes.DEFAULTS)
