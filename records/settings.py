"""Flags of `records build` beside the dataset's own (`datasets.clip.Source`): what is selected, and how shards are written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tfmusic.config import Settings


class Selection(Settings):
    """What is taken from a dataset; in this order: merge, choose labels, drop clips, split, subset."""

    merge: tuple[str, ...] = Field((), description="Labels to rename: old=new, or the name of one of the dataset's own maps.")
    tags: tuple[str, ...] = Field((), description="Labels to keep; none: all.")
    top_tags: int | None = Field(None, gt=0, description="Keeps this many labels, those of most clips.")
    min_count: int = Field(0, ge=0, description="Keeps labels of at least this many clips.")
    labelled: bool = Field(False, description="Drops clips without a label that is kept.")
    single: bool = Field(False, description="Drops clips without exactly one label that is kept, for tasks of one label a clip.")
    split_by: Literal["official", "group", "stratified"] = Field(
        "official",
        description="official: the dataset's own splits, where it has them. group: 80/10/10 % by a stable hash of the group. "
        "stratified: whole groups, the same shares of each label.",
    )
    subset: int | None = Field(None, gt=0, description="Clips of each split, by a stable hash, so that a smaller subset lies in a larger.")


class Work(Settings):
    """How shards are written, and by whom; the bytes depend on the first two alone."""

    min_s: float = Field(0.1, ge=0, description="Shorter clips go to quarantine.csv.")
    shard_mb: float = Field(128, gt=0, description="About the size of a shard in MiB.")
    max_quarantined: float = Field(0.5, ge=0, le=1, description="Share of unusable clips beyond which something is wrong, and the build fails.")
    repair: bool = Field(False, description="Compares every shard of a finished set with its hash, and writes the wrong ones anew.")
    workers: int | None = Field(None, gt=0, description="Threads, or processes of Beam's DirectRunner; none: one per core.")
    runner: Literal["local", "beam"] = Field("local", description="beam: on Apache Beam (requirements/beam.txt).")
    beam_options: str = Field("", description='Options of the Beam runner in one string: --beam-options="--runner=FlinkRunner ..."')
