"""Overrides (`--set a.b=value`): changes to a job's YAML tree before validation."""

from __future__ import annotations

from distrib.errors import JobError
from distrib.job.fields import Shape, absent_from_script, all_fields, nearest, nearest_field, shape_at
from distrib.job.spec.job import JobSpec
from distrib.job.spec.section import Section
from distrib.job.spec.targets import Target
from distrib.job.yaml.nodes import MapNode, Node, ScalarNode, SourceLocation
from distrib.job.yaml.parser import parse


def apply_override(root: MapNode, override: str, model: type[Section] = JobSpec) -> None:
    """Applies one `a.b=value` to `root`, the tree of a spec of the kind `model`.

    The value is a YAML scalar or a flow collection; `null` removes the field, which restores its default. A target
    written as a bare string becomes a mapping when something is set inside it. New keys are allowed under `args` and
    where the spec defines them.

    Raises:
        JobError: The override is malformed, or the spec has no such field.
    """
    location = SourceLocation(f"--set {override}")
    field, equals, text = override.partition("=")
    path = field.strip().split(".")
    if not equals or "" in path:
        raise location.error("write it as FIELD=VALUE, such as train.epochs=3")
    spec = Shape(section=model)
    if shape_at(path, spec) is None:
        raise _unknown(location, path, root, spec)
    value = _read_value(location, text)
    is_unset = isinstance(value, ScalarNode) and value.is_null
    parent = _enter(root, spec, path[:-1], location, creates=not is_unset)
    if parent is None:
        return
    if is_unset:
        parent.entries.pop(path[-1], None)
    else:
        parent.put(path[-1], value)


def _read_value(location: SourceLocation, text: str) -> Node:
    if not text.strip():
        raise location.error("has no value; write null to unset the field, or '' for empty text")
    node = parse(text, location.source, counts_lines=False)
    is_block = not isinstance(node, ScalarNode) and text.lstrip()[0] not in "[{"
    if node is None or is_block:
        raise location.error("the value must be one YAML value, [a list] or {a: mapping}; put other text in quotes")
    return node


def _enter(root: MapNode, spec: Shape, path: list[str], location: SourceLocation, *, creates: bool) -> MapNode | None:
    """The mapping at `path`. If there is none, creates it if `creates`, otherwise returns None."""
    node, shape = root, spec
    for depth, key in enumerate(path, start=1):
        shape = shape.child(key) or Shape()
        child = node.get(key)
        is_target = shape.section is not None and issubclass(shape.section, Target)
        if child is None or (isinstance(child, ScalarNode) and child.is_null):
            if not creates:
                return None
            child = MapNode(location)
            node.put(key, child)
        elif isinstance(child, ScalarNode) and is_target:
            bare, child = child, MapNode(child.location)
            child.put("target", bare)
            node.put(key, child)
        elif not isinstance(child, MapNode):
            field = ".".join(path[:depth])
            raise location.error(f"{field} is not a mapping in this job; set it whole: --set {field}=…")
        node = child
    return node


def _unknown(location: SourceLocation, path: list[str], root: MapNode, spec: Shape) -> JobError:
    field = ".".join(path)
    if (reason := absent_from_script(path[0], spec.section)) is not None:
        return location.error(f"unknown field '{field}'; {reason}")
    parent = shape_at(path[:-1], spec)
    guess = None
    if parent is not None and parent.section is not None and issubclass(parent.section, Target):
        key = nearest(path[-1], parent.section.model_fields) or f"args.{path[-1]}"
        guess = ".".join([*path[:-1], key])
    guess = guess or nearest_field(field, {*all_fields(spec), *_written_fields(root, spec)})
    names = spec.section.model_fields if spec.section else ()
    advice = f"did you mean '{guess}'?" if guess else f"the spec has: {', '.join(names)}"
    return location.error(f"unknown field '{field}'; {advice}")


def _written_fields(node: Node, spec: Shape, prefix: str = "") -> set[str]:
    """The dotted paths of the fields in the file that the spec defines, including arguments."""
    fields: set[str] = set()
    if isinstance(node, MapNode):
        for key, (_, value) in node.entries.items():
            path = f"{prefix}{key}"
            if shape_at(path.split("."), spec) is not None:
                fields |= {path} | _written_fields(value, spec, f"{path}.")
    return fields
