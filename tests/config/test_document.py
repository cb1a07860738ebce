"""YAML documents: bounds that hold for any content, and the line of each value."""

from pathlib import Path

import pytest
import yaml

from exporter.config import ConfigError, load
from exporter.config.document import MAX_VALUES, parse_yaml
from exporter.config.errors import MAX_PROBLEMS
from exporter.config.web_file import WebFile
from tests.config.config_file import KEY, write_config

MANY = MAX_VALUES + 1
NESTED = range(1, 12)


def aliases(n: int) -> str:
    return ", ".join([f"*a{n - 1}"] * 10)


LISTS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{aliases(n)}]\n" for n in NESTED)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{aliases(n)}], k{n}: 1}}\n" for n in NESTED
)
CHAIN = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: *a{n - 1}, k{n}: 1}}\n" for n in range(1, MANY)
)
TOO_MANY = f"more than {MAX_VALUES:,} values, counting what aliases stand for"
LONG_NUMBER = "a number of more than 64 characters; put text in quotes"


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        pytest.param("a: [" + "x, " * MANY + "]", "line 1", TOO_MANY, id="list"),
        pytest.param("".join(f"a{n}:\n" for n in range(MANY)), "line", TOO_MANY, id="keys"),
        pytest.param(LISTS, "line 5", TOO_MANY, id="aliases"),
        pytest.param(MERGES, "line 5", TOO_MANY, id="merges"),
        pytest.param(CHAIN, "line", TOO_MANY, id="chain of merges"),
        pytest.param("x: &a {b: c}\ny: [" + "*a, " * MANY + "]", "line 2", TOO_MANY, id="reuse"),
        pytest.param("a: 1" + ":1" * 100_000, "line 1", LONG_NUMBER, id="base 60"),
        pytest.param("a: 1" + ":1" * 100_000 + ".5", "line 1", LONG_NUMBER, id="base 60, float"),
        pytest.param("a: " + "9" * 100_000, "line 1", LONG_NUMBER, id="digits"),
        pytest.param("a: 0x" + "f" * 100_000, "line 1", LONG_NUMBER, id="hexadecimal"),
        pytest.param("a: 0b" + "1" * 100_000, "line 1", LONG_NUMBER, id="binary"),
        pytest.param("a: !!int '" + "7_" * 1_000 + "'", "line 1", LONG_NUMBER, id="tagged"),
        pytest.param("? " + "1" * 100 + "\n: x", "line 1", LONG_NUMBER, id="number as a key"),
        pytest.param("a: " + "[" * 100_000, "line 1", "is nested too deeply", id="lists"),
        pytest.param("a: " + "{a: " * 100_000, "line 1", "is nested too deeply", id="maps"),
        pytest.param("? " * 1_000, "line 1", "is nested too deeply", id="keys in keys"),
        pytest.param("accounts: &a [*a]", "line 1", "contains it", id="ring"),
        pytest.param("poll: &p {x: {y: *p}}", "line 1", "contains it", id="wider ring"),
        pytest.param("poll: &p {<<: *p}", "line 1", "contains it", id="merged ring"),
        pytest.param("? [a]\n: b", "line 1", "found unhashable key", id="key that is a list"),
        pytest.param("a: !!timestamp x", "line 1", "this tag is not supported", id="date"),
        pytest.param("a: !!omap [b: c]", "line 1", "this tag is not supported", id="omap"),
        pytest.param("a: !!pairs [b: c]", "line 1", "this tag is not supported", id="pairs"),
        pytest.param("!!set {a, b}", "line 1", "this tag is not supported", id="set as a root"),
        pytest.param("a: !!bool x", "line 1", "does not match its type or its tag", id="bool"),
        pytest.param("a: !!float x", "line 1", "does not match its type or its tag", id="float"),
        pytest.param("a: !!map [b]", "line 1", "expected a mapping node", id="map"),
        pytest.param("a: !!int [1]", "line 1", "expected a scalar node", id="int of a list"),
        pytest.param("a: {<<: 5}", "line 1", "expected a mapping or list of mappings", id="merge"),
    ],
)
def test_a_document_that_would_take_long_or_has_odd_values_is_refused(
    tmp_path, text, place, problem
):
    """Without the bounds, the larger ones take from seconds to the age of the universe."""
    path = write_config(tmp_path, text)
    for read in (lambda: load(path, KEY), WebFile(path).read):
        with pytest.raises(ConfigError) as caught:
            read()
        [found] = caught.value.problems
        assert found.startswith(f"{path}: {place}")
        assert problem in found


def test_a_document_may_have_as_many_values_as_a_thousand_accounts_need(tmp_path):
    account = "{{name: a{}, api_key: k, base_url: 'https://x.example', labels: {{team: a}}}}"
    text = f"accounts: [{', '.join(account.format(n) for n in range(1_000))}]"
    assert len(load(write_config(tmp_path, text), {}).accounts) == 1_000


def test_of_many_mistakes_the_first_are_named_and_the_rest_is_counted(tmp_path):
    number = MAX_VALUES // 2 - 1
    path = write_config(tmp_path, "".join(f"a{n}:\n" for n in range(number)))
    with pytest.raises(ConfigError) as caught:
        load(path, KEY)
    *named, rest = caught.value.problems
    assert len(named) == MAX_PROBLEMS
    assert named[99].startswith("line 100: a99: unknown key")
    assert rest == f"and {number - MAX_PROBLEMS:,} more"


def test_suggestions_are_looked_for_in_short_words_only(tmp_path, monkeypatch):
    """The time of difflib grows with the square of the length."""
    compared: list[str] = []

    def compare(word: str, *_: object) -> list[str]:
        compared.append(word)
        return []

    monkeypatch.setattr("difflib.get_close_matches", compare)
    long = "a" * 100_000
    keys = "".join(f"k{n}: 1\n" for n in range(500))
    words = f"[{', '.join(['faild'] * 500)}]"
    text = f"? {long}\n: 1\nreceivers: [{{type: {long}}}]\nalerts: {{events: {words}}}\n{keys}"
    with pytest.raises(ConfigError):
        load(write_config(tmp_path, text), KEY)
    assert max(map(len, compared)) <= 64
    assert len(compared) <= 2 * MAX_PROBLEMS


TEXT = """\
accounts:
  - &team
    name: a
    api_key: x
  - <<: *team
    name: b
poll: {interval: 1m,
  page_size: 5}
7: x
"""


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("accounts",), 1),
        (("accounts", 0), 2),
        (("accounts", 0, "api_key"), 4),
        (("accounts", 1), 5),
        (("accounts", 1, "api_key"), 4),
        (("accounts", 1, "name"), 6),
        (("accounts", 1, "missing"), 5),
        (("accounts", 5), 1),
        (("poll", "interval"), 7),
        (("poll", "page_size"), 8),
        (("poll", "page_size", "deeper"), 8),
        (("7",), 9),
        (("missing",), None),
        ((), None),
    ],
)
def test_the_line_of_a_value_is_that_of_its_key_or_of_what_is_around_it(location, line):
    assert parse_yaml(Path("x.yaml"), TEXT.encode()).line_of(location) == line


def test_values_equal_those_of_the_safe_loader_except_for_dates():
    text = "a: [1, 0x1f, 1.5, 1:30, yes, ~, .inf, -0o7, 1e3, '1', 2026-03-01]\nb: {c: |\n  x\n}"
    text = text.replace("b: {c: |\n  x\n}", "b:\n  c: |\n    x\n")
    expected = yaml.safe_load(text.replace("2026-03-01", "'2026-03-01'"))
    assert parse_yaml(Path("x.yaml"), text.encode()).values == expected
