"""The page of the HTTP routes in a real browser: whole, usable, accessible, and from here alone."""

from collections.abc import Callable

import httpx
from playwright.sync_api import Page, expect

from tests.e2e.browsing import PHONE, WIDE, is_too_wide, violations

Visit = Callable[..., Page]

SCHEMA = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "string"},
        "state": {"enum": ["done", "failed"]},
        "at": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "size": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "integer"}]},
        "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Part"}},
        "file": {"type": "string", "format": "binary"},
        "by_name": {"type": "object", "additionalProperties": {"type": ["integer", "null"]}},
    },
}
PART = {"properties": {"inner": {"$ref": "#/components/schemas/Part"}}}
SHAPE = """\
{
  "id": string,
  "state"?: "done" | "failed",
  "at"?: number | null,
  "size"?: [integer, integer],
  "parts"?: [{
    "inner"?: Part
  }, …],
  "file"?: string (binary),
  "by_name"?: {
    …: integer | null
  }
}"""


def test_every_route_of_the_server_is_there_and_can_be_found(visit: Visit, address: str) -> None:
    page = visit(f"{address}/docs")
    paths = httpx.get(f"{address}/openapi.json").json()["paths"]
    offered = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    expect(page.locator(".route")).to_have_count(len(offered))
    shown = {
        tuple(route.locator("summary > *").all_inner_texts()[:2])
        for route in page.locator(".route").all()
    }
    assert shown == offered
    page.get_by_label("Find").fill("delete clip")
    found = page.locator(".route:visible summary code")
    assert "/v1/clips/{clip}" in found.all_inner_texts()
    assert page.locator(".route:visible .method").all_inner_texts().count("GET") == 0
    page.get_by_label("Find").fill("/v1/biplane")
    expect(page.locator(".route:visible")).to_have_count(1)
    expect(page.locator("#words")).to_have_text("1 route")
    page.get_by_label("Find").fill("no such route")
    expect(page.locator("#words")).to_have_text("0 routes")


def test_a_route_is_asked_and_its_answer_shown(visit: Visit, address: str) -> None:
    page = visit(f"{address}/docs#get-v1-models")
    route = page.locator("#get-v1-models")
    expect(route.locator("pre").first).to_have_text(f"curl '{address}/v1/models'")
    route.get_by_role("button", name="Send").click()
    expect(route.locator(".answer")).to_contain_text("200 OK application/json")
    expect(route.locator(".answer")).to_contain_text('"name": "gdkvm-live"')
    refused = page.locator("[id='get-v1-clips-clip-']")
    refused.locator("summary").click()
    refused.get_by_label("clip").fill("no/where")
    expect(refused.locator("form > pre")).to_contain_text("/v1/clips/no%2Fwhere")
    refused.get_by_role("button", name="Send").click()
    expect(refused.locator(".answer")).to_contain_text('"code": "not_found"')


def test_its_policy_is_that_of_the_other_pages_and_axe_finds_nothing(
    visit: Visit, address: str
) -> None:
    policies = [
        httpx.get(f"{address}{path}").headers["content-security-policy"] for path in ("/", "/docs")
    ]
    assert policies[0] == policies[1]
    for size in (WIDE, PHONE):
        page = visit(f"{address}/docs", size)
        expect(page.locator("#words")).to_contain_text("routes")
        count = page.locator(".route").count()
        page.evaluate(
            "document.querySelectorAll('.route').forEach((each) => { each.open = true; })"
        )
        expect(page.locator(".try")).to_have_count(count)
        assert not is_too_wide(page)
        assert violations(page) == []


def test_a_schema_is_written_as_the_shape_of_a_document(visit: Visit, address: str) -> None:
    page = visit(f"{address}/docs")
    script = "async ([schema, whole]) => (await import('/schema.js')).shapeOf(schema, whole)"
    whole = {"components": {"schemas": {"Part": PART}}}
    assert page.evaluate(script, [SCHEMA, whole]) == SHAPE
