"""A view's frames through the network that ships."""

from model import Frame, load_predictor
from server.analysis import Analysis
from server.ingest import decode_luma, read_jpeg, read_sample

FPS = 60.0


def test_an_image_that_is_frozen_takes_no_ef_back() -> None:
    # A systole to and fro, so that it beats; then the freeze button is pressed.
    images = [decode_luma(read_jpeg(jpeg)) for jpeg in read_sample().jpegs]
    course = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    analysis = Analysis(load_predictor(threads=1, precision="f32"))
    for seq in range(131):
        image = images[course[seq % len(course)]]
        analysis.step(Frame(seq, round(1e6 * seq / FPS), image), keeps_outlines=False)
    before = analysis.ef
    assert before.state == "measured"
    for seq in range(131, 371):
        analysis.step(Frame(seq, round(1e6 * seq / FPS), image), keeps_outlines=False)
    assert analysis.ef == before
    analysis.finish()
    assert analysis.ef.state == "measured"
    assert analysis.ef.percent is not None
    assert before.percent is not None
    assert abs(analysis.ef.percent - before.percent) < 1
    assert "beat_not_confirmed" not in analysis.ef.reasons
