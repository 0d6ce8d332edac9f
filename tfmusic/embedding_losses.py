"""What trains an embedding: metric-learning losses whose truth is multi-label, pure functions, thin Keras losses and layers around them.

The truth is a multi-hot matrix: tags, one-hot artists, or one-hot clips of which a batch holds two crops. Two examples are alike as far as their
labels overlap (`overlap`); with one-hot truth that is 0 or 1, and every loss here is its paper's. What has no positive (or, where negatives are
meant, no negative) adds nothing, neither to a loss nor to what divides it. Vectors may be of any length, equal or 0: gradients stay finite.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

FAR = 1e30  # stands for infinity where a product with 0 has to be 0


# --- how alike by truth, how far apart by embedding -------------------------------------------------------------------------------------
def overlap(y_true, weights=None):
    """How much of their labels every two examples share: `sum w min(a, b) / sum w max(a, b)`, without weights Jaccard's `|a & b| / |a | b|`.

    Args:
        y_true: 0/1 `[shape=(batch, labels)]`.
        weights: what a label counts, such as its inverse document frequency `float >= 0` `[shape=(labels,)]`; None: all alike.

    Returns:
        `0 <= float <= 1` `[shape=(batch, batch)]`, symmetric, float32 or wider; 0 for examples without labels, with themselves too.

    >>> overlap([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])  # first row: 2/2, 1/3, 0
    """
    y_true = _wide(y_true)
    if len(y_true.shape) != 2:
        raise ValueError(f"y_true must be multi-hot of shape (batch, labels), class numbers as one-hot, got shape {tuple(y_true.shape)}")
    weighted = y_true if weights is None else y_true * ops.convert_to_tensor(weights, y_true.dtype)
    shared = ops.matmul(weighted, ops.transpose(y_true))
    own = ops.diagonal(shared)
    union = own[:, None] + own[None, :] - shared
    return ops.where(union > 0, shared / ops.where(union > 0, union, 1), 0)


def distances(embeddings, kind: str = "cosine"):
    """Distance of every two vectors; that of a vector to itself and to its like is 0, and its gradient there is 0.

    Args:
        embeddings: vectors of any length `[shape=(..., batch, dims)]`.
        kind: "cosine", `1 - cos`, a vector of zeros is at 1 from all others; "squared" or "euclidean", of the difference.

    Returns:
        `float >= 0` `[shape=(..., batch, batch)]`, float32 or wider.

    >>> distances([[3.0, 0.0], [0.0, 4.0]], "euclidean")  # 5 apart
    """
    return DISTANCES[_in_table(DISTANCES)("distance", kind)](_wide(embeddings))


def _squared(vectors):
    vectors = vectors - ops.stop_gradient(ops.mean(vectors, axis=-2, keepdims=True))  # near each other, far from 0: less to cancel below
    products = ops.matmul(vectors, ops.swapaxes(vectors, -1, -2))
    own = ops.diagonal(products, axis1=-2, axis2=-1)  # rounded as the products of equal vectors are, so that these are exactly 0 apart
    return ops.maximum(own[..., :, None] + own[..., None, :] - 2 * products, 0)


def _euclidean(vectors):
    squared = _squared(vectors)
    apart = squared > 0  # the square root's gradient at 0 is infinite
    return ops.where(apart, ops.sqrt(ops.where(apart, squared, 1)), 0)


def _cosine(vectors):
    units, empty = _units(vectors)
    empty = ops.cast(empty[..., 0], units.dtype)
    return (_squared(units) + ops.abs(empty[..., :, None] - empty[..., None, :])) / 2  # 1 - cos = |u - v|^2 / 2, for 0 and u it lacks 1/2


DISTANCES = {"cosine": _cosine, "squared": _squared, "euclidean": _euclidean}


def _units(vectors):
    """Vectors at length 1, and which have no direction `[shape=(..., 1)]`: those are 0 and get no gradient."""
    power = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    empty = power <= 1e-12
    return ops.where(empty, 0, vectors * ops.rsqrt(ops.where(empty, 1, power))), empty


def _wide(values):
    """A tensor of float32, or of its own type where that is wider."""
    values = ops.convert_to_tensor(values)
    return ops.cast(values, keras.backend.result_type(values.dtype, "float32"))


def _mean(values, weight):
    """Weighted mean, 0 without weight."""
    weight = ops.cast(weight, values.dtype)
    total = ops.sum(weight)
    return ops.sum(values * weight) / ops.where(total > 0, total, 1)


# --- triplets ---------------------------------------------------------------------------------------------------------------------------
def triplets(y_true, embeddings, margin=0.2, distance="cosine", mining="semi_hard", positive_from=0.0, weights=None):
    """(`triplet_loss`, share of active triplets, number of triplets that `mining` looks at), scalars of one computation; arguments as there.

    A triplet is active when `d(a, p) - d(a, n) + margin > 0`; a soft margin's loss is never 0, there it is active when `d(a, p) > d(a, n)`.
    A share near 0 means that the negatives are too easy to learn from, one near 1 that the embedding is not learning, or has collapsed.
    """
    mine = MINING[_in_table(MINING)("mining", mining)]
    embeddings = _wide(embeddings)
    if mining == "given":
        difference, weight = mine(embeddings, distance)
    else:
        alike, apart = overlap(y_true, weights), distances(embeddings, distance)
        positive, others = (alike > 0) & (alike >= positive_from), ~ops.eye(ops.shape(alike)[0], dtype="bool")
        difference, weight = mine(apart, positive & others, ~positive & others, embeddings)
    weight = ops.cast(weight, difference.dtype)
    active = ops.cast(difference + (margin or 0) > 0, difference.dtype)
    loss = ops.softplus(difference) if margin is None else ops.relu(difference + margin)
    counted = weight * active if mining == "all" and margin is not None else weight
    return _mean(loss, counted), _mean(active, weight), ops.sum(weight)


def triplet_loss(y_true, embeddings, margin=0.2, distance="cosine", mining="semi_hard", positive_from=0.0, weights=None):
    """Triplet loss with in-batch mining: an anchor shall be nearer to its positive than to its negative, by a margin.

    `max(0, d(a, p) - d(a, n) + margin)`. An example is a positive of the anchor when their overlap is above 0 and at least
    `positive_from`, else a negative: an example without labels is a negative of all, and never an anchor. Mining, B the batch size:

    - "all": every triplet, mean over the active ones, with a soft margin over all (Hermans et al. 2017); memory B^3.
    - "hard": an anchor's farthest positive and nearest negative, mean over anchors (Hermans et al. 2017).
    - "semi_hard": for every anchor and positive the nearest negative that is farther than the positive, without one the farthest, mean
      over these pairs (Schroff et al. 2015); memory B^3.
    - "weighted": the expected loss of every anchor and positive when the negative is drawn with the weight `(1 + cos) / 2` of its nearness
      to the anchor (Won et al. 2021 draw one so; the expectation has less noise); mean over these pairs, memory B^3.
    - "distance_weighted": the same with the inverse of the density that distances have on the unit sphere,
      `q(d) = d^(dims-2) (1 - d^2/4)^((dims-3)/2)` (Wu et al. 2017), d kept in .5 to sqrt(2): nearer ones are noise, and beyond it the
      density falls again.
    - "given": the batch is laid out as anchor, positive, negative, anchor, positive, negative, ...; y_true is not looked at.

    Args:
        y_true: 0/1 `[shape=(batch, labels)]`.
        embeddings: `[shape=(batch, dims)]`.
        margin: `float >= 0`; None: the soft margin `log(1 + exp(d(a, p) - d(a, n)))`.
        distance: "cosine", "squared" or "euclidean", as `distances`.
        mining: which triplets, as above.
        positive_from: least overlap of a positive `0 <= float <= 1`.
        weights: as `overlap`.

    Returns:
        Scalar, float32 or wider; 0, with gradients of 0, without a triplet.

    Raises:
        ValueError: a distance or a mining that there is not, or given triplets in a batch that is no multiple of 3.

    >>> triplet_loss([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[0.0], [2.0], [3.0]], 1.5, "euclidean", "hard")  # (2-3+1.5 + 2-1+1.5) / 2
    """
    return triplets(y_true, embeddings, margin, distance, mining, positive_from, weights)[0]


def _all(apart, positive, negative, _):
    return apart[:, :, None] - apart[:, None, :], positive[:, :, None] & negative[:, None, :]  # (anchor, positive, negative)


def _hard(apart, positive, negative, _):
    farthest, nearest = ops.max(ops.where(positive, apart, -1), axis=1), ops.min(ops.where(negative, apart, FAR), axis=1)
    return farthest - nearest, ops.any(positive, axis=1) & ops.any(negative, axis=1)  # (anchor,)


def _semi_hard(apart, positive, negative, _):
    farther = negative[:, None, :] & (apart[:, None, :] > apart[:, :, None])  # (anchor, positive, negative)
    nearest_farther = ops.min(ops.where(farther, apart[:, None, :], FAR), axis=2)
    farthest = ops.max(ops.where(negative, apart, -1), axis=1, keepdims=True)
    chosen = ops.where(ops.any(farther, axis=2), nearest_farther, farthest)
    return apart - chosen, positive & ops.any(negative, axis=1, keepdims=True)  # (anchor, positive)


def _weighted(log_weight):
    def mine(apart, positive, negative, embeddings):
        log_weights = log_weight(distances(ops.stop_gradient(embeddings), "cosine"), embeddings.shape[-1])
        chance = ops.softmax(ops.where(negative, log_weights, -FAR), axis=1) * ops.cast(negative, apart.dtype)
        weight = ops.cast(positive, apart.dtype)[:, :, None] * chance[:, None, :]
        return apart[:, :, None] - apart[:, None, :], weight

    return mine


def _log_inverse_density(cosine, dims):
    cosine = ops.clip(cosine, 1 / 8, 1)  # d^2 = 2 cosine
    return (1 - dims / 2) * ops.log(2 * cosine) - (dims - 3) / 2 * ops.log(1 - cosine / 2)


def _given(embeddings, distance):
    batch, dims = embeddings.shape
    if batch is not None and batch % 3:
        raise ValueError(f"the batch must be a multiple of 3 for given triplets, got {batch}")
    apart = distances(ops.reshape(embeddings, (-1, 3, dims)), distance)
    difference = apart[:, 0, 1] - apart[:, 0, 2]
    return difference, ops.ones_like(difference)


MINING = {
    "all": _all,
    "hard": _hard,
    "semi_hard": _semi_hard,
    "weighted": _weighted(lambda cosine, _: ops.log(ops.maximum(1 - cosine / 2, 1e-12))),  # (1 + cos) / 2
    "distance_weighted": _weighted(_log_inverse_density),
    "given": _given,  # by place, not by truth
}


# --- contrastive ------------------------------------------------------------------------------------------------------------------------
def supervised_contrastive_loss(y_true, embeddings, temperature=0.1, weights=None):
    """Supervised contrastive loss, where an example is a positive as far as its labels overlap the anchor's.

    `- sum_j w_ij log p_ij / sum_j w_ij`, mean over anchors with a positive; `w = overlap`, `p_ij` the softmax of `cos(i, j) / temperature`
    over all j but i. With one-hot truth the loss "out" of Khosla et al. 2020.

    Args:
        y_true, embeddings, weights: as in `triplet_loss`; temperature: `float > 0`.

    Returns:
        Scalar, float32 or wider; 0 without a positive.

    >>> supervised_contrastive_loss([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], ops.eye(3))  # two candidates, equally near: log 2
    """
    logits = _similarities(embeddings, temperature)
    others = ~ops.eye(ops.shape(logits)[0], dtype="bool")
    log_p = logits - ops.logsumexp(ops.where(others, logits, -FAR), axis=1, keepdims=True)
    alike = ops.cast(overlap(y_true, weights), logits.dtype) * ops.cast(others, logits.dtype)
    total = ops.sum(alike, axis=1)
    return _mean(-ops.sum(alike * log_p, axis=1) / ops.where(total > 0, total, 1), total > 0)


def nt_xent_loss(y_true, embeddings, temperature=0.1):
    """Normalised temperature-scaled cross-entropy: every positive alone against all negatives of its anchor.

    `- log (exp s_ip / (exp s_ip + sum_n exp s_in))` with `s = cos / temperature`, mean over the pairs of an anchor and a positive (overlap
    above 0); its negatives have overlap 0. With one-hot clips in two crops each the loss of Chen et al. 2020.

    Args:
        y_true, embeddings: as in `triplet_loss`; temperature: `float > 0`.

    Returns:
        Scalar, float32 or wider; 0 without a positive that has a negative beside it.

    >>> nt_xent_loss([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], ops.eye(3))  # one negative, as near as the positive: log 2
    """
    logits = _similarities(embeddings, temperature)
    alike, others = overlap(y_true), ~ops.eye(ops.shape(logits)[0], dtype="bool")
    positive, negative = (alike > 0) & others, (alike == 0) & others
    of_negatives = ops.logsumexp(ops.where(negative, logits, -FAR), axis=1, keepdims=True)
    return _mean(ops.softplus(of_negatives - logits), positive & ops.any(negative, axis=1, keepdims=True))


def _similarities(embeddings, temperature):
    units, _ = _units(_wide(embeddings))
    return ops.matmul(units, ops.transpose(units)) / temperature


# --- proxies ----------------------------------------------------------------------------------------------------------------------------
def proxy_nca_loss(y_true, embeddings, proxies, scale=9.0):
    """Proxy-NCA: cross-entropy of the softmax over a trained vector per label, its proxy, against the example's labels in equal parts.

    `- sum_l y_l / |y| log p_l`, `p` the softmax over l of `-scale |u - proxy_l|^2` of unit vectors, mean over examples with a label
    (Movshovitz-Attias et al. 2017; with the positive below the line, and 9 for the scale, as Teh et al. 2020).

    Args:
        y_true, embeddings: as in `triplet_loss`; proxies: `[shape=(labels, dims)]`; scale: `float > 0`.

    Returns:
        Scalar, float32 or wider; 0 without labels.

    >>> proxy_nca_loss([[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], scale=1.0)  # distances 0 and 2: log(1 + exp(-2)) = .127
    """
    cosine, y_true = _to_proxies(y_true, embeddings, proxies)
    log_p = ops.log_softmax(2 * scale * cosine, axis=1)  # |u - v|^2 = 2 - 2 cos, and the softmax does not see the 2
    labels = ops.sum(y_true, axis=1)
    return _mean(-ops.sum(y_true * log_p, axis=1) / ops.where(labels > 0, labels, 1), labels > 0)


def proxy_anchor_loss(y_true, embeddings, proxies, margin=0.1, scale=32.0):
    """Proxy anchor: every label's proxy is an anchor that draws its examples and pushes all others, the hard ones most.

    `1/|P+| sum_{p in P+} log(1 + sum_{x in X+} exp(-scale (cos(x, p) - margin))) + 1/|P| sum_p log(1 + sum_{x in X-} exp(scale (cos(x, p) +
    margin)))` (Kim et al. 2020): X+ the examples with the label of p, X- all others of the batch, also those without labels, P all proxies
    and P+ those with an example.

    Args:
        y_true, embeddings: as in `triplet_loss`; proxies: `[shape=(labels, dims)]`; margin: `float >= 0`; scale: `float > 0`.

    Returns:
        Scalar, float32 or wider.

    >>> proxy_anchor_loss([[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], margin=0.0, scale=1.0)  # log(1 + 1/e) + log(2) / 2 = .660
    """
    cosine, y_true = _to_proxies(y_true, embeddings, proxies)
    positive = y_true > 0

    def attention(logits, mask):
        return ops.softplus(ops.logsumexp(ops.where(mask, logits, -FAR), axis=0))  # log(1 + sum exp), per proxy

    drawn = _mean(attention(-scale * (cosine - margin), positive), ops.any(positive, axis=0))
    return drawn + ops.mean(attention(scale * (cosine + margin), ~positive))


def _to_proxies(y_true, embeddings, proxies):
    """Cosine of every example and proxy, and the truth, of one type `[shape=(batch, labels)]`."""
    (units, _), (proxy_units, _) = _units(_wide(embeddings)), _units(_wide(proxies))
    cosine = ops.matmul(units, ops.transpose(ops.cast(proxy_units, units.dtype)))
    return cosine, ops.cast(y_true, cosine.dtype)


# --- Keras classes: settings as JSON keeps them, losses, layers ------------------------------------------------------------------------------
def _in_table(table):
    def check(name, value):
        if value not in table:
            raise ValueError(f"{name} must be one of {', '.join(table)}, got {value!r}")
        return value

    return check


def _in_range(least, most):
    def check(name, value):
        if not least <= value <= most:
            raise ValueError(f"{name} must be in [{least:g}, {most:g}], got {value!r}")
        return float(value)

    return check


def _of_labels(name, value):
    array = np.asarray(value, np.float64)
    if array.ndim != 1 or not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(f"{name} must be None, or finite and >= 0, one per label, got {value!r}")
    return array.tolist()


CHECKS = {
    "margin": _in_range(0, 1e6),
    "distance": _in_table(DISTANCES),
    "mining": _in_table(MINING),
    "positive_from": _in_range(0, 1),
    "weights": _of_labels,
    "temperature": _in_range(1e-6, 1e6),
    "scale": _in_range(1e-6, 1e6),
}


def _checked(optional=(), **settings):
    """Settings as JSON keeps them; those named in `optional` may be None."""
    return {name: None if value is None and name in optional else CHECKS[name](name, value) for name, value in settings.items()}


class _EmbeddingLoss(keras.losses.Loss):
    """A function of (truth, embeddings) and settings as a Keras loss: a figure of the batch, which has no examples to weigh or to list."""

    def __init__(self, function, settings, *, name=None, dtype="float32"):
        super().__init__(name=name, dtype=dtype)  # float32 under mixed precision too
        self.function, self.settings = function, settings

    def __call__(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise ValueError(f"sample_weight must be None: {self.name} is one figure of the batch; leave examples out instead")
        y_true = ops.convert_to_tensor(y_true)
        if len(y_true.shape) != 2 or y_true.shape[1] == 1:  # a column of class numbers would pass as one label
            raise ValueError(f"y_true must be multi-hot of shape (batch, labels > 1), class numbers as one-hot, got shape {tuple(y_true.shape)}")
        return super().__call__(y_true, y_pred)

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred, **self.settings)

    def get_config(self):
        return {"name": self.name, **self.settings}


class _EmbeddingLossLayer(keras.layers.Layer):
    """Called on (truth, embeddings) inside a functional model, which compiles without a loss: adds the loss, returns the embeddings."""

    def __init__(self, function, settings, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})  # the embeddings return as they came, under mixed precision too
        self.function, self.settings = function, settings

    def call(self, y_true, embeddings):
        self.add_loss(self.function(y_true, embeddings, **self.settings))
        return embeddings

    def compute_output_spec(self, y_true, embeddings):
        return keras.KerasTensor(embeddings.shape, embeddings.dtype)

    def get_config(self):
        return {**super().get_config(), **self.settings}


def _triplet_settings(margin, distance, mining, positive_from, weights):
    optional = ("margin", "weights")
    return _checked(optional, margin=margin, distance=distance, mining=mining, positive_from=positive_from, weights=weights)


@keras.saving.register_keras_serializable("tfmusic")
class TripletLoss(_EmbeddingLoss):
    """`triplet_loss` as a Keras loss; arguments as there."""

    def __init__(self, margin=0.2, distance="cosine", mining="semi_hard", positive_from=0.0, weights=None, **kwargs):
        super().__init__(triplet_loss, _triplet_settings(margin, distance, mining, positive_from, weights), **kwargs)


@keras.saving.register_keras_serializable("tfmusic")
class TripletLossLayer(_EmbeddingLossLayer):
    """`triplet_loss` as a layer on (truth, embeddings); arguments as there.

    The share of active triplets is in `fit`'s logs as "active", a mean over the batches that have triplets.

    >>> features, y_true = keras.Input((8,)), keras.Input((3,))
    >>> embeddings = keras.layers.UnitNormalization()(keras.layers.Dense(4)(features))
    >>> training = keras.Model([features, y_true], TripletLossLayer(mining="all")(y_true, embeddings))
    >>> training.compile("adam")
    >>> serving = keras.Model(features, embeddings)
    """

    def __init__(self, margin=0.2, distance="cosine", mining="semi_hard", positive_from=0.0, weights=None, **kwargs):
        super().__init__(triplet_loss, _triplet_settings(margin, distance, mining, positive_from, weights), **kwargs)
        self.active = keras.metrics.Mean(name="active")

    def call(self, y_true, embeddings):
        loss, active, count = triplets(y_true, embeddings, **self.settings)
        self.add_loss(loss)
        self.active.update_state(active, sample_weight=count > 0)
        return embeddings


@keras.saving.register_keras_serializable("tfmusic")
class SupervisedContrastiveLoss(_EmbeddingLoss):
    """`supervised_contrastive_loss` as a Keras loss; arguments as there."""

    def __init__(self, temperature=0.1, weights=None, **kwargs):
        super().__init__(supervised_contrastive_loss, _checked(("weights",), temperature=temperature, weights=weights), **kwargs)


@keras.saving.register_keras_serializable("tfmusic")
class SupervisedContrastiveLossLayer(_EmbeddingLossLayer):
    """`supervised_contrastive_loss` as a layer on (truth, embeddings); arguments as there."""

    def __init__(self, temperature=0.1, weights=None, **kwargs):
        super().__init__(supervised_contrastive_loss, _checked(("weights",), temperature=temperature, weights=weights), **kwargs)


@keras.saving.register_keras_serializable("tfmusic")
class NTXentLoss(_EmbeddingLoss):
    """`nt_xent_loss` as a Keras loss; arguments as there."""

    def __init__(self, temperature=0.1, **kwargs):
        super().__init__(nt_xent_loss, _checked(temperature=temperature), **kwargs)


@keras.saving.register_keras_serializable("tfmusic")
class NTXentLossLayer(_EmbeddingLossLayer):
    """`nt_xent_loss` as a layer on (truth, embeddings); arguments as there."""

    def __init__(self, temperature=0.1, **kwargs):
        super().__init__(nt_xent_loss, _checked(temperature=temperature), **kwargs)


class _ProxyLayer(_EmbeddingLossLayer):
    """Trains a vector for each label, in float32."""

    def __init__(self, labels, seed, function, settings, **kwargs):
        super().__init__(function, settings, **kwargs)
        self.labels, self.seed = labels, seed

    def build(self, y_true_shape, embeddings_shape):
        if y_true_shape[-1] != self.labels:
            raise ValueError(f"y_true must be of shape (batch, {self.labels}), got {tuple(y_true_shape)}")
        about_unit_length = keras.initializers.RandomNormal(stddev=embeddings_shape[-1] ** -0.5, seed=self.seed)
        self.proxies = self.add_weight((self.labels, embeddings_shape[-1]), about_unit_length, "float32", name="proxies")

    def call(self, y_true, embeddings):
        self.add_loss(self.function(y_true, embeddings, self.proxies, **self.settings))
        return embeddings

    def get_config(self):
        return {**super().get_config(), "labels": self.labels, "seed": self.seed}


@keras.saving.register_keras_serializable("tfmusic")
class ProxyNCALayer(_ProxyLayer):
    """`proxy_nca_loss` as a layer on (truth, embeddings) with trained proxies.

    Args:
        labels: number of proxies `int > 0`.
        scale: as in `proxy_nca_loss`.
        seed: of the proxies' first directions `int >= 0`.
    """

    def __init__(self, labels, scale=9.0, seed=0, **kwargs):
        super().__init__(labels, seed, proxy_nca_loss, _checked(scale=scale), **kwargs)


@keras.saving.register_keras_serializable("tfmusic")
class ProxyAnchorLayer(_ProxyLayer):
    """`proxy_anchor_loss` as a layer on (truth, embeddings) with trained proxies.

    Args:
        labels: number of proxies `int > 0`.
        margin, scale: as in `proxy_anchor_loss`.
        seed: of the proxies' first directions `int >= 0`.
    """

    def __init__(self, labels, margin=0.1, scale=32.0, seed=0, **kwargs):
        super().__init__(labels, seed, proxy_anchor_loss, _checked(margin=margin, scale=scale), **kwargs)
