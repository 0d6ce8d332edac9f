"""Whether a run that comes from elsewhere has heard what is scored here."""

from __future__ import annotations

from pathlib import Path

from tfmusic import catalogue, recipes, run, schema
from tfmusic.config import InputError
from tfmusic.files import RemotePath

MAGNATAGATUNE = "magnatagatune"  # in the manifest, of its reader's records


def check_apart(source: Path | str | None, records: Path | RemotePath, manifest: schema.Manifest) -> None:
    """Refuses a run to begin with, to learn from or to score, that has heard the validation or test tracks, itself or through another run.

    Args:
        source: run directory, or name of a published net, of which a line says on what it was trained where that is the same dataset; None passes.
        records: whose tracks are scored.
        manifest: of the records.

    Raises:
        InputError: it has, or its records were built anew since, so that nobody can tell.
    """
    if source is None:
        return
    if str(source) in recipes.PUBLISHED:
        if manifest.dataset == MAGNATAGATUNE and str(source).startswith("mtt_"):
            print(f"note: {source} was trained on MagnaTagATune's folders 0 to c: figures of tracks of these are those of training")
        return
    source = Path(source)
    info = run.read(source)
    for earlier in (info.experiment.init, info.experiment.sampling.tagger, info.experiment.frozen):
        check_apart(earlier, records, manifest)
    if info.records_sha1 == manifest.sha1:
        return
    try:
        known = schema.read_manifest(info.records)
    except InputError as error:
        print(f"note: what {source} was trained on cannot be compared with the tracks that are scored here: {error}")
        return
    if known.sha1 != info.records_sha1:
        raise InputError(f"{source} must be trained anew: its records {info.records} were built again since, and it may know what is scored here")
    check_apart(known.layout.features.run, records, manifest)
    common = catalogue.sources(info.records, known, ("train",)) & catalogue.sources(records, manifest, ("valid", "test"))
    if common:
        raise InputError(
            f"{source} must not know what is scored here, but was trained on {len(common)} of the validation and test tracks of {records}"
        )
