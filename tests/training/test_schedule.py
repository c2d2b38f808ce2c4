import pytest
from torch import nn

from pydistill.schedule import Schedule, Term


def test_a_weight_starts_rises_linearly_and_ends():
    schedule = Schedule(weight=2.0, start=10, ramp=4, end=20)
    assert [schedule.weight_at(step) for step in (0, 9, 10, 11, 12, 13, 14, 19)] == [0, 0, 0, 0.5, 1, 1.5, 2, 2]
    assert schedule.weight_at(20) == schedule.weight_at(10**9) == 0


def test_without_a_ramp_the_weight_is_full_from_the_start():
    schedule = Schedule(weight=0.1, start=3)
    assert [schedule.weight_at(step) for step in (2, 3, 4, 10**9)] == [0, 0.1, 0.1, 0.1]


def test_the_default_is_one_for_ever():
    assert Schedule().weight_at(0) == Schedule().weight_at(10**9) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(weight=-0.1), "Schedule: expected a finite weight >= 0, got -0.1"),
        (dict(weight=float("nan")), "Schedule: expected a finite weight >= 0, got nan"),
        (dict(start=-1), "Schedule: expected start and ramp >= 0, got -1 and 0"),
        (dict(ramp=-2), "Schedule: expected start and ramp >= 0, got 0 and -2"),
        (dict(start=5, end=5), "Schedule: expected an end after the first weighted step 5, got 5"),
        (dict(start=5, ramp=3, end=6), "Schedule: expected an end after the first weighted step 6, got 6"),
    ],
)
def test_a_schedule_out_of_range_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**options)


def test_a_term_needs_paths_and_an_adapter_for_each():
    with pytest.raises(ValueError, match="Term: expected at least one path"):
        Term(nn.MSELoss(), [])
    with pytest.raises(ValueError, match="Term: expected at least one path"):
        Term(nn.MSELoss(), "body", [])
    with pytest.raises(ValueError, match="Term: expected one adapter for each of 2 student paths, got 1"):
        Term(nn.MSELoss(), ["stem", "body"], adapter=nn.Identity())
