"""Examples in docstrings: every registered class has one, it runs by itself, and it is right."""

import doctest

import pytest

from cembench.attacks import attacks
from cembench.methods import methods
from cembench.samplers import samplers
from cembench.util.rng import isolated_rng

REGISTRIES = [samplers, methods, attacks]
# Other tests register classes of their own.
CASES = [
    (registry, name)
    for registry in REGISTRIES
    for name in registry.known()
    if registry.find(name).__module__.startswith("cembench.")
]


@pytest.mark.parametrize(
    ("registry", "name"), CASES, ids=[f"{registry.kind} {name}" for registry, name in CASES]
)
def test_every_class_has_an_example_that_runs(registry, name):
    cls = registry.find(name)
    known = {cls.__name__: cls}
    examples = doctest.DocTestParser().get_doctest(cls.__doc__, known, cls.__name__, None, None)
    assert examples.examples, f"{registry.kind} {name} has no example in its docstring"
    with isolated_rng(0):
        results = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(examples)
    assert results.failed == 0
