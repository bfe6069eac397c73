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
        const source = { crop: { left: 0, top: 0, right: 1, bottom: 1 }, hello: { size: [400, 800] } };
        const right = cropped(source, { left: 0.5, top: 0, right: 1, bottom: 1 });
        const corner = cropped(right, { left: 0, top: 0.5, right: 0.5, bottom: 1 });
        const whole = cropped(corner, null);
        const sliver = cropped(corner, { left: 0, top: 0, right: 1, bottom: 0.02 });
        const told = [right, corner, whole, sliver];
        console.log(JSON.stringify(told.map(({ crop, hello }) => [Object.values(crop), hello.size])));
    """
    # left, top, right, bottom of the whole source; rows, columns; no side below 16.
    assert run_node(script) == [
        [[0.5, 0, 1, 1], [400, 400]],
        [[0.5, 0.5, 0.75, 1], [200, 200]],
        [[0, 0, 1, 1], [400, 800]],
        [[0.5, 0.5, 0.75, 0.51], [16, 200]],
    ]
