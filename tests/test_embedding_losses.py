"""embedding_losses: loops in plain numpy, tensorflow-addons' golden numbers, and, slow, pytorch-metric-learning are the references."""

import itertools
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ROOT
from tfmusic import embedding_losses as losses

IDF = [0.5, 1.0, 2.0, 3.0, 0.7]
MINING = ["all", "hard", "semi_hard", "distance_weighted", "weighted"]


def _batch(seed=0, batch=12, labels=5, dims=6):
    """Multi-label truth with rows without labels, a label of one row alone, and embeddings of any length."""
    random = np.random.default_rng(seed)
    y_true = (random.random((batch, labels)) < 0.35).astype("float32")
    y_true[[1, 5]] = 0
    y_true[:, -1] = 0
    y_true[2] = np.eye(labels)[-1]
    return y_true, random.normal(0, 1, (batch, dims)).astype("float32")


def _value_and_gradient(function, embeddings):
    variable = tf.Variable(embeddings)
    with tf.GradientTape() as tape:
        loss = function(variable)
    return np.asarray(loss), np.asarray(tape.gradient(loss, variable))


# --- the same in loops ----------------------------------------------------------------------------------------------------------------------
def _overlap_in_loops(y_true, weights=None):
    weights = np.ones(y_true.shape[1]) if weights is None else np.asarray(weights)
    alike = np.zeros((len(y_true), len(y_true)))
    for (i, a), (j, b) in itertools.product(enumerate(y_true), repeat=2):
        if (weights * np.maximum(a, b)).sum():
            alike[i, j] = (weights * np.minimum(a, b)).sum() / (weights * np.maximum(a, b)).sum()
    return alike


def _cos(a, b):
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / lengths if lengths else 0.0


APART = {
    "cosine": lambda a, b: 0.0 if (a == b).all() else 1 - _cos(a, b),
    "squared": lambda a, b: ((a - b) ** 2).sum(),
    "euclidean": lambda a, b: np.sqrt(((a - b) ** 2).sum()),
}


def _chances(weighted, anchor, negatives, dims):
    """Of drawing each negative."""
    cos = np.array([_cos(anchor, negative) for negative in negatives])
    if weighted == "weighted":
        weights = (1 + cos) / 2
    else:
        d = np.clip(np.sqrt(2 - 2 * cos), 0.5, np.sqrt(2))
        weights = 1 / (d ** (dims - 2) * (1 - d**2 / 4) ** ((dims - 3) / 2))
    return weights / weights.sum()


def _triplets_in_loops(y_true, embeddings, margin, distance, mining, positive_from=0.0, weights=None):
    """(loss, active share, triplets): one (difference, count) per triplet."""
    alike, vectors = _overlap_in_loops(y_true, weights), embeddings.astype(np.float64)
    found, apart, others = [], APART[distance], range(len(vectors))
    for a in others:
        positives = [j for j in others if j != a and alike[a, j] > 0 and alike[a, j] >= positive_from]
        negatives = [j for j in others if j != a and j not in positives]
        d = {j: apart(vectors[a], vectors[j]) for j in others}
        if not positives or not negatives:
            continue
        if mining == "hard":
            found.append((max(d[p] for p in positives) - min(d[n] for n in negatives), 1))
            continue
        for p in positives:
            if mining == "all":
                found += [(d[p] - d[n], 1) for n in negatives]
            elif mining == "semi_hard":
                farther = [d[n] for n in negatives if d[n] > d[p]]
                found.append((d[p] - (min(farther) if farther else max(d[n] for n in negatives)), 1))
            else:
                chances = _chances(mining, vectors[a], vectors[negatives], vectors.shape[1])
                found += [(d[p] - d[n], chance) for n, chance in zip(negatives, chances, strict=True)]
    difference, count = np.array(found).T
    each = np.log1p(np.exp(difference)) if margin is None else np.maximum(difference + margin, 0)
    active = difference + (margin or 0) > 0
    counted = count * active if mining == "all" and margin is not None else count
    return (each * counted).sum() / counted.sum(), (active * count).sum() / count.sum(), count.sum()


def _supervised_contrastive_in_loops(y_true, embeddings, temperature, weights=None):
    alike, n, found = _overlap_in_loops(y_true, weights), len(y_true), []
    for i in range(n):
        e = {j: np.exp(_cos(embeddings[i], embeddings[j]) / temperature) for j in range(n) if j != i}
        total = sum(alike[i, j] for j in e)
        if total:
            found.append(-sum(alike[i, j] * np.log(e[j] / sum(e.values())) for j in e) / total)
    return np.mean(found)


def _nt_xent_in_loops(y_true, embeddings, temperature):
    alike, n, found = _overlap_in_loops(y_true), len(y_true), []
    for i in range(n):
        e = {j: np.exp(_cos(embeddings[i], embeddings[j]) / temperature) for j in range(n) if j != i}
        negatives = sum(e[j] for j in e if not alike[i, j])
        found += [-np.log(e[j] / (e[j] + negatives)) for j in e if alike[i, j] and negatives]
    return np.mean(found)


def _proxy_nca_in_loops(y_true, embeddings, proxies, scale):
    found = []
    for labels, vector in zip(y_true, embeddings, strict=True):
        e = np.exp([-scale * (2 - 2 * _cos(vector, proxy)) for proxy in proxies])
        if labels.any():
            found.append(-np.log(e / e.sum())[labels > 0].mean())
    return np.mean(found)


def _proxy_anchor_in_loops(y_true, embeddings, proxies, margin, scale):
    drawn, pushed = [], []
    for labels, proxy in zip(y_true.T, proxies, strict=True):
        cos = np.array([_cos(vector, proxy) for vector in embeddings])
        if labels.any():
            drawn.append(np.log(1 + np.exp(-scale * (cos[labels > 0] - margin)).sum()))
        pushed.append(np.log(1 + np.exp(scale * (cos[labels == 0] + margin)).sum()))
    return np.mean(drawn) + np.mean(pushed)


@pytest.mark.parametrize("weights", [None, IDF], ids=["jaccard", "idf"])
def test_overlap(weights):
    y_true, _ = _batch()
    alike = np.asarray(losses.overlap(y_true, weights))
    np.testing.assert_allclose(alike, _overlap_in_loops(y_true, weights), rtol=1e-6)
    np.testing.assert_array_equal(alike, alike.T)
    np.testing.assert_array_equal(np.diag(alike), y_true.any(axis=1))


@pytest.mark.parametrize("kind", ["cosine", "squared", "euclidean"])
def test_distances(kind):
    """Also of vectors of zeros, of duplicates, of halves, and of several batches at once."""
    _, vectors = _batch()
    vectors[3], vectors[4], vectors[7] = 0, 0, vectors[6]
    found = np.asarray(losses.distances(vectors, kind))
    np.testing.assert_allclose(found, [[APART[kind](a, b) for b in vectors] for a in vectors.astype(np.float64)], rtol=1e-4, atol=2e-6)
    assert (np.diag(found) == 0).all() and found[3, 4] == 0 and (kind == "cosine" or found[6, 7] == 0)
    np.testing.assert_allclose(losses.distances(vectors.reshape(4, 3, -1), kind)[1], found[3:6, 3:6], atol=1e-6)
    half = losses.distances(vectors.astype("float16"), kind)
    assert half.dtype == "float32"
    np.testing.assert_array_equal(half, losses.distances(vectors.astype("float16").astype("float32"), kind))


def test_distances_near_each_other_and_far_from_0():
    """Two vectors 1e-3 apart around 10: from products of 200 the float32 squares of 1e-6 would be lost in roundings of 1e-5."""
    vectors = 10 + np.array([[0.0, 0], [1e-3, 0]], "float32")
    np.testing.assert_allclose(losses.distances(vectors, "euclidean")[0, 1], vectors[1, 0] - vectors[0, 0], rtol=1e-4)


@pytest.mark.parametrize("positive_from", [0.0, 0.4])
@pytest.mark.parametrize("distance", ["cosine", "squared", "euclidean"])
@pytest.mark.parametrize("margin", [0.3, None], ids=["margin", "soft"])
@pytest.mark.parametrize("mining", MINING)
def test_triplets_are_those_of_the_loops(mining, margin, distance, positive_from):
    for seed, weights in enumerate((None, IDF, None)):
        y_true, embeddings = _batch(seed)
        arguments = margin, distance, mining, positive_from, weights
        found = losses.triplets(y_true, embeddings, *arguments)
        np.testing.assert_allclose(found, _triplets_in_loops(y_true, embeddings, *arguments), rtol=1e-4)
        assert losses.triplet_loss(y_true, embeddings, *arguments) == found[0]


@pytest.mark.parametrize(("mining", "loss"), [("all", 5.0), ("hard", 1.375), ("semi_hard", 1.125)])
def test_triplets_by_hand(mining, loss):
    """Places 0 1 of one label, 3 10 of the other, margin 1/2. Only anchor 3 violates: its positive is at 7, its negatives at 3 and 2, which costs
    4.5 and 5.5, so 2 of 8 triplets are active: their mean is 5. The hardest costs 5.5, over 4 anchors; no negative is farther than the positive,
    so the semi-hard one is the farther, 4.5 over 4 pairs."""
    found = losses.triplets([[1.0, 0], [1, 0], [0, 1], [0, 1]], [[0.0], [1], [3], [10]], 0.5, "euclidean", mining)
    np.testing.assert_allclose(found, [loss, 0.25, 8 if mining == "all" else 4], rtol=1e-6)


def test_given_triplets_by_hand():
    """1 - 3 + 1 < 0 and 2 - 1 + 1 = 2, mean 1; one of two is active; the truth is not looked at."""
    embeddings = np.array([[0.0], [1], [3], [10], [12], [11]])
    found = losses.triplets(None, embeddings, 1.0, "euclidean", "given")
    np.testing.assert_allclose(found, [1.0, 0.5, 2])
    np.testing.assert_allclose(losses.triplet_loss(None, embeddings, None, "euclidean", "given"), np.log1p(np.exp([-2, 1])).mean(), rtol=1e-6)


def test_weighted_negatives_by_hand():
    """In 2 dimensions, anchor and positive at 0 degrees, negatives at 60 and 180: cosine distances .5 and 2, so weights 3/4 and 0 by similarity, and
    by density, 1 / (1 - d^2/4)^(-1/2), sqrt(3/4) at d = 1 and sqrt(1/2) at sqrt(2), where distances end. Margin 3 makes losses 2.5 and 1."""
    angles = np.radians([0, 0, 60, 180])
    batch = np.eye(3, dtype="float32")[[0, 0, 1, 2]], np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")
    np.testing.assert_allclose(losses.triplet_loss(*batch, 3.0, mining="weighted"), 2.5, rtol=1e-5)
    near, far = np.sqrt([3 / 4, 1 / 2])
    np.testing.assert_allclose(losses.triplet_loss(*batch, 3.0, mining="distance_weighted"), (2.5 * near + far) / (near + far), rtol=1e-5)


@pytest.mark.parametrize("mining", ["all", "hard"])
def test_an_anchor_without_a_positive_changes_nothing(mining):
    """Too far away to be anyone's nearest negative, or an active one."""
    y_true, embeddings = _batch()
    more = np.pad(y_true, ((0, 2), (0, 0))), np.concatenate([embeddings, np.full((2, 6), [[100.0], [-100]], "float32")])
    for margin in [0.3, None] if mining == "hard" else [0.3]:
        alone, beside = (losses.triplet_loss(*batch, margin, "euclidean", mining) for batch in ((y_true, embeddings), more))
        np.testing.assert_allclose(alone, beside, rtol=1e-4)


@pytest.mark.parametrize("weights", [None, IDF], ids=["jaccard", "idf"])
def test_contrastive_losses_are_those_of_the_loops(weights):
    y_true, embeddings = _batch()
    found = losses.supervised_contrastive_loss(y_true, embeddings, 0.2, weights)
    np.testing.assert_allclose(found, _supervised_contrastive_in_loops(y_true, embeddings, 0.2, weights), rtol=1e-5)
    np.testing.assert_allclose(losses.nt_xent_loss(y_true, embeddings, 0.2), _nt_xent_in_loops(y_true, embeddings, 0.2), rtol=1e-5)


def test_contrastive_losses_by_hand():
    """Orthogonal vectors, the first two share a label: each sees two equally near candidates, log 2. A third of their labels' union shared with the
    third row, `w = (1, 1/3)`, changes nothing, as all candidates are as near."""
    for y_true in ([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]], [[1.0, 1, 0], [1, 1, 0], [0, 1, 1]]):
        np.testing.assert_allclose(losses.supervised_contrastive_loss(y_true, np.eye(3)), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(losses.nt_xent_loss([[1.0, 0], [1, 0], [0, 1]], np.eye(3)), np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(losses.nt_xent_loss([[1.0], [1], [1]], np.eye(3)), 0)  # no negative


def test_proxy_losses_are_those_of_the_loops():
    y_true, embeddings = _batch()
    proxies = _batch(seed=1)[1][:5]
    np.testing.assert_allclose(
        losses.proxy_nca_loss(y_true, embeddings, proxies, 3.0), _proxy_nca_in_loops(y_true, embeddings, proxies, 3), rtol=1e-5
    )
    expected = _proxy_anchor_in_loops(y_true, embeddings, proxies, 0.1, 32)
    np.testing.assert_allclose(losses.proxy_anchor_loss(y_true, embeddings, proxies), expected, rtol=1e-5)


def test_proxy_losses_by_hand():
    """One example on the proxy of its label, the other orthogonal. NCA: squared distances 0 and 2, log(1 + exp(-2)). Anchor: the label's proxy draws,
    log(1 + exp(-1)); of two proxies the other alone pushes, log(1 + exp(0)) / 2. Scale 1e5 neither overflows nor loses a term: .7 of 1e5."""
    truth, vector, proxies = [[1.0, 0]], [[2.0, 0]], [[3.0, 0], [0, 1]]
    np.testing.assert_allclose(losses.proxy_nca_loss(truth, vector, proxies, 1.0), np.log1p(np.exp(-2)), rtol=1e-5)
    np.testing.assert_allclose(losses.proxy_anchor_loss(truth, vector, proxies, 0.0, 1.0), np.log1p(np.exp(-1)) + np.log(2) / 2, rtol=1e-6)
    np.testing.assert_allclose(losses.proxy_anchor_loss(truth, vector, proxies, 1.4, 1e5), 0.4e5 + 0.7e5, rtol=1e-6)


# --- gradients ------------------------------------------------------------------------------------------------------------------------------
PROXIES = _batch(seed=1)[1][:5]
FUNCTIONS = {
    **{
        f"{mining} {distance} {margin}": lambda y, e, arguments=(margin, distance, mining): losses.triplet_loss(y, e, *arguments)
        for mining, distance, margin in itertools.product([*MINING, "given"], ["cosine", "squared", "euclidean"], [0.3, None])
    },
    "supervised contrastive": losses.supervised_contrastive_loss,
    "nt xent": losses.nt_xent_loss,
    "proxy nca": lambda y, e: losses.proxy_nca_loss(y, e, PROXIES),
    "proxy anchor": lambda y, e: losses.proxy_anchor_loss(y, e, PROXIES),
}
EMBEDDINGS = {
    "duplicates": lambda e: np.concatenate([e[:6], e[:6]]),
    "zeros among them": lambda e: e * (np.arange(12) % 3 > 0)[:, None],
    "all 0": np.zeros_like,
    "all equal": lambda e: np.tile(e[:1], (12, 1)),
    "as on the proxies": lambda e: PROXIES[np.arange(12) % 5],
    "long": lambda e: 5e3 * e,
    "short": lambda e: 1e-4 * e,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_finite(name):
    y_true, embeddings = _batch()
    for dtype, make in [
        *itertools.product(["float32"], EMBEDDINGS.values()),
        ("float16", EMBEDDINGS["duplicates"]),
        ("float16", EMBEDDINGS["all 0"]),
    ]:
        loss, gradient = _value_and_gradient(lambda e: FUNCTIONS[name](y_true, e), make(embeddings).astype(dtype))
        assert loss.dtype == "float32" and np.isfinite(loss) and gradient.dtype == dtype and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "given" not in name and name != "proxy anchor"])
def test_a_batch_without_positives_or_negatives_has_loss_and_gradients_0(name):
    """Proxy anchor is left out: its proxies push all that has not their label."""
    _, embeddings = _batch()
    truths = [np.zeros((12, 5))]
    if "proxy" not in name:
        truths.append(np.eye(12))
        truths += [np.ones((12, 1))] if name != "supervised contrastive" else []  # all alike: no negatives
    for y_true in truths:
        loss, gradient = _value_and_gradient(lambda e, y_true=y_true: FUNCTIONS[name](y_true, e), embeddings)
        assert loss == 0 and (gradient == 0).all()


@pytest.mark.filterwarnings("ignore:You are using a softmax")
def test_a_batch_of_one():
    for name in FUNCTIONS:
        if "given" not in name:
            assert np.isfinite(FUNCTIONS[name](np.ones((1, 5), "float32"), np.ones((1, 6), "float32"))), name


# --- other implementations ------------------------------------------------------------------------------------------------------------------
GOLDEN = np.load(ROOT / "tests" / "golden" / "addons.npz")


@pytest.mark.parametrize("name", [name.removesuffix("/loss") for name in GOLDEN if name.endswith("/loss")])
def test_parity_with_tensorflow_addons(name):
    batch, distance, loss = name.split("/")
    margin, mining = (None if loss == "hard_soft" else 0.3), loss.removesuffix("_soft")
    found, gradient = _value_and_gradient(
        lambda e: losses.triplet_loss(GOLDEN[f"{batch}/labels"], e, margin, distance, mining), GOLDEN[f"{batch}/embeddings"]
    )
    np.testing.assert_allclose(found, GOLDEN[f"{name}/loss"], rtol=1e-5)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name}/gradient"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_agree(backend):
    """All is keras.ops, so the values are the same without TensorFlow."""
    pytest.importorskip(backend, reason=f"pip install {backend}")
    code = (
        "import sys, json, keras, numpy as np; from tfmusic import embedding_losses as losses; assert 'tensorflow' not in sys.modules\n"
        "y, e = (np.array(a, 'float32') for a in json.loads(sys.stdin.read()))\n"
        "y, e = (keras.ops.convert_to_tensor(a) for a in (y, e)); found = [losses.triplet_loss(y, e, mining=mining) for mining in losses.MINING]\n"
        "found += [losses.supervised_contrastive_loss(y, e), losses.nt_xent_loss(y, e), losses.proxy_nca_loss(y, e, e[:5])]\n"
        "print(json.dumps([float(value) for value in [*found, losses.proxy_anchor_loss(y, e, e[:5])]]))"
    )
    y, e = _batch()
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps([y.tolist(), e.tolist()]), cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    expected = [losses.triplet_loss(y, e, mining=mining) for mining in losses.MINING]
    expected += [losses.supervised_contrastive_loss(y, e), losses.nt_xent_loss(y, e), losses.proxy_nca_loss(y, e, e[:5])]
    np.testing.assert_allclose(json.loads(done.stdout), [*expected, losses.proxy_anchor_loss(y, e, e[:5])], rtol=1e-5)


@pytest.mark.slow
def test_parity_with_pytorch_metric_learning():
    """Single-label truth, values and gradients. Theirs only "all" mines triplets as here; their NT-Xent counts a positive without negatives, as 0."""
    torch = pytest.importorskip("torch", reason="pip install torch pytorch-metric-learning")
    pytest.importorskip("pytorch_metric_learning", reason="pip install pytorch-metric-learning")
    from pytorch_metric_learning import distances
    from pytorch_metric_learning import losses as theirs

    classes = np.array([0, 1, 2, 0, 1, 2, 0, 1, 3, 3, 4, 0])  # class 4 has one example, so no positive; class 5 none
    y_true, embeddings = np.eye(6, dtype="float32")[classes], _batch()[1]
    proxies = _batch(seed=1)[1][:6]
    euclidean, squared = distances.LpDistance(normalize_embeddings=False), distances.LpDistance(normalize_embeddings=False, power=2)

    def triplet(margin, distance):
        return theirs.TripletMarginLoss(margin=margin or 0, smooth_loss=margin is None, distance=distance)

    pairs = {
        (loss, distance, margin): (triplet(margin, of), lambda e, m=margin, d=distance: losses.triplet_loss(y_true, e, m, d, "all"))
        for loss, margin in (("margin", 0.3), ("soft", None))
        for distance, of in (("cosine", distances.CosineSimilarity()), ("euclidean", euclidean), ("squared", squared))
    }
    pairs["supervised contrastive"] = theirs.SupConLoss(temperature=0.1), lambda e: losses.supervised_contrastive_loss(y_true, e, 0.1)
    pairs["nt xent"] = theirs.NTXentLoss(temperature=0.1), lambda e: losses.nt_xent_loss(y_true, e, 0.1)
    pairs["proxy nca"] = theirs.ProxyNCALoss(6, 6, softmax_scale=9), lambda e: losses.proxy_nca_loss(y_true, e, proxies, 9.0)
    pairs["proxy anchor"] = theirs.ProxyAnchorLoss(6, 6, margin=0.1, alpha=32), lambda e: losses.proxy_anchor_loss(y_true, e, proxies)
    for name, (their, our) in pairs.items():
        if hasattr(their, "proxies"):
            their.proxies.data = torch.tensor(proxies)
        leaf = torch.tensor(embeddings, requires_grad=True)
        expected = their(leaf, torch.tensor(classes))
        expected.backward()
        found, gradient = _value_and_gradient(our, embeddings)
        np.testing.assert_allclose(found, expected.item(), rtol=1e-5, err_msg=str(name))
        np.testing.assert_allclose(gradient, leaf.grad, rtol=1e-4, atol=1e-5, err_msg=str(name))


# --- Keras classes --------------------------------------------------------------------------------------------------------------------------
CLASSES = {
    losses.TripletLoss: {"margin": None, "distance": "squared", "mining": "all", "positive_from": 0.25, "weights": IDF},
    losses.SupervisedContrastiveLoss: {"temperature": 0.2, "weights": IDF},
    losses.NTXentLoss: {"temperature": 0.3},
}
LAYERS = {
    losses.TripletLossLayer: CLASSES[losses.TripletLoss],
    losses.SupervisedContrastiveLossLayer: CLASSES[losses.SupervisedContrastiveLoss],
    losses.NTXentLossLayer: CLASSES[losses.NTXentLoss],
    losses.ProxyNCALayer: {"labels": 5, "scale": 4.0, "seed": 3},
    losses.ProxyAnchorLayer: {"labels": 5, "margin": 0.2, "scale": 16.0},
}


def _training_model(layer, dims=4):
    features, y_true = keras.Input((6,)), keras.Input((5,))
    embeddings = keras.layers.Dense(dims, kernel_initializer=keras.initializers.GlorotUniform(seed=0))(features)
    return keras.Model([features, y_true], layer(y_true, embeddings)), keras.Model(features, embeddings)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_loss_class_round_trip_and_fit(kind):
    y_true, x = _batch()
    loss = kind(**CLASSES[kind], name="mine")
    copy = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
    assert isinstance(copy, kind) and copy.name == "mine" and copy.get_config() == loss.get_config()
    np.testing.assert_array_equal(copy(y_true, x), loss.function(y_true, x, **CLASSES[kind]))
    default = kind(weights=np.array(IDF)) if "weights" in CLASSES[kind] else kind()
    expected = loss.function(y_true, x.astype("float16"), **({"weights": IDF} if "weights" in CLASSES[kind] else {}))
    np.testing.assert_array_equal(default(y_true, x.astype("float16")), expected)  # in float32

    model = keras.Sequential([keras.layers.Dense(4)])
    model.compile(keras.optimizers.Adam(0.03), copy)
    history = model.fit(x, y_true, epochs=5, batch_size=12, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.parametrize(
    ("kind", "policy"),
    [(kind, "mixed_float16") for kind in LAYERS]
    + [(kind, policy) for kind in (losses.TripletLossLayer, losses.ProxyAnchorLayer) for policy in ("float32", "mixed_bfloat16")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_layer_in_a_functional_model_trains_saves_and_returns_the_embeddings(kind, policy, tmp_path):
    y_true, x = _batch()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model, serving = _training_model(kind(**LAYERS[kind], name="loss"))
        model.compile(keras.optimizers.Adam(0.03), jit_compile=False)
        layer, returned = model.get_layer("loss"), model([x, y_true])
        np.testing.assert_array_equal(returned, serving(x))
        assert returned.dtype == model.outputs[0].dtype == keras.config.dtype_policy().compute_dtype
        assert [variable.dtype for variable in model.trainable_variables] == ["float32"] * len(model.trainable_variables)
        arguments = (y_true, returned, layer.proxies) if "labels" in LAYERS[kind] else (y_true, returned)
        settings = {name: value for name, value in LAYERS[kind].items() if name not in ("labels", "seed")}
        np.testing.assert_allclose(model.losses, [layer.function(*arguments, **settings)], rtol=1e-6)

        proxies = [variable.numpy() for variable in layer.trainable_variables]
        history = model.fit([x, y_true], epochs=6, batch_size=12, verbose=0).history
        assert history["loss"][-1] < history["loss"][0]
        assert set(history) == {"loss", "active"} if kind is losses.TripletLossLayer else {"loss"}
        assert len(proxies) == ("labels" in LAYERS[kind])
        for was, variable in zip(proxies, layer.trainable_variables, strict=True):
            assert (was != variable.numpy()).any()

        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert json.loads(json.dumps(loaded.get_layer("loss").get_config())) == layer.get_config()
        np.testing.assert_array_equal(loaded([x, y_true]), model([x, y_true]))
        np.testing.assert_array_equal(loaded.losses, model.losses)
    finally:
        keras.config.set_dtype_policy(before)


def test_active_is_the_share_of_the_batches_that_have_triplets():
    """Batches of 4: the first is that of `test_triplets_by_hand`, 1/4; the second has none and does not count; the third, with everything in one
    place, is all active: (1/4 + 1) / 2."""
    y_true = np.tile(np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]]), (3, 1))
    y_true[4:8] = 0
    x = np.array([[0.0], [1], [3], [10]] * 2 + [[5.0]] * 4)
    features, labels = keras.Input((1,)), keras.Input((2,))
    model = keras.Model([features, labels], losses.TripletLossLayer(margin=0.5, distance="euclidean", mining="hard")(labels, features))
    model.compile()
    found = model.evaluate([x, y_true], batch_size=4, verbose=0, return_dict=True)
    np.testing.assert_allclose([found["active"], found["loss"]], [0.625, (1.375 + 0 + 0.5) / 3], rtol=1e-6)


def test_proxies_are_seeded_and_of_length_1_or_so():
    layers = [losses.ProxyNCALayer(labels=50, seed=seed) for seed in (0, 0, 1)]
    for layer in layers:
        layer.build((None, 50), (None, 128))
    same, again, other = (layer.proxies.numpy() for layer in layers)
    np.testing.assert_array_equal(same, again)
    assert (same != other).all()
    np.testing.assert_allclose(np.linalg.norm(same, axis=1).mean(), 1, atol=0.05)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((losses.TripletLoss, {name: value}) for name, value in (("margin", -0.1), ("margin", np.nan), ("distance", "l2"), ("mining", "random"))),
        *((losses.TripletLossLayer, {name: value}) for name, value in (("positive_from", 1.1), ("weights", [1, -1]), ("weights", [[1.0]]))),
        *((losses.NTXentLoss, {"temperature": value}) for value in (0, -1, np.inf)),
        (losses.SupervisedContrastiveLossLayer, {"temperature": 0}),
        (losses.ProxyNCALayer, {"labels": 2, "scale": 0}),
        (losses.ProxyAnchorLayer, {"labels": 2, "margin": -1}),
    ],
)
def test_bad_arguments(kind, settings):
    with pytest.raises(ValueError, match="must be .* got"):
        kind(**settings)


def test_bad_calls():
    with pytest.raises(ValueError, match="Unrecognized keyword arguments"):
        losses.NTXentLossLayer(margin=0.1)
    with pytest.raises(ValueError, match="multiple of 3 .* got 4"):
        losses.triplet_loss(None, np.zeros((4, 2)), mining="given")
    with pytest.raises(ValueError, match="must be of shape .batch, 3., got .2, 5."):
        losses.ProxyNCALayer(labels=3)(np.zeros((2, 5)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="distance must be one of cosine, squared, euclidean, got 'l2'"):
        losses.distances(np.zeros((2, 2)), "l2")


@pytest.mark.parametrize("y_true", [[0, 1, 1], [[0], [1], [1]]])
def test_class_numbers_are_refused(y_true):
    """tensorflow-addons takes them; as labels they would all be one."""
    for loss in (losses.TripletLoss(), losses.NTXentLoss(), losses.SupervisedContrastiveLoss()):
        with pytest.raises(ValueError, match="class numbers as one-hot"):
            loss(np.array(y_true), np.eye(3, dtype="float32"))


def test_weights_of_examples_are_refused():
    """The loss is one figure of the batch; Keras would multiply it by their mean."""
    with pytest.raises(ValueError, match="sample_weight must be None"):
        losses.TripletLoss()(np.eye(3), np.eye(3, dtype="float32"), sample_weight=np.ones(3))
