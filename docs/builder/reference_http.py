"""The page of the reference about HTTP, from the description that the server itself publishes.

Imports the server, and the tests' tiny bundle to start it on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tiny_bundle
from reference_cli import table

from lesion_triage.bundle.scorer import Scorer
from triage_server.app import create_app
from triage_server.settings import Settings

Document = Mapping[str, Any]


def description() -> dict[str, Any]:
    """What ``GET /openapi.json`` answers."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = tiny_bundle.make(Path(folder) / "bundle")
        settings = Settings(bundle=bundle.folder, allow_unsigned=True)
        return create_app(bundle, Scorer(bundle), settings).openapi()


def page(document: Document) -> str:
    """Every operation with its headers, bodies and answers; then every shape that they name."""
    text = (
        "<!-- Written by docs/builder from the server's own description. -->\n\n# HTTP operations\n\nFrom the "
        "description that a server gives at `GET /openapi.json` ({download}`openapi.json`, OpenAPI "
        f"{document['openapi']}). How to use them: [HTTP interface](../http-api.md).\n"
    )
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            text += f"\n## {method.upper()} {path}\n\n{_operation(operation)}"
    text += "\n## Shapes\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        text += f"\n({_anchor(name)})=\n### {name}\n\n{_shape(schema)}"
    return text


def _operation(operation: Document) -> str:
    text = f"{operation.get('summary', '')}. {operation.get('description', '')}".strip(". ") + ".\n\n"
    headers = [
        (f"`{one['name']}`", one["in"], "yes" if one.get("required") else "no", one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    if headers:
        text += table(("parameter", "in", "required", "meaning"), headers) + "\n"
    bodies = operation.get("requestBody", {}).get("content", {})
    if bodies:
        text += table(("body", "shape"), [(f"`{kind}`", _named(one)) for kind, one in bodies.items()]) + "\n"
    rows = [
        (code, answer.get("description", ""), _kinds(answer))
        for code, answer in operation["responses"].items()
    ]
    return text + table(("status", "meaning", "body"), rows)


def _kinds(answer: Document) -> str:
    return ", ".join(f"`{kind}` {_named(one)}".strip() for kind, one in answer.get("content", {}).items())


def _named(content: Document) -> str:
    return _type(content.get("schema", {}))


def _shape(schema: Document) -> str:
    text = f"{schema.get('description', '')}\n\n"
    required = schema.get("required", ())
    rows = [
        (f"`{name}`", _type(one), "yes" if name in required else "no", one.get("description", ""))
        for name, one in schema.get("properties", {}).items()
    ]
    if rows:
        return text + table(("field", "type", "always", "meaning"), rows)
    return f"{text}{_type(schema)}\n"


def _type(schema: Document) -> str:
    """A schema in a few words; a named one as a link."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{_anchor(name)})"
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[word]))
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if "items" in schema else "list"
    if schema.get("format") == "binary":
        return "bytes"
    return str(schema.get("type", "") or "")


def _anchor(name: str) -> str:
    return f"shape-{name.lower()}"
