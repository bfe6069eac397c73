"""Pages whose server is killed without a warning: what it had not saved is sent again, unasked."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.e2e.link import bad_link
from tests.e2e.serving import serving

FRAMES, BEFORE = 45, 20
"""Frames of a session, and those answered before its server is killed."""

OPEN = """async () => {
  const { GdkvmServer } = await import("/gdkvm.js");
  const clip = await (await fetch("/sample.json")).json();
  const paths = Array.from({ length: clip.frames }, (_, index) => `/sample/${index}.jpg`);
  const jpegs = await Promise.all(paths.map(async (path) => (await fetch(path)).arrayBuffer()));
  const pause = () => new Promise((resolve) => setTimeout(resolve, 5));
  window.sessions = [];
  window.play = (policy, frames) => {
    const session = { told: [], resent: 0, most: frames };
    const stream = new GdkvmServer().openStream({ size: clip.size, policy, mask_encoding: "rle" });
    for (const type of ["result", "dropped", "beat"]) {
      stream.addEventListener(type, ({ detail }) => session.told.push(detail));
    }
    stream.addEventListener("state", ({ detail }) => { session.resent += detail.resent; });
    const send = async () => {
      for (let seq = 0; seq < FRAMES; seq += 1) {
        const isHeldBack = () => !stream.canSend || seq >= session.most
          || (policy === "latest" && stream.unanswered > 0);
        while (isHeldBack()) await pause();
        stream.send(jpegs[seq % jpegs.length], { seq, timeUs: seq * 40000 });
      }
      session.told.push(await stream.finish());
    };
    session.done = send();
    window.sessions.push(session);
  };
}""".replace("FRAMES", str(FRAMES))

VARYING = {"session", "saved_seq", "stages_ms"}


def told(page: Page, number: int) -> list[dict[str, Any]]:
    """All that a session was told, but for what no two are told alike."""
    messages: list[dict[str, Any]] = page.evaluate(
        "async (number) => { await sessions[number].done; return sessions[number].told; }", number
    )
    return [{k: v for k, v in each.items() if k not in VARYING} for each in messages]


def test_after_a_kill_a_page_sends_again_what_was_not_saved_and_is_told_nothing_twice(
    visit: Callable[..., Page], tmp_path: Path
) -> None:
    shared = {
        "snapshot_store": tmp_path / "sessions.sqlite",
        "checkpoint_frames": 1000,
        "threads": 1,
        "streams": 1,
        "capacity_fps": 10_000,
    }
    with ExitStack() as stack:
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
        first, second = (
            stack.enter_context(serving(tmp_path / name, **shared)) for name in ("first", "second")
        )
        link = stack.enter_context(bad_link(first.port, delay_s=0, loss=0))
        page = visit(f"http://127.0.0.1:{link.port}")
        page.evaluate(OPEN)
        page.evaluate("(all) => play('every', all)", FRAMES)
        undisturbed = told(page, 0)
        for policy in ("every", "latest"):
            page.evaluate("([policy, some]) => play(policy, some)", [policy, BEFORE])
        page.wait_for_function(
            "(some) => sessions.every(({ told }) => told.some(({ seq }) => seq === some - 1))",
            arg=BEFORE,
        )
        page.evaluate("(all) => sessions.forEach((session) => { session.most = all; })", FRAMES)
        first.process.kill()
        link.target = second.port
        link.cut()
        for number in (1, 2):
            assert told(page, number) == undisturbed
        resent = page.evaluate("() => sessions.map(({ resent }) => resent)")
        assert resent[0] == 0
        assert min(resent[1:]) >= BEFORE
        # The live view of the same page.
        again = re.compile(r"Session resumed after .* frames sent again, none counted twice\.")
        log = page.locator("#log")
        expect(log.get_by_text(again)).to_have_count(1)
        expect(log.get_by_text("has begun")).to_have_count(1)
