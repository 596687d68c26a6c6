"""Overrides (`--set a.b=value`): changes to the tree of a job's YAML, before it is checked."""

from __future__ import annotations

from distrib.errors import JobError
from distrib.job.fields import ROOT, Shape, all_fields, nearest, nearest_field, shape_at
from distrib.job.spec import JobSpec, Target
from distrib.job.yaml.nodes import MapNode, Node, ScalarNode, SourceLocation
from distrib.job.yaml.parser import parse


def apply_override(root: MapNode, override: str) -> None:
    """Applies one `a.b=value` to `root`.

    The value is a YAML scalar or a flow collection; `null` removes the field, so that its default holds. A target
    written as a bare string becomes a mapping when something is set inside it. Keys may be new under `args`, and
    wherever the spec knows them.

    Raises:
        JobError: for an override that is not of this form, or a field that the spec does not know.
    """
    place = SourceLocation(f"--set {override}")
    field, equals, text = override.partition("=")
    path = field.strip().split(".")
    if not equals or "" in path:
        raise place.error("write it as FIELD=VALUE, such as train.epochs=3")
    if shape_at(path) is None:
        raise _unknown(place, path, root)
    value = _read_value(place, text)
    is_unset = isinstance(value, ScalarNode) and value.is_null
    parent = _enter(root, path[:-1], place, creates=not is_unset)
    if parent is None:
        return
    if is_unset:
        parent.entries.pop(path[-1], None)
    else:
        parent.put(path[-1], value)


def _read_value(place: SourceLocation, text: str) -> Node:
    if not text.strip():
        raise place.error("has no value; write null to unset the field, or '' for empty text")
    node = parse(text, place.source, counts_lines=False)
    is_block = not isinstance(node, ScalarNode) and text.lstrip()[0] not in "[{"
    if node is None or is_block:
        raise place.error("the value must be a single YAML value, [a list] or {a: mapping}; put other text in quotes")
    return node


def _enter(root: MapNode, path: list[str], place: SourceLocation, *, creates: bool) -> MapNode | None:
    """The mapping at `path`; where there is none, a new one if `creates`, else None."""
    node: MapNode = root
    shape: Shape = ROOT
    for depth, key in enumerate(path, start=1):
        shape = shape.child(key) or Shape()
        child = node.get(key)
        is_target = shape.section is not None and issubclass(shape.section, Target)
        if child is None or (isinstance(child, ScalarNode) and child.is_null):
            if not creates:
                return None
            child = MapNode(place)
            node.put(key, child)
        elif isinstance(child, ScalarNode) and is_target:
            bare, child = child, MapNode(child.place)
            child.put("target", bare)
            node.put(key, child)
        elif not isinstance(child, MapNode):
            field = ".".join(path[:depth])
            raise place.error(f"{field} is not a mapping in this job; set it whole: --set {field}=…")
        node = child
    return node


def _unknown(place: SourceLocation, path: list[str], root: MapNode) -> JobError:
    field = ".".join(path)
    parent = shape_at(path[:-1])
    guess = None
    if parent is not None and parent.section is not None and issubclass(parent.section, Target):
        key = nearest(path[-1], parent.section.model_fields) or f"args.{path[-1]}"
        guess = ".".join([*path[:-1], key])
    guess = guess or nearest_field(field, {*all_fields(), *_written_fields(root)})
    advice = f"did you mean '{guess}'?" if guess else f"the spec has: {', '.join(JobSpec.model_fields)}"
    return place.error(f"unknown field '{field}'; {advice}")


def _written_fields(node: Node, prefix: str = "") -> set[str]:
    """The dotted paths of what is in the file and known to the spec, arguments included."""
    fields: set[str] = set()
    if isinstance(node, MapNode):
        for key, (_, value) in node.entries.items():
            path = f"{prefix}{key}"
            if shape_at(path.split(".")) is not None:
                fields |= {path} | _written_fields(value, f"{path}.")
    return fields
