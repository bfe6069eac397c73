"""Numbers in sentences that people read."""


def counted(count: int, noun: str) -> str:
    """A number and what there is so many of: "1 frame", "2 frames".

    Args:
        count: how many.
        noun: in the singular; its plural adds an s.
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
