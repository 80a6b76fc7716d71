"""YAML that explodes and settings that make no sense: read, or refused in one line, and soon."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.suites.suite import load_suite
from cembench.training.config import Experiment, load_experiment
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files.yaml import parse_yaml, to_yaml
from cembench.util.shipped import shipped
from tests.conftest import TINY, experiment
from tests.support.forks import Process

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
HOSTILE = {
    "billion laughs": LAUGHS,
    "laughing keys": LAUGHS + "data: {<<: [{x: *a29}, {y: *a29}]}",
    "recursive list": "data: &a [*a]",
    "recursive mapping": "data: &a {b: *a}",
    "recursive merge": "data: &a {<<: *a, b: [*a]}",
    "python tag": "data: !!python/object/apply:os.system [ls]",
    "unknown tag": "data: !mine {x: 1}",
    "wrong tag": "data: !!bool perhaps",
    "long tag": "data: !" + "x" * 50_000,
    "deep lists": "data: " + "[" * 50_000,
    "deep mappings": "data: " + "{a: " * 20_000,
    "deep dashes": "- " * 40_000,
    "deep and closed": "data: " + "[" * 800 + "]" * 800,
    "long string": "data: " + "x" * 10_000_000,
    "many strings": "data: [" + "x, " * 1_000_000 + "]",
    "text often": f"data: &a {'x' * 50_000}\nmodel: [{'*a, ' * 5000}]",
    "large number": "epochs: 0x" + "f" * 5000,
    "larger number": "epochs: " + "9" * 90_000,
    "not a number": "epochs: .nan",
    "NUL": "data: a\0b",
    "escaped NUL": 'data: {name: folder, root: "a\\0b"}',
    "half a character": 'data: {name: folder, root: "\\ud800"}',
    "date": "data: 2020-01-01",
    "binary": "data: !!binary aGVsbG8=",
    "set": "data: !!set {a, b}",
    "list as key": "data: {[1, 2]: 3}",
    "two documents": "data: digits\n---\ndata: digits",
    "other bytes": b"\xff\xfe\x00d",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_in_one_line_with_little_memory(name, tmp_path):
    text = HOSTILE[name]
    path = tmp_path / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for command in (["train"], ["run"], ["eval", "none.safetensors", "--protocol"]):
        errors = tmp_path / "errors.txt"
        assert Process(*command, path, errors=errors, memory=2**28).wait() == 2
        line = errors.read_text()
        assert len(line.splitlines()) == 1 and len(line) < 2000
        assert line.startswith(f"cembench: error: {path}: ")


def test_harmless_aliases_and_merges_work(tmp_path):
    text = "data: digits\nmodel: {<<: &w {width: 8}, name: small_cnn}\nmethod: {name: at}\n"
    (tmp_path / "x.yaml").write_text(text + "optimizer: &o {lr: 0.1}\n")
    assert load_experiment(tmp_path / "x.yaml").model.width == 8
    assert parse_yaml("a: &a {x: 1}\nb: [*a, *a]", "x") == {"a": {"x": 1}, "b": [{"x": 1}] * 2}


ABSURD = [
    ("model", {"name": "small_cnn", "width": 10**12}),
    ("model", {"name": "resnet18", "width": 10**12}),
    ("model", {"name": "wide_resnet", "width": 10**12}),
    ("model", {"name": "wide_resnet", "depth": 6 * 10**12 + 4}),
    ("data", {"name": "digits", "crop": 10**12}),
    ("method", {"name": "jem", "negatives": {"name": "sgld", "buffer": 10**12}}),
]


@pytest.mark.parametrize("label", ["../../x", "a/b", "", "x" * 300])
@pytest.mark.parametrize(("key", "name"), [("attacks", "pgd"), ("samples.samplers", "rcs")])
def test_a_label_that_would_leave_the_folder_of_a_run_is_refused(key, name, label):
    with pytest.raises(ConfigError, match=r"\.0\.label: "):
        load_protocol("quick", [f"{key}=[{{name: {name}, label: '{label}'}}]"])


@pytest.mark.parametrize(("key", "value"), ABSURD, ids=lambda value: str(value)[9:40])
def test_a_size_that_no_machine_holds_is_refused_before_anything_is_built(key, value):
    with pytest.raises(ConfigError, match=rf"{key}\..*less than or equal to"):
        experiment(**{key: value})


def test_a_network_too_large_for_this_machine_is_an_error_that_names_it(tmp_path):
    """The largest of the allowed sizes, with less memory than it takes."""
    config = tmp_path / "c.yaml"
    config.write_text(to_yaml({**TINY, "model": {"name": "wide_resnet", "width": 100}}))
    errors = tmp_path / "errors.txt"
    command = ["train", config, "--out", tmp_path]
    assert Process(*command, errors=errors, memory=2**28).wait() == 2
    line = errors.read_text()
    assert len(line.splitlines()) == 1 and "model 'wide_resnet' does not take" in line
    assert not (tmp_path / "c").exists()


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["", "at", "pgd", "digits", "rcs", "8/255", "1/0", "../..", "a\0b", 10**18])
)
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.just("name"), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(values):
    """Return every place in nested settings: the mapping or list, and the key or number."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    found = []
    for key, value in items:
        found.append((values, key))
        found += places(value) if isinstance(value, dict | list) else []
    return found


@st.composite
def spoilt(draw, valid):
    """Settings that were right until someone changed, deleted, added, nested and swapped some."""
    values = copy.deepcopy(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 3))):
        known = places(values)
        if not known:
            break
        (inside, key), (other, name) = (
            known[draw(st.integers(0, len(known) - 1))] for _ in range(2)
        )
        act = draw(st.sampled_from(["change", "change", "delete", "add", "nest", "swap"]))
        if act == "change":
            inside[key] = draw(junk)
        elif act == "delete":
            del inside[key]
        elif act == "add" and isinstance(inside, dict):
            inside[draw(st.text(max_size=6))] = draw(junk)
        elif act == "nest":
            inside[key] = {"name": inside[key]}
        elif act == "swap":
            inside[key] = copy.deepcopy(other[name])
    return values


METHODS = ["standard", "trades", "jem", {"name": "cem", "negatives": "rcs"}]
EXPERIMENTS = [TINY, *(experiment(method=method).dump() for method in METHODS)]
SUITES = [
    {
        "protocol": "quick",
        "shared": TINY,
        "seeds": [0, 1],
        "experiments": {"a": {}, "b": {"ema": 0.5}},
    },
    {"experiments": {"a": TINY, "b": {**TINY, "method": "trades"}}},
]
PROTOCOLS = [load_protocol(name).dump() for name in shipped("protocol")]
fuzz = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def read_or_refused(read, path, values):
    """Write settings as YAML, read them, and return what they mean; None when refused by name."""
    path.write_text(to_yaml(values), "utf-8")
    try:
        return read(path)
    except CembenchError as error:
        assert str(path.parent) in str(error) and len(str(error)) < 20_000
        return None


@fuzz
@given(values=spoilt(EXPERIMENTS))
def test_any_experiment_is_read_or_refused_by_name(values, tmp_path):
    found = read_or_refused(load_experiment, tmp_path / "x.yaml", values)
    assert found is None or Experiment.parse(found.dump()) == found


@fuzz
@given(values=spoilt(PROTOCOLS))
def test_any_protocol_is_read_or_refused_by_name(values, tmp_path):
    found = read_or_refused(lambda path: load_protocol(str(path)), tmp_path / "x.yaml", values)
    assert found is None or Protocol.parse(found.dump()).digest == found.digest


@fuzz
@given(values=spoilt(SUITES))
def test_any_suite_is_read_or_refused_by_name(values, tmp_path):
    found = read_or_refused(load_suite, tmp_path / "x.yaml", values)
    assert found is None or all(isinstance(e, Experiment) for e in found[0].values())


@fuzz
@given(
    st.text(st.sampled_from("&*!<>%@`|-?:,[]{}#'\"\\ \n\t0aé~=.x_+") | st.characters(), max_size=40)
)
def test_any_text_is_yaml_or_refused(text):
    try:
        parse_yaml(text, "x")
    except ConfigError as error:
        assert str(error).startswith("x: not valid YAML")
