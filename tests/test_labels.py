"""The vocabulary: order, fingerprint, round trips, and what it refuses; families of labels."""

import numpy as np
import pytest

from tfmusic.config import InputError
from tfmusic.labels import Vocabulary, family_matrix


def test_rows_follow_the_order_of_the_names():
    vocabulary = Vocabulary(("piano", "drums", "no vocals"))
    np.testing.assert_array_equal(vocabulary.encode(["no vocals", "piano", "unknown"]), [1, 0, 1])
    assert vocabulary.decode(np.array([1, 0, 1])) == ["piano", "no vocals"]


def test_a_file_brings_the_same_vocabulary_back_and_another_order_is_another_one(tmp_path):
    vocabulary = Vocabulary(("señor", "b", "a"))
    (tmp_path / "labels.txt").write_text(vocabulary.text(), "utf-8")
    assert Vocabulary.read(tmp_path / "labels.txt").sha1 == vocabulary.sha1
    assert Vocabulary(("señor", "a", "b")).sha1 != vocabulary.sha1


@pytest.mark.parametrize("names", [("a", "a"), ("",), (" a",), ("a\nb",)])
def test_names_are_unique_trimmed_lines(names):
    with pytest.raises(InputError):
        Vocabulary(names)


def test_a_missing_or_empty_file_is_one_line(tmp_path):
    (tmp_path / "empty.txt").touch()
    for name in ("empty.txt", "missing.txt"):
        with pytest.raises(InputError, match=name):
            Vocabulary.read(tmp_path / name)


def test_a_row_of_labels_has_the_families_of_each_of_them():
    """hiss lies in both families, cat in one, hum in none: a clip of cat and hum is Animal alone, one of hiss is both, one of hum neither."""
    names, matrix = family_matrix(("cat", "hiss", "hum"), {"cat": ("Animal",), "hiss": ("Things", "Animal"), "gone": ("Music",)})
    assert names == ("Animal", "Things")
    y_true = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(y_true @ matrix > 0, [[1, 0], [1, 1], [0, 0]])
    assert family_matrix(("hum",), {})[1].shape == (1, 0)
