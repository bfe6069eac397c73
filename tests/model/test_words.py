import pytest

from model import counted


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (11, "11 frames")]
)
def test_one_is_singular_and_any_other_number_plural(count: int, said: str) -> None:
    assert counted(count, "frame") == said
