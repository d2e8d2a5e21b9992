"""An ONNX file, checked before anything is believed of it: whole, within bounds, its data in its own folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, inliner

from pipeline.errors import ModelError
from pipeline.visible import shown_text

MOST_BYTES = 2**31 - 1  # protobuf reads no more; weights of larger networks lie beside the file
_MOST_NODES = 200_000
OPSETS = range(7, onnx.defs.onnx_opset_version() + 1)
_LONGEST_REASON = 300  # characters


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """What stands in an ONNX file, its weights loaded and its own functions written out."""

    path: Path
    model: onnx.ModelProto
    opset: int

    @property
    def initializers(self) -> Mapping[str, onnx.TensorProto]:
        """Return the constants by name."""
        return {each.name: each for each in self.model.graph.initializer}

    @property
    def inputs(self) -> tuple[onnx.ValueInfoProto, ...]:
        """Return what the graph is given; old files list its constants there, too."""
        constants = self.initializers
        return tuple(each for each in self.model.graph.input if each.name not in constants)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of what it gives."""
        return tuple(each.name for each in self.model.graph.output)


def read_file(path: Path) -> OnnxFile:
    """Read and check an ONNX file and the data beside it.  Raises ModelError."""
    model = _parsed(path)
    for tensor in model.graph.initializer:
        if external_data_helper.uses_external_data(tensor):
            _check_external(path, tensor)
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    opset = _opset(path, model)
    if model.graph.sparse_initializer:
        raise ModelError("its weights are sparse tensors", where=str(path), remedy="export it with dense ones")
    if _written_out(model) > _MOST_NODES:
        raise ModelError(f"it has more than {_MOST_NODES:,} nodes", where=str(path))
    _check_names(path, model.graph)
    for output in model.graph.output:
        output.type.tensor_type.shape.SetInParent()  # some exporters leave it out, and nobody reads it here
    try:
        onnx.checker.check_model(model)
        if model.functions:
            model = inliner.inline_local_functions(model)
    except Exception as error:  # a ValidationError, and what the library's C++ part raises
        raise _refused(path, "is no valid ONNX file", error) from error
    for node in _all_nodes(model.graph):
        _check_inputs(path, node, opset)
    return OnnxFile(path=path, model=model, opset=opset)


def external_files(path: Path) -> tuple[Path, ...]:
    """Return the files beside an ONNX file in which its weights lie.  Raises ModelError."""
    tensors = [each for each in _parsed(path).graph.initializer if external_data_helper.uses_external_data(each)]
    return tuple(dict.fromkeys(_check_external(path, each) for each in tensors))


def name_of(node: onnx.NodeProto) -> str:
    """Return what a node is called: as its author called it, or as its output."""
    weights = node.input[1] if len(node.input) > 1 else ""
    owner = weights.rpartition(".")[0] if weights.endswith(".weight") else ""  # the layer, as its author called it
    return node.name or owner or next((name for name in node.output if name), "") or node.op_type


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ModelError(f"has {size:,} bytes, expected at most {MOST_BYTES:,}", where=str(path))
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (DecodeError, ValueError) as error:
        raise _refused(path, "is no ONNX file", error) from error
    if not model.graph.node:
        raise ModelError("is no ONNX file, or one without a node", where=str(path))
    return model


def _refused(path: Path, what: str, error: Exception) -> ModelError:
    reason = shown_text(next(iter(str(error).splitlines()), ""))[:_LONGEST_REASON]
    return ModelError(
        f"{what}: {reason}", where=str(path), remedy="export it again; if it was copied, compare its sha256"
    )


def _opset(path: Path, model: onnx.ModelProto) -> int:
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)
    if opset not in OPSETS:
        remedy = f"export it with an opset from {OPSETS[0]} to {OPSETS[-1]}"
        raise ModelError(f"is written in opset {opset}", where=str(path), remedy=remedy)
    return opset


def _check_external(path: Path, tensor: onnx.TensorProto) -> Path:
    """Return where a tensor's data lie.  Raises ModelError unless that is a file in the folder, and large enough."""
    entries = {each.key: each.value for each in tensor.external_data}
    location = entries.get("location", "")
    file: Path = (path.parent / location).resolve()
    name = shown_text(f"weights '{tensor.name}' in '{location}'")
    if not location or file.parent != path.parent.resolve() or not file.is_file():
        raise ModelError(
            f"{name}: no file in the folder of the model", where=str(path), remedy="put its data file beside it"
        )
    offset, length = (entries.get(key, "0") for key in ("offset", "length"))
    if not (offset.isdecimal() and length.isdecimal()) or int(offset) + int(length) > file.stat().st_size:
        raise ModelError(f"{name}: reaches beyond the end of that file", where=str(path))
    return file


def _check_names(path: Path, graph: onnx.GraphProto) -> None:
    """Refuse names that are no text: protobuf hands them on as bytes."""
    named = [each.name for each in (*graph.input, *graph.output, *graph.initializer, *graph.node)]
    for node in _all_nodes(graph):
        named += [node.name, node.op_type, node.domain, *node.input, *node.output]
        named += [each.name for each in node.attribute]
    if any(isinstance(name, bytes) for name in named):
        raise ModelError("is no valid ONNX file: some names are no text", where=str(path), remedy="export it again")


def _check_inputs(path: Path, node: onnx.NodeProto, opset: int) -> None:
    """Refuse a node that leaves out an input it needs: ONNX Runtime reads from nowhere then."""
    if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, opset):
        return
    formal = onnx.defs.get_schema(node.op_type, opset).inputs
    for place, name in enumerate(node.input):
        wanted = formal[min(place, len(formal) - 1)] if formal else None
        if not name and wanted is not None and wanted.option != onnx.defs.OpSchema.FormalParameterOption.Optional:
            what = shown_text(f"node '{name_of(node)}' ({node.op_type}) lacks its input {place + 1}")
            raise ModelError(what, where=str(path), remedy="export it again")


def _written_out(model: onnx.ModelProto) -> int:
    """Count the nodes that there are once local functions are written out in place of their calls."""
    sizes: dict[tuple[str, str], int] = {}
    bodies = {(each.domain, each.name): each.node for each in model.functions}
    for _ in range(len(bodies) + 1):  # functions may call one another, in any order
        sizes = {
            key: min(_MOST_NODES + 1, sum(sizes.get((each.domain, each.op_type), 1) for each in nodes))
            for key, nodes in bodies.items()
        }
        if len(bodies) > _MOST_NODES:
            return len(bodies)
    return sum(sizes.get((each.domain, each.op_type), 1) for each in _all_nodes(model.graph))


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _all_nodes(inner)
