"""The outline that the browser draws through dragged points, run by Node."""

import json

import numpy as np
import pytest

from server.edits import check_contours
from server.errors import EditError
from tests.clients.node import run_node


def smoothed(points: list[list[float]]) -> list[tuple[float, float]]:
    """The closed outline of [row, column] points through others."""
    script = f"""
        import {{ smooth }} from "./editor.js";
        console.log(JSON.stringify(smooth({json.dumps(points)})));
    """
    return [(row, column) for row, column in run_node(script)]


def test_an_outline_through_a_circle_is_that_circle() -> None:
    angles_N = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    points_N2 = np.stack([50 + 30 * np.cos(angles_N), 60 + 30 * np.sin(angles_N)], axis=1)
    outline_P2 = np.array(smoothed(points_N2.tolist()))
    assert np.abs(outline_P2[:-1:6] - points_N2).max() < 1e-9
    assert outline_P2[-1].tolist() == outline_P2[0].tolist()
    radii_P = np.hypot(outline_P2[:, 0] - 50, outline_P2[:, 1] - 60)
    assert radii_P == pytest.approx(30, rel=2e-3)


def test_an_outline_makes_no_loop_where_a_point_was_pulled_close_to_another() -> None:
    """Where the uniform curve through the same points does."""
    points = [[10.0, 10.0], [10.0, 60.0], [12.0, 61.0], [60.0, 60.0], [60.0, 10.0]]
    check_contours({"lv": [smoothed(points)]}, (100, 100))
    with pytest.raises(EditError, match="meets itself"):
        check_contours({"lv": [uniform(points)]}, (100, 100))


def uniform(points: list[list[float]]) -> list[tuple[float, float]]:
    """The same by Catmull and Rom 1974, whose pieces take equal times however long they are."""
    points_N2 = np.array(points)
    a_N2, b_N2, c_N2, d_N2 = (np.roll(points_N2, step, axis=0) for step in (1, 0, -1, -2))
    times = [step / 6 for step in range(6)]
    pieces = [
        b_N2
        + 0.5 * (c_N2 - a_N2) * t
        + (a_N2 - 2.5 * b_N2 + 2 * c_N2 - 0.5 * d_N2) * t**2
        + 0.5 * (3 * b_N2 - a_N2 - 3 * c_N2 + d_N2) * t**3
        for t in times
    ]
    outline_P2 = np.stack(pieces, axis=1).reshape(-1, 2)
    return [(row, column) for row, column in outline_P2.tolist()]


PAGE = """
    const nodes = new Map();
    const node = () => ({
      handlers: {}, dataset: {}, style: {}, hidden: false, disabled: false, textContent: "",
      addEventListener(type, handler) { this.handlers[type] = handler; },
      querySelectorAll: () => [], setAttribute() {}, toggleAttribute() {}, replaceChildren() {},
    });
    const byId = (id) => nodes.get(id) ?? nodes.set(id, node()).get(id);
    const hear = { addEventListener() {} };
    globalThis.document = { ...hear, getElementById: byId, createElementNS: node };
    globalThis.window = hear;
    const words = () => byId("edit-words").textContent;
    const soon = () => new Promise((resolve) => setTimeout(resolve));
"""


@pytest.mark.parametrize(
    ("meanwhile", "is_open", "words"),
    [
        ("", False, "Measured anew with your outline."),
        ("editor.close();", False, ""),
        ("editor.close(); open();", True, "Drag the points, or move one by the arrow keys."),
    ],
)
def test_an_outline_that_is_saved_late_touches_none_that_is_drawn_by_then(
    meanwhile: str, is_open: bool, words: str
) -> None:
    script = f"""
        {PAGE}
        const {{ OutlineEditor }} = await import("./editor.js");
        let answer = null;
        const saving = () => new Promise((resolve) => {{ answer = resolve; }});
        const editor = new OutlineEditor(saving, () => {{}});
        const square = [[10, 10], [10, 60], [60, 60], [60, 10], [10, 10]];
        const open = () => editor.open({{ width: 100, height: 100 }}, square);
        open();
        byId("edit-save").handlers.click();
        {meanwhile}
        answer();
        await soon();
        console.log(JSON.stringify([editor.isOpen, words(), byId("edit-save").disabled]));
    """
    assert run_node(script) == [is_open, words, False]


def test_what_was_said_of_one_clip_is_not_said_of_the_next() -> None:
    script = f"""
        {PAGE}
        const {{ ResultView }} = await import("./result.js");
        const view = new ResultView({{}}, () => false, () => {{}});
        byId("edit-words").textContent = "Measured anew with your outline.";
        view.clear("");
        console.log(JSON.stringify(words()));
    """
    assert run_node(script) == ""


@pytest.mark.parametrize(("chosen", "shown"), [("", ""), ("c_two", "#c_two")])
def test_a_clip_that_is_chosen_while_another_is_deleted_stays_shown(
    chosen: str, shown: str
) -> None:
    script = f"""
        {PAGE}
        globalThis.window = {{ ...hear, confirm: () => true, location: {{ hash: "#c_one" }} }};
        const {{ ResultView }} = await import("./result.js");
        let gone = null;
        const server = {{
          result: () => new Promise(() => {{}}),
          forget: () => new Promise((resolve) => {{ gone = resolve; }}),
        }};
        const view = new ResultView(server, () => false, async () => {{}});
        view.show("c_one", "one");
        byId("forget").handlers.click();
        if ("{chosen}") {{
          window.location.hash = "#{chosen}";
          view.show("{chosen}", "two");
        }}
        gone();
        await soon();
        console.log(JSON.stringify(window.location.hash));
        process.exit(0);
    """
    assert run_node(script) == shown
