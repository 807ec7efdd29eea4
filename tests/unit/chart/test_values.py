"""Values, schema, README and templates of the chart agree; rendering is tested in the api tier."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).resolve().parents[3] / "charts" / "trainyard"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = "".join(path.read_text() for path in sorted((CHART / "templates").glob("*")))
README = (CHART / "README.md").read_text()


def paths(values: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of all values, down to objects without properties in the schema."""
    found: list[str] = []
    for key, value in values.items():
        inner = schema["properties"][key]
        deeper = isinstance(value, dict) and "properties" in inner
        found += paths(value, inner, f"{prefix}{key}.") if deeper else [prefix + key]
    return found


def schema_paths(schema: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, inner in schema["properties"].items():
        found += schema_paths(inner, f"{prefix}{key}.") if "properties" in inner else [prefix + key]
    return found


LEAVES = paths(VALUES, SCHEMA)


def test_schema_and_values_agree() -> None:
    assert sorted(schema_paths(SCHEMA)) == sorted([*LEAVES, "global"])


def test_schema_rejects_unknown_values() -> None:
    def closed(schema: dict[str, Any]) -> bool:
        inner = [entry for entry in schema.get("properties", {}).values() if "properties" in entry]
        return schema.get("additionalProperties") is False and all(map(closed, inner))

    assert closed(SCHEMA)


@pytest.mark.parametrize("path", LEAVES)
def test_every_value_is_documented_and_used(path: str) -> None:
    assert f".Values.{path}" in TEMPLATES
    assert f"`{path}`" in README
    own = re.search(rf"^ *{path.rpartition('.')[2]}:", (CHART / "values.yaml").read_text(), re.MULTILINE)
    assert own is not None


def test_templates_read_existing_values_only() -> None:
    used = set(re.findall(r"\.Values\.([A-Za-z.]+)", TEMPLATES))
    assert used <= set(LEAVES)
