"""What TensorBoard shows of an evaluated run: the report's exhibits, precision-recall curves, settings beside figures, the embedding's projector."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmusic import files, page
from tfmusic.config import Experiment
from tfmusic.exhibits import Embedded
from tfmusic.page import Exhibit

THRESHOLDS = 201  # of a precision-recall curve, evenly over 0..1


def write(
    directory: Path,
    shown: Sequence[Exhibit],
    rate_hz: int,
    embedded: Embedded | None = None,
    tagged: tuple[np.ndarray, np.ndarray, Sequence[str]] | None = None,
    settings: Mapping[str, bool | float | str] | None = None,
    figures: Mapping[str, Mapping[str, float | None]] | None = None,
) -> None:
    """Writes the event file of one evaluation, in place of an earlier one.

    Args:
        directory: a run of TensorBoard's own, which holds nothing else.
        shown: as texts, images and sounds.
        rate_hz: of the sounds.
        embedded: what the projector shows; none: nothing.
        tagged: labels 0/1 `[shape=(tracks, classes)]`, scores in 0..1 of the same shape, names of the classes; a precision-recall curve for each
            class that some tracks have and some have not.
        settings: name to value, one column each in the table over runs; see `settings_of`.
        figures: split to name to number, none where it has none: the other columns, scalars "SPLIT/NAME".
    """
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.closing(tf.summary.create_file_writer(str(directory))) as writer, writer.as_default(step=0):
        if settings:
            _table_row(settings)
        for split, found in (figures or {}).items():
            for name, value in found.items():
                if value is not None:
                    tf.summary.scalar(f"{split}/{name}", value)
        for exhibit in shown:
            if exhibit.text or exhibit.rows:
                tf.summary.text(f"{exhibit.title}/text", f"{exhibit.text}\n\n{page.markdown(exhibit.rows)}".strip())
            if exhibit.figure:
                tf.summary.image(exhibit.title, _on_white(tf.image.decode_png(exhibit.png, channels=4))[None])
            for place, sound in enumerate(exhibit.sounds):
                waveform = sound.waveform[None, :, None].astype(np.float32) / 32768
                tf.summary.audio(f"{exhibit.title}/{place}", waveform, rate_hz, description=sound.caption)
        if tagged is not None:
            _precision_recall(*tagged)
    if embedded is not None:
        _projector(directory, embedded)


def _on_white(picture: tf.Tensor) -> tf.Tensor:
    """RGBA to RGB: TensorBoard's dark page has no other ground for dark ink."""
    colours, opacity = tf.split(tf.cast(picture, tf.int32), [3, 1], axis=-1)
    return tf.cast((colours * opacity + 255 * (255 - opacity)) // 255, tf.uint8)


def settings_of(experiment: Experiment, records: str) -> dict[str, bool | float | str]:
    """Every setting by its path, as TensorBoard's table takes them: numbers, switches, and all else as text.

    Args:
        experiment: of the run.
        records: the data's name.

    >>> settings_of(recipes.tagging(), "mine")["fit.epochs"]  # doctest: +SKIP
    40
    """

    def flat(values: Mapping, prefix: str = ""):
        for name, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value if isinstance(value, bool | int | float | str) else _text(value)

    return {**dict(flat(experiment.model_dump(mode="json"))), "records": records}


def _text(value: Sequence | None) -> str:
    return "none" if value is None else " ".join(map(str, value))


def _table_row(settings: Mapping[str, bool | float | str]) -> None:
    """The settings as the hparams plugin reads them; the scalars of the same folder are the row's figures."""
    from tensorboard.plugins.hparams import api_pb2, summary, summary_v2

    for found in (summary_v2.hparams_pb(dict(settings)), summary.session_end_pb(api_pb2.STATUS_SUCCESS)):
        tf.summary.experimental.write_raw_pb(found.SerializeToString())


def _precision_recall(y_true: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> None:
    """A curve for each class, in the pr_curve plugin's own format."""
    from tensorboard.plugins.pr_curve import summary

    for column, name in enumerate(names):
        truth = np.asarray(y_true[:, column], bool)
        if truth.any() and not truth.all():
            found = summary.pb(f"precision-recall/{name}", truth, np.clip(scores[:, column], 0, 1), THRESHOLDS, display_name=name)
            tf.summary.experimental.write_raw_pb(found.SerializeToString())


def _projector(directory: Path, embedded: Embedded) -> None:
    rows = [["id", "group", "tag", "tags"]]
    for row, (name, group) in enumerate(zip(embedded.ids, embedded.groups, strict=True)):
        first = np.flatnonzero(embedded.y_true[row])[:1]
        rows.append([name, group, embedded.labels[first[0]] if len(first) else "", embedded.tags(row)])
    np.savetxt(directory / "embedding.tsv", embedded.embedding, fmt="%.5g", delimiter="\t")
    files.write_text(directory / "metadata.tsv", "".join("\t".join(re.sub(r"\s", " ", cell) for cell in row) + "\n" for row in rows))
    projector = 'embeddings { tensor_name: "test tracks" tensor_path: "embedding.tsv" metadata_path: "metadata.tsv" }\n'
    files.write_text(directory / "projector_config.pbtxt", projector)
