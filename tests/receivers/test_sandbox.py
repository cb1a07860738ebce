"""What an operator's template may do, and that it can neither grow nor run without end."""

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.receivers.template import (
    LONGEST_SOURCE,
    LONGEST_TEXT,
    Budget,
    Template,
    TemplateError,
)

SEEN: dict[str, Any] = {
    "title": "A <b> \"title\" 'é' {{ x }}",
    "text": "x" * 1000,
    "data": {"fine_tune": None, "name": "Ada"},
    "events": [{"text": "y" * 1000, "number": number} for number in range(100)],
    "count": 3,
}


def rendered(source: str) -> str:
    return Template(source, SEEN.keys()).render(SEEN, Budget())


def refusal(source: str) -> str:
    with pytest.raises(TemplateError) as caught:
        Template(source, SEEN.keys())
    return str(caught.value)


def failure(source: str) -> str:
    template = Template(source, SEEN.keys())
    with pytest.raises(TemplateError) as caught:
        template.render(SEEN, Budget())
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("plain {# but for this #}text\n", "plain text\n"),
        ("{{ title }}", SEEN["title"]),
        ("{{ data.name|upper ~ count ~ data.fine_tune }}", "ADA3"),
        ("{% if data.fine_tune %}{{ data.fine_tune.name }}{% else %}none{% endif %}", "none"),
        ("{{ data.fine_tune or 'none' }}", "none"),
        ("{{ data.nobody|default('nobody') }}", "nobody"),
        ("{{ 'many' if count > 2 else 'few' }}", "many"),
        ("{{ count + 1 }} {{ count - 1 }} {{ 7 // 2 }} {{ 'a' + 'b' }}", "4 2 3 ab"),
        ("{{ text|truncate(8) }}", "xxxxx..."),
        ("{{ text[:3] }}", "xxx"),
        ("{{ data|tojson }}", '{"fine_tune": null, "name": "Ada"}'),
        ("{{ '<&>'|e }}", "&lt;&amp;&gt;"),
        ("{% for name, value in data|items %}{{ name }} {% endfor %}", "fine_tune name "),
        (
            "{% for e in events[:3] %}{{ e.number }}{{ ', ' if not loop.last }}{% endfor %}",
            "0, 1, 2",
        ),
        ("{% for e in events if e.number < 2 %}{{ loop.index }}{% endfor %}", "12"),
        ("{{ events[:3]|map(attribute='number')|join('-') }}", "0-1-2"),
        ("{% set first = events|first %}{{ first.number }}", "0"),
        ("{{ events|selectattr('number', 'gt', 97)|list|length }}", "2"),
        ("{{ count in [1, 3] }} {{ (1, 2)|join }}", "True 12"),
    ],
)
def test_what_is_in_the_language(source, shown):
    assert rendered(source) == shown


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ title.upper() }}", "must not use a call; use filters"),
        ("{{ range(10) }}", "must not use a call"),
        ("{% for e in events recursive %}{{ loop(events) }}{% endfor %}", "must not use a call"),
        ("{{ 'x' * 1000000000 }}", "must not use *"),
        ("{{ 9 ** 99999999 }}", "must not use **"),
        ("{{ '%999999999d' % 1 }}", "must not use %"),
        (
            "{{ title|center(1000000000) }}",
            'must not use the filter "center"; the filters here are',
        ),
        ("{{ '%999999999d'|format(1) }}", 'must not use the filter "format"'),
        ("{{ title|indent(1000000000) }}", 'must not use the filter "indent"'),
        ("{{ title|attr('upper') }}", 'must not use the filter "attr"'),
        ("{{ events|random }}", 'must not use the filter "random"'),
        ("{{ title|upper(*events) }}", "must not use * or ** before an argument"),
        ("{% set all = [text, text] %}", "must not use variables in a list"),
        ("{{ {'a': 1} }}", "must not use a map in braces"),
        ("{% macro a() %}{% endmacro %}", "must not use macro"),
        ("{% include 'other' %}", "must not use include"),
        ("{% import 'other' as other %}", "must not use import"),
        ("{% extends 'other' %}", "must not use extends"),
        ("{% set x %}{{ text }}{% endset %}", "must not use assignblock"),
        ("{% filter upper %}{% endfilter %}", "must not use filterblock"),
        ("{{ namespace }}", 'must not use the name "namespace"'),
        ("{{ self }}", 'must not use the name "self"'),
        ("{{ budget }}", 'must not use the name "budget"'),
        (
            "{% if false %}{{ titel }}{% endif %}",
            'must not use the name "titel"; the names here are title, text, data, events, count',
        ),
        ("{{ title", "is not valid Jinja2: unexpected end of template"),
        ("{{ title }", "is not valid Jinja2: unexpected '}'"),
        ("{% hunter2 %}", "is not valid Jinja2: Encountered unknown tag."),
        ("{{ a hunter2 }}", "is not valid Jinja2: expected token 'end of print statement'"),
    ],
)
def test_what_is_not_in_the_language_is_told_by_its_line(source, problem):
    assert refusal(source).startswith(f"line 1: {problem}")
    assert refusal(f"\n\n{source}").startswith("line 3: ")
    assert "hunter2" not in refusal(source)


@pytest.mark.parametrize(
    "source", ["{{ " + "(" * 2000, "{{ " + "-" * 5000 + "1 }}", "{% if 1 %}" * 1000]
)
def test_nesting_without_end_is_refused(source):
    assert "nested too deeply" in refusal(source) or "valid Jinja2" in refusal(source)


def test_a_number_that_nobody_could_print_is_refused():
    assert refusal("{{ 1" + "0" * 5000 + " }}") == "holds a number that is too large"


def test_a_template_that_is_too_long_is_refused():
    assert Template("x" * LONGEST_SOURCE, ())
    assert refusal("x" * (LONGEST_SOURCE + 1)) == "must be at most 16384 characters long"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ data.fine_tune.name }}", "'None' has no attribute 'name'"),
        ("{{ data.nobody }}", "'dict object' has no attribute 'nobody'"),
        ("{% if data.nobody %}{% endif %}", "'dict object' has no attribute 'nobody'"),
        ("{{ title.__class__ }}", "access to attribute '__class__'"),
        ("{{ title['__class__'] }}", "access to attribute '__class__'"),
        ("{{ events|map(attribute='__class__')|join }}", "access to attribute '__class__'"),
        ("{{ events|map('center', 1000000000)|join }}", "No filter named 'center'"),
        ("{{ data }}", "prints what is no text"),
        ("{{ title.upper }}", "prints what is no text"),
        ("{{ [1, 2] }}", "prints what is no text"),
        ("{{ 1 / 0 }}", "cannot be evaluated (ZeroDivisionError)"),
        ("{{ title - 1 }}", "cannot be evaluated (TypeError)"),
        ("{{ title + 1 }}", "adds what is neither two texts nor two numbers"),
        ("{{ data|tojson(indent=1000000000) }}", "cannot be evaluated (TypeError)"),
        ("{% for letter in text %}{% endfor %}", "loops over a text"),
    ],
)
def test_what_cannot_be_evaluated_is_told_by_its_line(source, problem):
    assert failure(source).startswith(f"line 1: {problem}")
    assert failure(f"{{{{ title }}}}\n\n{source}").startswith("line 3: ")


DOUBLED = "{% set a = text %}" + "{% set a = a ~ a %}" * 60
GROWS = [
    DOUBLED + "{{ a }}",
    DOUBLED.replace("a ~ a", "a + a") + "{{ a }}",
    DOUBLED.replace("a ~ a", "a|replace('x', text)"),
    DOUBLED.replace("a ~ a", "a|join(text)"),
    DOUBLED.replace("a ~ a", "a|urlencode|escape|replace('', text)"),
    "{{ text|replace('x', text)|replace('x', text)|replace('x', text) }}",
    "{{ events|map(attribute='text')|map('replace', 'y', text)|join(text) }}",
    "{% for a in events %}{% for b in events %}{{ text }}{% endfor %}{% endfor %}",
    "{% for a in events %}" + "y" * 10_000 + "{% endfor %}",
]
LASTS = [
    "{% for a in events %}{% for b in events %}"
    + "{% if title == text %}{% endif %}" * 300
    + "{% endfor %}{% endfor %}",
    "{% for a in events %}" * 5 + "{% endfor %}" * 5,
    "{% for a in events %}" * 3 + "{{ title|upper|lower|length }}" * 50 + "{% endfor %}" * 3,
    "{% for a in events %}{% for b in events %}{% set c = text ~ text %}{% endfor %}{% endfor %}",
    "{% set a = text ~ text ~ text %}" * 400,
    "{% for a in events %}{% if text|sort|length %}{% endif %}" * 2 + "{% endfor %}" * 2,
]


@pytest.mark.parametrize("source", GROWS)
def test_no_template_makes_a_text_without_end(source):
    assert f"makes more than {LONGEST_TEXT} characters" in failure(source)


@pytest.mark.parametrize("step", ["a|join(a)", "a|replace('x', a)", "a|list|join(a)"])
def test_what_is_too_long_is_not_made_before_it_is_refused(step):
    template = Template(f"{{% set a = text ~ text ~ text ~ text %}}{{{{ {step} }}}}", SEEN.keys())
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError, match="makes more than"):
            template.render(SEEN, Budget())
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("source", LASTS)
def test_no_template_runs_without_end(source):
    template = Template(source, SEEN.keys())
    begun = time.process_time()
    with pytest.raises(TemplateError, match="takes too much work"):
        template.render(SEEN, Budget())
    assert time.process_time() - begun < 5


def test_what_is_too_long_is_left_before_it_is_made():
    """A stream of output that is cut at its end only would hold all of it first."""
    turns = []

    class Counted(list[Any]):
        def __iter__(self):
            for item in range(100):
                turns.append(item)
                yield item

    template = Template("{% for e in events %}{{ text }}{% endfor %}", SEEN.keys())
    seen = {**SEEN, "text": "x" * LONGEST_TEXT, "events": Counted(range(100))}
    with pytest.raises(TemplateError, match="makes more than"):
        template.render(seen, Budget())
    assert len(turns) < 10


def test_a_budget_is_shared_by_what_is_rendered_on_it():
    template, budget = Template("{{ text|upper }}", SEEN.keys()), Budget(2500)
    template.render(SEEN, budget)
    template.render(SEEN, budget)
    with pytest.raises(TemplateError, match="takes too much work"):
        template.render(SEEN, budget)


PIECES = ["{{", "}}", "{%", "%}", "for e in events", "endfor", "if", "endif", "set a =", "title"]
PIECES += ["text", "~", "|", "upper", "join(text)", "replace('x', text)", "*", "[", "]", "(", ")"]
PIECES += ["data.", "fine_tune", "1", "in", "not", "e.text", "a", "+", "-", ",", "is", "defined"]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join) | st.text(max_size=60))
def test_any_text_is_refused_or_rendered_within_bounds(source):
    try:
        shown = rendered(source)
    except TemplateError as error:
        assert len(str(error)) < 700  # noqa: PT017 - either outcome is fine
    else:
        assert len(shown) <= LONGEST_TEXT
