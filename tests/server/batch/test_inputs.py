"""What a folder and a manifest mean."""

from pathlib import Path

import pytest

from server.batch.errors import ListingError
from server.batch.inputs import Input, list_inputs

OUT = "elsewhere"


def test_a_folder_means_its_files_but_neither_hidden_ones_nor_the_results(tmp_path: Path) -> None:
    out = tmp_path / "results"
    for name in ("b.dcm", "a/c.dcm", ".hidden", ".git/x", "results/clips.parquet/part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list_inputs(str(tmp_path), str(out))
    assert [each.place for each in found] == [str(tmp_path / "a/c.dcm"), str(tmp_path / "b.dcm")]


def test_a_manifest_means_each_of_its_lines_once(tmp_path: Path) -> None:
    manifest = tmp_path / "clips.txt"
    manifest.write_text("# ours\n\na.dcm\n/far/b.dcm\nhttps://pacs/c.dcm\n a.dcm \n")
    found = list_inputs(str(manifest), OUT)
    assert found == [
        Input(str(tmp_path / "a.dcm")),
        Input("/far/b.dcm"),
        Input("https://pacs/c.dcm"),
    ]
    assert [each.is_remote for each in found] == [False, False, True]


@pytest.mark.parametrize("column", ["path", "url", "Input"])
def test_a_csv_may_say_the_view(tmp_path: Path, column: str) -> None:
    manifest = tmp_path / "clips.csv"
    manifest.write_text(f"patient,{column},view\n1,/a.dcm,A4C\n2,/b.dcm,\n3,,A2C\n")
    assert list_inputs(str(manifest), OUT) == [Input("/a.dcm", "A4C"), Input("/b.dcm")]


@pytest.mark.parametrize(
    ("told", "view"),
    [("a4c", "A4C"), ("2CH", "A2C"), ("Apical four chamber", "A4C"), ("plax", "PLAX"), ("x", "x")],
)
def test_views_of_a_csv_are_known_by_the_names_that_files_give_them(
    tmp_path: Path, told: str, view: str
) -> None:
    manifest = tmp_path / "clips.csv"
    manifest.write_text(f"path,view\n/a.dcm,{told}\n")
    assert list_inputs(str(manifest), OUT) == [Input("/a.dcm", view)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("clips.csv", b"file\n/a.dcm\n", "needs a column"),
        ("clips.txt", b"\xff\xfe\xff", "cannot be read"),
        ("clip.dcm", b"", "neither a folder, nor a manifest"),
    ],
)
def test_what_means_nothing_is_refused_in_words(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ListingError, match=said):
        list_inputs(str(tmp_path / name), OUT)
