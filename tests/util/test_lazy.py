"""Imports that wait for their first use."""

import sys
import types

import pytest

SOURCE = """
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import late_module
    from late_module import Base, value_of
    from late_module import value_of as renamed

def use():
    return value_of(2)
"""


@pytest.fixture
def late(tmp_path, monkeypatch):
    """A module with lazy imports, of a module that notes when it is imported."""
    (tmp_path / "late_module.py").write_text(
        "class Base:\n    pass\n\n\ndef value_of(x):\n    return x + 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = types.ModuleType("early_module")
    exec(SOURCE, module.__dict__)
    yield module
    sys.modules.pop("late_module", None)


def test_nothing_is_imported_before_it_is_used(late):
    assert "late_module" not in sys.modules
    assert late.use() == 3
    assert "late_module" in sys.modules and late.value_of is sys.modules["late_module"].value_of


def test_a_name_can_be_called_subclassed_tested_and_asked(late):
    class Derived(late.Base):
        pass

    assert isinstance(Derived(), late.Base)
    assert late.renamed(1) == 2 and late.late_module.Base is late.Base


def test_isinstance_imports(late):
    assert not isinstance(3, late.Base)
    assert isinstance(late.Base(), late.Base)


def test_a_name_that_is_not_there_says_so(late):
    namespace = {"__name__": "another"}
    code = (
        "from cembench.util.lazy import lazy_imports\n"
        "with lazy_imports():\n    from late_module import none\n"
    )
    exec(code, namespace)
    with pytest.raises(AttributeError, match="none"):
        namespace["none"]()
