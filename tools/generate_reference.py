"""Writes docs/reference/ from the code: the job spec from its schema, the command line from its help."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from distrib import Job, Run, RunOptions, Session, run, session
from distrib.cli.main import app
from distrib.cli.schema import make_schema

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
HELP_WIDTH = "100"


def main() -> None:
    """Writes all pages."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "spec.md").write_text(spec_page(make_schema()), encoding="utf-8")
    (FOLDER / "cli.md").write_text(cli_page(), encoding="utf-8")
    (FOLDER / "python.md").write_text(python_page(), encoding="utf-8")


def spec_page(schema: dict[str, Any]) -> str:
    """The fields of the spec, as one table per section in the order of their use."""
    sections: dict[str, dict[str, Any]] = schema["$defs"]
    training, script = sections["TrainingJob"], sections["ScriptJob"]
    lines = ["# Job spec", "", training["description"], "", "`distrib schema` prints the JSON Schema.", ""]
    lines += _table(training, sections)
    names = _ordered(training, sections)
    for name in names:
        lines += _section(name, sections[name], sections)
    lines += _section("A script instead of a job", script, sections)
    for name in _ordered(script, sections):
        lines += [] if name in names else _section(name, sections[name], sections)
    return "\n".join(lines)


def _section(title: str, section: dict[str, Any], sections: dict[str, dict[str, Any]]) -> list[str]:
    return [f"## {title}", "", section.get("description", ""), "", *_table(section, sections)]


def _ordered(schema: dict[str, Any], sections: dict[str, dict[str, Any]]) -> list[str]:
    """The sections in the order in which fields refer to them."""
    found: list[str] = []
    pending = [schema]
    while pending:
        for name in re.findall(r"#/\$defs/(\w+)", json.dumps(pending.pop(0).get("properties", {}))):
            if name not in found:
                found.append(name)
                pending.append(sections[name])
    return found


def _table(definition: dict[str, Any], sections: dict[str, dict[str, Any]]) -> list[str]:
    required = definition.get("required", [])
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in definition.get("properties", {}).items():
        default = "required" if name in required else f"`{_shown(field.get('default'))}`"
        section = sections.get(field.get("$ref", "").rpartition("/")[2], {})
        meaning = " ".join(field.get("description", section.get("description", "")).split())
        lines.append(f"| `{name}` | {_type(field)} | {default} | {meaning} |")
    return [*lines, ""]


def _shown(value: Any) -> str:
    """A default as it is written in YAML; sections and mappings are not spelled out."""
    return "…" if isinstance(value, dict | list) and value else json.dumps(value).strip('"')


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    for key in ("anyOf", "oneOf"):
        if key in field:
            kinds = dict.fromkeys(_type(option) for option in field[key])
            return " or ".join(kind for kind in kinds if kind != "null")
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"mapping of {_type(field['additionalProperties'])}"
    return {"object": "mapping", "array": "list"}.get(str(field.get("type")), str(field.get("type", "any")))


def cli_page() -> str:
    """The help of every command."""
    lines = ["# Command line", "", "```text", _help(), "```", ""]
    for command in app.registered_commands:
        name = str(command.name)
        lines += [f"## distrib {name}", "", "```text", _help(name), "```", ""]
    return "\n".join(lines)


def _help(*arguments: str) -> str:
    environment = {"COLUMNS": HELP_WIDTH, "TERMINAL_WIDTH": HELP_WIDTH, "NO_COLOR": "1"}
    done = CliRunner(env=environment).invoke(app, [*arguments, "--help"], prog_name="distrib")
    return done.output.rstrip()


def python_page() -> str:
    """The docstrings of the public names."""
    lines = ["# Python", "", "```python", "from distrib import Job, Run, RunOptions, Session, run, session", "```", ""]
    for value in (run, RunOptions, Job, Run, session, Session):
        name = value.__name__
        lines += [f"## {name}", "", *_documentation(value)]
        for member, attribute in vars(value).items() if isinstance(value, type) else ():
            function = getattr(attribute, "fget", None) or getattr(attribute, "__func__", attribute)
            if not member.startswith("_") and callable(function) and function.__doc__:
                lines += [f"### {name}.{member}", "", *_documentation(function)]
    return "\n".join(lines)


def _documentation(value: Any) -> list[str]:
    return ["```text", inspect.getdoc(value) or "", "```", ""]


if __name__ == "__main__":
    main()
