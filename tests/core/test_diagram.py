"""README.md shows the machine that runs: the diagram in it is the one that the code makes."""

from pathlib import Path

from payment_service.core.diagram import END, START, readme_block, transitions
from payment_service.core.terms import Status

README = Path(__file__).parents[2] / "README.md"
PAID = {Status.SUCCEEDED, Status.PARTIALLY_REFUNDED, Status.REFUNDED}


def test_the_readme_shows_the_machine_that_runs() -> None:
    text = README.read_text("utf-8")
    assert text.count(START) == text.count(END) == 1
    shown = text[text.index(START) : text.index(END) + len(END)]
    assert shown == readme_block(), "run `python -m payment_service.core.diagram` and paste what it prints"


def test_every_status_can_be_reached_and_left_and_money_is_never_unsaid() -> None:
    found = transitions()
    assert {after for _, after in found} == set(Status)
    assert {before for before, _ in found} == {None, *Status}
    assert not [(before, after) for before, after in found if before in PAID and after not in PAID]
    assert found[None, Status.CANCELLED] == {"order.cancelled"}
