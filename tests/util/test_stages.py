"""Times of stages, and values that the experiments of a suite share."""

import time

from cembench.util.shared import shared, sharing
from cembench.util.stages import stage, timed


def work(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_stage_has_its_own_time_without_that_of_stages_inside():
    with timed("rest") as times:
        begun = time.process_time()
        with stage("outer"):
            work(0.01)
            for _ in range(2):
                with stage("inner"):
                    work(0.02)
        total = time.process_time() - begun
    with stage("inner"):  # nobody asks any more
        work(0.01)
    cpu = {name: seconds.cpu for name, seconds in times.seconds.items()}
    assert list(cpu) == ["inner", "outer", "rest"]
    assert 0.01 <= cpu["outer"] <= cpu["inner"] - 0.02 and cpu["inner"] >= 0.04
    assert total <= sum(cpu.values())


def test_values_are_made_once_while_sharing_and_one_of_a_kind_is_kept():
    made = []

    def make(kind, key):
        def new():
            made.append([kind, key])
            return made[-1]

        return shared(kind, lambda: key, new)

    assert make("a", 1) is not make("a", 1) and len(made) == 2
    made.clear()
    with sharing():
        first = make("a", 1)
        with sharing():
            assert make("a", 1) is first and make("b", 1) is not first
        assert make("a", 1) is first
        assert make("a", 2) is not first and make("a", 1) is not first
    assert len(made) == 4
    assert make("a", 1) is not make("a", 1)
