"""TFLite metadata: what MediaPipe's AudioClassifier must find in a .tflite file, sample rate and labels, put there without MediaPipe.

The metadata is a flatbuffer of its own, inside the model as the buffer TFLITE_METADATA (schema: metadata_schema.fbs 1.5.0 of MediaPipe 1.2.2); the
labels are a file in a zip archive behind the model, which readers of the model do not look at. `add` puts both into a file.

AudioClassifier takes every output for scores. Beside the tags an embedding is a second head without names to it, and allow and deny lists are
refused, which want names for all (tried on 1.2.2); `only` makes a file with a single output.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as flatbuffer

from tfmusic.config import InputError

BUFFER, LABELS = "TFLITE_METADATA", "labels.txt"
MODEL_IDENTIFIER, IDENTIFIER = b"TFL3", b"M001"
PARSER_VERSION = "1.3.0"  # of the schema that brought AudioProperties
ALIGNED_BYTES = 16  # of every constant in a .tflite file; runtimes map them where they lie
FIELDS = {  # table of the schema -> its fields in the order of their slots, as far as they are written here
    "ModelMetadata": ("name", "description", "version", "subgraph_metadata", "author", "license", "associated_files", "min_parser_version"),
    "SubGraphMetadata": ("name", "description", "input_tensor_metadata", "output_tensor_metadata"),
    "TensorMetadata": ("name", "description", "dimension_names", "content", "process_units", "stats", "associated_files"),
    "Content": ("content_properties_type", "content_properties"),
    "FeatureProperties": (),
    "AudioProperties": ("sample_rate", "channels"),
    "AssociatedFile": ("name", "description", "type"),
}
FEATURE_PROPERTIES, AUDIO_PROPERTIES, TENSOR_AXIS_LABELS = np.uint8(1), np.uint8(4), np.int8(2)  # union tags, member of an enumeration
SCALARS = {"uint8": "Uint8", "int8": "Int8", "uint32": "Uint32"}


@dataclasses.dataclass(frozen=True)
class About:
    """What a file says of itself; empty fields are left out."""

    name: str
    description: str
    version: str
    sample_rate_hz: int
    outputs: dict[str, str]  # name of an output -> what it is
    author: str = ""
    licence: str = ""


def add(content: bytes, about: About, labels: str) -> bytes:
    """A .tflite file with metadata and labels; what it computes and its signature are what they were.

    Args:
        content: of a file with one graph of one input and the output "tags" among its outputs.
        about: what to say.
        labels: text of labels.txt, a line for every score of "tags".

    Returns:
        Content of the new file: the model, and behind it a zip archive with labels.txt.

    Raises:
        InputError: the model has no such output, or as many labels are not there.

    >>> path.write_bytes(add(path.read_bytes(), About("mine", "", "1", 16_000, {"tags": "scores"}), "guitar\\npiano\\n"))  # doctest: +SKIP
    """
    model = _read(content)
    graph, outputs = model.subgraphs[0], _outputs(model)
    scores = [int(graph.tensors[index].shape[-1]) for index, name in outputs.items() if name == "tags"]
    if len(graph.inputs) != 1 or scores != [len(labels.splitlines())]:
        raise InputError(
            f"the model must have one input and the output tags with {len(labels.splitlines())} scores, got {len(graph.inputs)} and {scores}"
        )
    graph.outputs = np.array(sorted(graph.outputs, key=lambda index: outputs[index] != "tags"), np.int32)  # head 0 is the one with names
    packed = metadata(about, [outputs[index] for index in graph.outputs])
    model.metadata = [entry for entry in model.metadata or [] if _text(entry.name) != BUFFER]
    entry = flatbuffer.MetadataT()
    entry.name, entry.buffer = BUFFER, len(model.buffers)
    model.metadata.append(entry)
    model.buffers.append(flatbuffer.BufferT())
    model.buffers[-1].data = np.frombuffer(packed, np.uint8)
    file = io.BytesIO(_write(model))
    with zipfile.ZipFile(file, "a") as archive:  # stored as it is: MediaPipe unpacks nothing
        archive.writestr(zipfile.ZipInfo(LABELS, (1980, 1, 1, 0, 0, 0)), labels)  # zip's first day: equal models, equal bytes
    return file.getvalue()


def only(content: bytes, output: str) -> bytes:
    """A .tflite file with one of its outputs alone, and without the operators and constants that served the others.

    Args:
        content: of a file with one graph and one signature.
        output: name in the signature.

    Raises:
        InputError: no such output.
    """
    model = _read(content)
    graph, (signature,) = model.subgraphs[0], model.signatureDefs
    kept = [tensor for tensor in signature.outputs if _text(tensor.name) == output]
    if not kept:
        raise InputError(f"output must be one of {', '.join(_outputs(model).values())}, got {output}")
    signature.outputs = kept
    graph.outputs = np.array([kept[0].tensorIndex], np.int32)
    needed, operators = {kept[0].tensorIndex}, []
    for operator in reversed(graph.operators):  # they stand in the order in which they run
        if needed & {*map(int, operator.outputs)}:
            operators.insert(0, operator)
            needed |= {*map(int, operator.inputs)}
    graph.operators = operators
    unread = {tensor.buffer for index, tensor in enumerate(graph.tensors) if index not in needed}
    for number in unread - {graph.tensors[index].buffer for index in needed if index >= 0}:  # -1 is an operand that is left out
        model.buffers[number].data = None
    return _write(model)


def metadata(about: About, outputs: list[str]) -> bytes:
    """The flatbuffer ModelMetadata.

    Args:
        about: what to say.
        outputs: names in the order of the graph's outputs; "tags" gets the labels.
    """
    audio = _table("AudioProperties", sample_rate=np.uint32(about.sample_rate_hz), channels=np.uint32(1))
    waveform = _table(
        "TensorMetadata",
        name="waveform",
        description="Mono samples in [-1, 1].",
        content=_table("Content", content_properties_type=AUDIO_PROPERTIES, content_properties=audio),
    )
    features = _table("Content", content_properties_type=FEATURE_PROPERTIES, content_properties=_table("FeatureProperties"))
    labels = _table("AssociatedFile", name=LABELS, description="One label a line, in the order of the scores.", type=TENSOR_AXIS_LABELS)
    put_out = [
        _table(
            "TensorMetadata",
            name=name,
            description=about.outputs[name],
            content=features,
            associated_files=[labels] if name == "tags" else [],
        )
        for name in outputs
    ]
    model = _table(
        "ModelMetadata",
        name=about.name,
        description=about.description,
        version=about.version,
        subgraph_metadata=[_table("SubGraphMetadata", input_tensor_metadata=[waveform], output_tensor_metadata=put_out)],
        author=about.author,
        license=about.licence,
        min_parser_version=PARSER_VERSION,
    )
    builder = flatbuffers.Builder()
    builder.Finish(_put(builder, model), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


# --- flatbuffers --------------------------------------------------------------------------------------------------------------------------
Table = dict  # slot -> scalar of numpy, str, Table, or list of Table


def _table(kind: str, **fields) -> Table:
    return {FIELDS[kind].index(name): value for name, value in fields.items() if isinstance(value, (np.generic, dict)) or value}


def _put(builder: flatbuffers.Builder, value: Table | str | list[Table]) -> int:
    """Writes a value behind all it refers to; its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list):
        offsets = [_put(builder, one) for one in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    fields = {slot: field if isinstance(field, np.generic) else _put(builder, field) for slot, field in value.items()}
    builder.StartObject(max(fields, default=-1) + 1)
    for slot, field in fields.items():
        if isinstance(field, np.generic):
            getattr(builder, f"Prepend{SCALARS[field.dtype.name]}Slot")(slot, int(field), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, field, 0)
    return builder.EndObject()


class _Aligned(flatbuffers.Builder):
    """The schema asks for constants at multiples of 16 bytes, which flatbuffers' Python leaves to its caller."""

    def StartVector(self, elemSize, numElems, alignment):  # noqa: N802, N803 (theirs)
        return super().StartVector(elemSize, numElems, ALIGNED_BYTES if elemSize == 1 else alignment)


def _read(content: bytes) -> flatbuffer.ModelT:
    model = flatbuffer.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # the quantizer lays constants behind the flatbuffer, at places that would no longer be right
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return model


def _write(model: flatbuffer.ModelT) -> bytes:
    builder = _Aligned()
    builder.Finish(model.Pack(builder), file_identifier=MODEL_IDENTIFIER)
    return bytes(builder.Output())


def _outputs(model: flatbuffer.ModelT) -> dict[int, str]:
    """Tensors that the signature calls outputs, and what it calls them."""
    return {tensor.tensorIndex: _text(tensor.name) for tensor in model.signatureDefs[0].outputs}


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
