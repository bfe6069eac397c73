"""Queries that name what a route does not take."""

import pytest

from tests.server.phantom import Served
from tests.server.routes.asking import assert_problem


@pytest.mark.parametrize("file", ["seg.dcm", "sr.dcm"])
@pytest.mark.parametrize("odd", ["deidentfy=true", "DEIDENTIFY=true", "deidentify=true&x="])
def test_no_file_is_handed_out_for_a_misspelt_query(
    served: Served, stored: str, file: str, odd: str
) -> None:
    """Passed over, it would be the file that names the patient."""
    assert_problem(served.http.get(f"{stored}/{file}?{odd}"), 400, "bad_request")
    assert served.http.get(f"{stored}/{file}?deidentify=true").status_code == 200


@pytest.mark.parametrize("path", ["/v1/clips?veiw=A2C", "/v1/clips?View=A2C", "/v1/studies?wait=9"])
def test_nothing_is_taken_in_under_a_misspelt_query(served: Served, stored: str, path: str) -> None:
    before = served.http.get("/v1/clips").json()
    told = assert_problem(served.http.post(path, content=b"x"), 400, "bad_request")
    assert "wait_s" in told
    assert served.http.get("/v1/clips").json() == before


def test_routes_without_parameters_say_so(served: Served, stored: str) -> None:
    told = assert_problem(served.http.get(f"{stored}/result?frames=3"), 400, "bad_request")
    assert "takes none" in told
