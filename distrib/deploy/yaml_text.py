"""Typed models as YAML, for people to read and change."""

from __future__ import annotations

import yaml
from pydantic import BaseModel

_WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Keeps the order of fields and writes texts of several lines as blocks."""

    def ignore_aliases(self, data: object) -> bool:
        """No anchors: they save space at the reader's expense."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def to_yaml(data: BaseModel | dict[str, object]) -> str:
    """`data` as YAML; fields without a value are left out."""
    if isinstance(data, BaseModel):
        data = data.model_dump(by_alias=True, exclude_none=True)
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)


def comment(lines: list[str]) -> str:
    """`lines` as YAML or shell comments."""
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
