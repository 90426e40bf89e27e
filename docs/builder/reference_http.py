"""The page of the reference about HTTP, from the description that the server itself publishes.

Imports the server, and the tests' tiny bundle to start it on.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reference_cli import table

import tiny_bundle
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
        "<!-- Written by docs/builder from the server's own description. -->\n\n# HTTP operations\n\n"
        "From the description that a server gives at `GET /openapi.json` ({download}`openapi.json`, OpenAPI "
        f"{document['openapi']}). How to use them: [HTTP interface](../http-api.md).\n"
    )
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            text += f"\n## {method.upper()} {path}\n\n{_operation(operation)}"
    text += "\n## Shapes\n"
    for name, schema in _named_schemas(document["components"]["schemas"]):
        text += f"\n({_schema_anchor(name)})=\n### {_schema_title(name)}\n\n{_schema_text(schema)}"
    return text


def _named_schemas(schemas: Document) -> Iterator[tuple[str, Document]]:
    """Every shape by the end of its pointer, those that stand inside another after it."""
    for name, schema in sorted(schemas.items()):
        yield name, schema
        for inner, inner_schema in schema.get("$defs", {}).items():
            yield f"{name}/$defs/{inner}", inner_schema


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
        text += (
            table(("body", "shape"), [(f"`{kind}`", _content_type(one)) for kind, one in bodies.items()])
            + "\n"
        )
    rows = [
        (code, answer.get("description", ""), _response_types(answer))
        for code, answer in operation["responses"].items()
    ]
    return text + table(("status", "meaning", "body"), rows)


def _response_types(answer: Document) -> str:
    return ", ".join(
        f"`{kind}` {_content_type(one)}".strip() for kind, one in answer.get("content", {}).items()
    )


def _content_type(content: Document) -> str:
    return _schema_type(content.get("schema", {}))


def _schema_text(schema: Document) -> str:
    text = f"{schema.get('description', '')}\n\n"
    required = schema.get("required", ())
    rows = [
        (f"`{name}`", _schema_type(one), "yes" if name in required else "no", one.get("description", ""))
        for name, one in schema.get("properties", {}).items()
    ]
    if rows:
        return text + table(("field", "type", "always", "meaning"), rows)
    return f"{text}{_schema_type(schema)}\n"


def _schema_type(schema: Document) -> str:
    """A schema in a few words; a named one as a link."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        return f"[{_schema_title(name)}](#{_schema_anchor(name)})"
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_schema_type(one) for one in schema[word]))
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array" and "items" in schema:
        return f"list of {_schema_type(schema['items'])}"
    plain = "bytes" if schema.get("format") == "binary" else str(schema.get("type", ""))
    return f"`{schema['const']}`" if "const" in schema else plain


def _schema_anchor(name: str) -> str:
    return "shape-" + re.sub(r"[^a-z0-9]+", "-", name.lower())


def _schema_title(name: str) -> str:
    """The class of a shape, and of which other one it is a part."""
    outer, _, inner = name.partition("/$defs/")
    namespace, _, last = outer.rpartition("__")
    last += f" ({namespace.rpartition('__')[2]})" if namespace else ""
    return f"{inner.lstrip('_')} of {last}" if inner else last
