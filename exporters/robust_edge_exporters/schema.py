"""JSON Schemas of manifest.json and verify.json, made from the dataclasses that read them."""

from __future__ import annotations

import dataclasses
from typing import Any, Union, get_args, get_origin, get_type_hints

from robust_edge_runtimes.core.manifest import SCHEMA_VERSION, Manifest
from robust_edge_runtimes.verdict.judge import VERDICT_VERSION, Verdict

DRAFT = "https://json-schema.org/draft/2020-12/schema"
SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def manifest_schema() -> dict[str, Any]:
    """The schema of this release's manifests, JSON Schema draft 2020-12.

    It describes fields and their types only; `read_manifest` also checks hashes and totals.
    """
    schema = _schema(Manifest)
    schema["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    return {"$schema": DRAFT, "title": "robust-edge bundle manifest", **schema}


def verdict_schema() -> dict[str, Any]:
    """The schema of what `verify -o` writes, JSON Schema draft 2020-12."""
    schema = _schema(Verdict)
    schema["properties"]["schema_version"] = {"const": VERDICT_VERSION}
    return {"$schema": DRAFT, "title": "robust-edge verdict", **schema}


def _schema(hint: Any) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        fields = dataclasses.fields(hint)
        unset = dataclasses.MISSING
        return {
            "type": "object",
            "properties": {field.name: _schema(hints[field.name]) for field in fields},
            "required": [f.name for f in fields if f.default is unset and f.default_factory is unset],
            "additionalProperties": False,
        }
    if origin is Union:
        return {"anyOf": [_schema(option) for option in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    return {"type": "null"} if hint is type(None) else {"type": SCALARS[hint]}
