"""Stripe's own OpenAPI description, reduced to facts: which endpoints there are and what their parameters may be."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any, Final

from sandbox.stripe.wire import Json, StripeError, Upload, invalid

FOLDER: Final = Path(__file__).parent / "schema"


class Schema:
    """Checks requests as Stripe does: an unknown parameter is an error, so is a missing or mistyped one."""

    def __init__(self) -> None:
        self.document: Json = json.loads(gzip.decompress((FOLDER / "spec3.reduced.json.gz").read_bytes()))
        self._paths = [
            (re.compile("^" + re.sub(r"\{[^}]+\}", "[^/]+", path) + "$"), methods)
            for path, methods in self.document["paths"].items()
        ]

    def check(self, method: str, path: str, params: Json) -> Json:
        """Return the parameters with their types, or raise Stripe's error."""
        operation = self._operation(method, path)
        if operation is None:
            return params
        if method == "get":
            properties = {p["name"]: p["schema"] for p in operation.get("parameters", []) if p["in"] == "query"}
            required = [p["name"] for p in operation.get("parameters", []) if p["in"] == "query" and p.get("required")]
        else:
            content = operation.get("requestBody", {}).get("content", {})
            body = content.get("application/x-www-form-urlencoded") or content.get("multipart/form-data") or {}
            form = body.get("schema", {})
            properties, required = form.get("properties", {}), form.get("required", [])
        for name in required:
            if name not in params:
                raise invalid(f"Missing required param: {name}.", code="parameter_missing", param=name)
        return {name: self._value(name, value, properties.get(name)) for name, value in params.items()}

    def _operation(self, method: str, path: str) -> Json | None:
        for pattern, methods in self._paths:
            if pattern.match(path) and method in methods:
                operation: Json = methods[method]
                return operation
        return None

    def _value(self, name: str, value: Any, schema: Json | None) -> Any:
        if schema is None:
            raise invalid(f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
        if "$ref" in schema:
            schema = self.document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        if "anyOf" in schema:
            return self._any_of(name, value, schema["anyOf"])
        match schema.get("type"):
            case "integer":
                if not re.fullmatch(r"-?[0-9]{1,18}", str(value)):
                    raise invalid(f"Invalid integer: {value}", code="parameter_invalid_integer", param=name)
                return int(value)
            case "boolean":
                if value not in ("true", "false"):
                    raise invalid(f"Invalid boolean: {value}", param=name)
                return value == "true"
            case "array":
                items = value if isinstance(value, list) else [value]
                return [
                    self._value(f"{name}[{index}]", item, schema.get("items", {})) for index, item in enumerate(items)
                ]
            case "object":
                return self._object(name, value, schema)
            case "string" if not isinstance(value, str | Upload):
                raise invalid(f"Invalid string: {name}", param=name)
        if schema.get("enum") and value not in schema["enum"]:
            raise invalid(f"Invalid {name}: must be one of {', '.join(map(str, schema['enum']))}", param=name)
        if isinstance(value, str) and len(value) > schema.get("maxLength", len(value)):
            short = f"{value[:6]}...{value[-6:]}"
            raise invalid(f"Invalid string: {short}; must be at most {schema['maxLength']} characters", param=name)
        return value

    def _object(self, name: str, value: Any, schema: Json) -> Any:
        if not isinstance(value, dict):
            raise invalid(f"Invalid object: {name}", param=name)
        properties, more = schema.get("properties", {}), schema.get("additionalProperties")
        if more is True or (not properties and not more):
            return value
        for required in schema.get("required", []):
            if required not in value:
                missing = f"{name}[{required}]"
                raise invalid(f"Missing required param: {missing}.", code="parameter_missing", param=missing)
        return {
            key: self._value(f"{name}[{key}]", child, properties.get(key, more or None)) for key, child in value.items()
        }

    def _any_of(self, name: str, value: Any, choices: list[Json]) -> Any:
        wanted = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else None
        fitting = [choice for choice in choices if (choice.get("type") in ("object", "array")) == (wanted is not None)]
        *others, last = fitting or choices
        for choice in others:
            try:
                return self._value(name, value, choice)
            except StripeError:
                continue
        return self._value(name, value, last)
