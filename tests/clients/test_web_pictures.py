"""Pictures on their way to the server and to the screen, run by Node: one that fails stops none."""

from tests.clients.node import run_node

SOON = "const soon = () => new Promise((resolve) => setTimeout(resolve));"


def test_after_a_picture_that_cannot_be_decoded_the_next_one_is_shown() -> None:
    script = f"""
        {SOON}
        globalThis.createImageBitmap = async (picture) => {{
          if (picture === "broken") throw new Error("the decoder is gone");
          return picture;
        }};
        const {{ drawNext }} = await import("./draw.js");
        const shown = [];
        const decode = drawNext((image, frame) => shown.push([image, frame]));
        for (const [index, picture] of ["first", "broken", "last"].entries()) {{
          decode(picture, index);
          await soon();
        }}
        console.log(JSON.stringify(shown));
    """
    assert run_node(script) == [["first", 0], ["last", 2]]


def test_after_a_picture_that_cannot_be_encoded_the_next_one_is_sent() -> None:
    script = f"""
        {SOON}
        const seqs = [];
        globalThis.WebSocket = class {{
          bufferedAmount = 0;
          constructor() {{ globalThis.socket = this; }}
          send(message) {{
            if (typeof message === "string") return;
            seqs.push(Number(new DataView(message).getBigUint64(8, true)));
          }}
          close() {{}}
        }};
        let encoded = 0;
        globalThis.OffscreenCanvas = class {{
          constructor(width, height) {{ Object.assign(this, {{ width, height }}); }}
          getContext() {{ return {{ fillRect() {{}}, drawImage() {{}} }}; }}
          async convertToBlob() {{
            encoded += 1;
            if (encoded === 2) throw new Error("the encoder is gone");
            return new Blob(["picture"]);
          }}
        }};
        globalThis.location = {{ href: "http://echo/" }};
        globalThis.self = {{ addEventListener() {{}}, postMessage() {{}}, close() {{}} }};
        await import("./sender.js");
        const tell = (data) => self.onmessage({{ data }});
        const crop = {{ left: 0, top: 0, right: 1, bottom: 1 }};
        tell({{ type: "open", key: null, hello: {{ size: [16, 16] }}, crop }});
        await soon();
        const ready = {{ type: "ready", resume: "secret", credits: 8, resume_within_s: 60 }};
        socket.onmessage({{ data: JSON.stringify(ready) }});
        for (let index = 0; index < 3; index += 1) {{
          const bitmap = {{ width: 16, height: 16, close() {{}} }};
          tell({{ type: "bitmap", bitmap, timeUs: 1000 * index }});
          for (let turn = 0; turn < 5; turn += 1) await soon();
        }}
        console.log(JSON.stringify([encoded, seqs.length]));
        process.exit(0);
    """
    assert run_node(script) == [3, 2]


def test_a_part_of_a_part_is_the_part_that_was_seen_and_never_what_was_cut_off_before() -> None:
    script = """
        const { cropped } = await import("./sources.js");
        const crop = { left: 0, top: 0, right: 1, bottom: 1 };
        const source = { crop, hello: { size: [400, 800] } };
        const right = cropped(source, { left: 0.5, top: 0, right: 1, bottom: 1 });
        const corner = cropped(right, { left: 0, top: 0.5, right: 0.5, bottom: 1 });
        const whole = cropped(corner, null);
        const sliver = cropped(corner, { left: 0, top: 0, right: 1, bottom: 0.02 });
        const told = [right, corner, whole, sliver].map((each) => [
          Object.values(each.crop), each.hello.size,
        ]);
        console.log(JSON.stringify(told));
    """
    # left, top, right, bottom of the whole source; rows, columns; no side below 16.
    assert run_node(script) == [
        [[0.5, 0, 1, 1], [400, 400]],
        [[0.5, 0.5, 0.75, 1], [200, 200]],
        [[0, 0, 1, 1], [400, 800]],
        [[0.5, 0.5, 0.75, 0.51], [16, 200]],
    ]


def test_a_clip_is_streamed_at_the_times_of_its_file_lap_after_lap_or_at_none() -> None:
    script = f"""
        {SOON}
        const times = [];
        globalThis.WebSocket = class {{
          bufferedAmount = 0;
          constructor() {{ globalThis.socket = this; }}
          send(message) {{
            if (typeof message === "string") return;
            times.push(String(new DataView(message).getBigInt64(16, true)));
          }}
          close() {{}}
        }};
        globalThis.OffscreenCanvas = class {{}};
        globalThis.location = {{ href: "http://echo/" }};
        globalThis.self = {{ addEventListener() {{}}, postMessage() {{}}, close() {{}} }};
        const {{ knownTimesMs }} = await import("./times.js");
        await import("./sender.js");
        const tell = (data) => self.onmessage({{ data }});
        const waits = [];
        const stream = async (frames) => {{
          tell({{ type: "open", key: null, hello: {{ size: [16, 16] }}, crop: null }});
          await soon();
          const ready = {{ type: "ready", resume: "secret", credits: 8, resume_within_s: 60 }};
          socket.onmessage({{ data: JSON.stringify(ready) }});
          globalThis.setTimeout = (tick) => waits.push(tick);
          const timesMs = knownTimesMs(frames.map((timeMs) => ({{ time_ms: timeMs }})));
          const pictures = frames.map(() => new Blob(["picture"]));
          tell({{ type: "clip", pictures, timesMs }});
          while (waits.length === 0) await new Promise(setImmediate);
          for (let count = 0; count < 4; count += 1) waits.pop()();
          return times.splice(0);
        }};
        const told = [];
        const later = globalThis.setTimeout;
        for (const frames of [[0, 20, 70], [0, null, null], [0, 50, 50]]) {{
          told.push(await stream(frames));
          globalThis.setTimeout = later;
          waits.splice(0);
        }}
        console.log(JSON.stringify(told));
        process.exit();
    """
    unknown = [str(-(2**63))] * 5
    # The last frame is shown as long as the one before it, 50 ms.
    assert run_node(script) == [["0", "20000", "70000", "120000", "140000"], unknown, unknown]
