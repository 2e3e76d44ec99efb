"""What an OpenAPI 3.1 document must be, and whether a value is what one of its schemas says.

    faults(document)                        what is not as the specification wants it; empty on a good one
    mismatches(document, schema, value)     strictly: a key that no schema names is one as well

Both know what memfs writes, and call everything else a fault: a document that says more than this file reads
would pass unread.
"""
import datetime
import json
import re
import uuid
from urllib.parse import quote

METHODS = {"get", "put", "post", "delete", "patch"}
KEYWORDS = {"type", "properties", "required", "items", "enum", "anyOf", "$ref", "pattern", "format", "default",
            "description"}
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list, "null": type(None)}


def operations(document):
    """(method, path, operation) of all."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def resolve(document, schema):
    while "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        schema = document["components"]["schemas"][name]
    return schema


class Samples:
    """Something to ask for each variable of a path: an agent, and what it has."""

    def __init__(self, mem, agent):
        block = mem.json(f"/v1/agents/{agent}/core-memory/blocks/system/human")["id"]
        head = mem.json(f"/v1/agents/{agent}/memory/history?limit=1")[0]["sha"]
        self.values = {"agent": agent, "id": block, "label": "system/human", "commit": head}
        self.values.update(path="a/b.md", q="tea")
        self.of_repositories = self.make_repository(mem)

    def make_repository(self, mem):
        """A shared repository with one file -> what its paths have."""
        made = mem.server.request("POST", "/v1/repositories", json.dumps({"name": f"r-{uuid.uuid4()}"})).json()
        done = mem.server.request("POST", f"/v1/repositories/{made['id']}/files", json.dumps(
            {"path": self.values["path"], "content": "text"}))
        self.values["repository"] = made["id"]
        return {"id": done.json()["commit_sha"]}

    def target(self, path):
        values = {**self.values, **(self.of_repositories if path.startswith("/v1/repositories/") else {})}
        return re.sub(r"{(\w+)}", lambda m: quote(values[m[1]], safe=""), path)

    def url(self, path, operation):
        """With those of its parameters that are needed."""
        needed = [p["name"] for p in operation["parameters"] if p["in"] == "query" and p.get("required")]
        query = "&".join(f"{name}={quote(self.values[name])}" for name in needed)
        return self.target(path) + ("?" + query if query else "")

    def body(self, value):
        """As JSON, its "{variables}" filled in."""
        text = json.dumps(value)
        for name, sample in self.values.items():
            text = text.replace("{" + name + "}", sample)
        return text


def answers_of(operation):
    """The schema of its good answer, None if it is not JSON, and its status."""
    status = min(operation["responses"])
    content = operation["responses"][status].get("content", {})
    return content.get("application/json", {}).get("schema"), int(status)


def json_routes(document, method):
    """(path, operation) of what clients ask that way, and is answered with JSON."""
    return [(path, o) for m, path, o in operations(document)
            if m == method and answers_of(o)[0] is not None and o["x-memfs-access"] not in ("hook", "peer", "owner")]


# -- the document ----------------------------------------------------------------------------------

def schema_faults(document, schema, where):
    if unknown := set(schema) - KEYWORDS:
        yield f"{where}: what is {sorted(unknown)}?"
    if "$ref" in schema:
        if schema["$ref"].removeprefix("#/components/schemas/") not in document["components"]["schemas"]:
            yield f"{where}: {schema['$ref']} is not there"
        return
    if "type" in schema and schema["type"] not in TYPES:
        yield f"{where}: {schema['type']} is no type"
    if missing := set(schema.get("required", [])) - set(schema.get("properties", {})):
        yield f"{where}: {missing} is required and no property"
    if "pattern" in schema:
        re.compile(schema["pattern"])
    for name, inner in schema.get("properties", {}).items():
        yield from schema_faults(document, inner, f"{where}.{name}")
    for inner in schema.get("anyOf", []):
        yield from schema_faults(document, inner, where)
    if schema.get("type") == "array":
        yield from schema_faults(document, schema["items"], f"{where}[]")
    if "default" in schema:
        bare = {k: v for k, v in schema.items() if k != "default"}
        yield from mismatches(document, bare, schema["default"], f"{where}, default")


def content_faults(document, content, where):
    for media, inner in content.items():
        if not re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", media) or set(inner) != {"schema"}:
            yield f"{where}: {media} {inner}"
        yield from schema_faults(document, inner["schema"], where)


def parameter_faults(document, path, operation, where):
    seen = [(p["in"], p["name"]) for p in operation["parameters"]]
    if len(seen) != len(set(seen)):
        yield f"{where}: a parameter stands there twice"
    if sorted(re.findall(r"{([^}]*)}", path)) != sorted(name for place, name in seen if place == "path"):
        yield f"{where}: its variables are not its path parameters"
    for p in operation["parameters"]:
        if set(p) - {"name", "in", "description", "required", "schema"} or p["in"] not in ("path", "query", "header"):
            yield f"{where}: {p}"
        if p["in"] == "path" and p.get("required") is not True:
            yield f"{where}: {p['name']} must be required"
        if p["in"] == "header" and p["name"].lower() in ("accept", "content-type", "authorization"):
            yield f"{where}: {p['name']} is never a parameter"
        yield from schema_faults(document, p["schema"], f"{where}, {p['name']}")


def operation_faults(document, path, operation, where):
    if unknown := set(operation) - {"operationId", "tags", "summary", "description", "security", "parameters",
                                    "requestBody", "responses", "x-memfs-access"}:
        yield f"{where}: what is {sorted(unknown)}?"
    yield from parameter_faults(document, path, operation, where)
    for scheme in operation.get("security", []):
        if set(scheme) - set(document["components"]["securitySchemes"]):
            yield f"{where}: {scheme}"
    if "requestBody" in operation:
        body = operation["requestBody"]
        if set(body) != {"required", "content"} or not body["content"]:
            yield f"{where}: {body}"
        yield from content_faults(document, body["content"], where)
    if not operation["responses"]:
        yield f"{where}: it answers nothing"
    for status, answer in operation["responses"].items():
        if not re.fullmatch(r"[1-5]\d\d", status) or not answer.get("description"):
            yield f"{where}: {status} {answer}"
        if set(answer) - {"description", "content"}:
            yield f"{where}: {status} {answer}"
        yield from content_faults(document, answer.get("content", {}), f"{where} {status}")


def faults(document):
    found = []
    if set(document) != {"openapi", "info", "security", "paths", "components"}:
        found.append(f"its parts are {list(document)}")
    if document["openapi"] != "3.1.0" or {"title", "version"} - set(document["info"]):
        found.append(f"{document['openapi']} {document['info']}")
    for name, schema in document["components"]["schemas"].items():
        found += schema_faults(document, schema, name)
    names, shapes = set(), set()
    for path, item in document["paths"].items():
        shape = re.sub(r"{[^}]*}", "{}", path)
        if not path.startswith("/") or shape in shapes or set(item) - METHODS:
            found.append(f"{path} {list(item)}")
        shapes.add(shape)
    for method, path, operation in operations(document):
        found += operation_faults(document, path, operation, f"{method} {path}")
        if operation["operationId"] in names or not re.fullmatch(r"\w+", operation["operationId"]):
            found.append(f"{method} {path}: another has the id {operation['operationId']}")
        names.add(operation["operationId"])
    return found


# -- values ----------------------------------------------------------------------------------------

def is_of_type(value, name):
    if name in ("integer", "number"):
        return isinstance(value, TYPES[name]) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def text_mismatches(schema, value, where):
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where}: {value!r} is not {schema['pattern']}"
    if schema.get("format") == "date-time":
        if not value.endswith("Z"):
            yield f"{where}: {value!r} is not in UTC"
        datetime.datetime.fromisoformat(value.removesuffix("Z"))


def mismatches(document, schema, value, where="answer"):
    schema = resolve(document, schema)
    if "anyOf" in schema:
        each = [list(mismatches(document, s, value, where)) for s in schema["anyOf"]]
        if all(each):
            yield from each[0]
        return
    if "type" in schema and not is_of_type(value, schema["type"]):
        yield f"{where}: {value!r} is no {schema['type']}"
        return
    if isinstance(value, str):
        yield from text_mismatches(schema, value, where)
    if isinstance(value, list):
        for item in value:
            yield from mismatches(document, schema.get("items", {}), item, f"{where}[]")
    if isinstance(value, dict) and "properties" in schema:
        for name in schema.get("required", []):
            if name not in value:
                yield f"{where}: '{name}' is documented and not answered"
        for name, inner in value.items():
            if name not in schema["properties"]:
                yield f"{where}: '{name}' is answered and not documented"
            else:
                yield from mismatches(document, schema["properties"][name], inner, f"{where}.{name}")
