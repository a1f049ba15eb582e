"""A manifest against a custom resource definition, field by field: `python -m tests.cluster.fields CRD MANIFEST`.

Prints what the definition does not know, requires, or types otherwise; nothing where all is well. Unlike the server's
own check it reports unknown fields, which Kubernetes drops in silence.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "integer": (int,),
    "number": (int, float),
}  # fmt: skip


def schema_of(crd: Mapping[str, Any], version: str) -> Mapping[str, Any]:
    """The schema of one version of a custom resource."""
    (found,) = [each["schema"]["openAPIV3Schema"] for each in crd["spec"]["versions"] if each["name"] == version]
    return dict(found)


def faults(value: Any, schema: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """What in `value` is not as `schema` says."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, (int, str)):
            yield f"{where}: {value!r} is neither a number nor a string"
        return
    kind = schema.get("type")
    if kind and not isinstance(value, TYPES[kind]) or kind == "integer" and isinstance(value, bool):
        yield f"{where}: {value!r} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    if isinstance(value, dict):
        yield from _fields(value, schema, where)
    elif isinstance(value, list) and "items" in schema:
        for index, each in enumerate(value):
            yield from faults(each, schema["items"], f"{where}[{index}]")


def _fields(value: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{where}.{name} is missing"
    for name, each in value.items():
        if name in known:
            yield from faults(each, known[name], f"{where}.{name}")
        elif isinstance(others, dict):
            yield from faults(each, others, f"{where}.{name}")
        elif known and not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{where}.{name} is unknown"


def main() -> None:
    crd, manifest = (yaml.safe_load(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:3])
    found = list(faults(manifest, schema_of(crd, manifest["apiVersion"].rpartition("/")[2])))
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
