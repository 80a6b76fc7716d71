"""The examples in the docstrings of attacks run, and print what they say."""

import doctest

import pytest

from cembench.attacks import attacks
from cembench.util.rng import isolated_rng


@pytest.mark.parametrize("name", attacks.known())
def test_every_attack_has_an_example_that_runs(name):
    cls = attacks.find(name)
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(cls, cls.__name__)
    assert test.examples, f"{cls.__name__} has no example in its docstring"
    with isolated_rng(0):
        found = doctest.DocTestRunner().run(test)
    assert found.failed == 0
