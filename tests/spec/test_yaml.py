import pytest

from hybrid_sweep.errors import UserError
from hybrid_sweep.spec.yaml import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("0.40", 0.4),
        ("-.5", -0.5),
        ("010", 10),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("", None),
        ("null", None),
        ("[50, 75]", [50, 75]),
        ("1:30", "1:30"),
        ("2026-11-23", "2026-11-23"),
        ("my.py:Net", "my.py:Net"),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_values_mean_what_they_show(text, value):
    parsed = parse_yaml(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3"),
        ("a: 1\nb: 2\na: 3\n", "line 3"),
        ("a: 1\n7: 2\n", "line 2"),
        ("a: 1\n\tb: 2\n", "line 2"),
        ("a: !!python/object:os.system {}\n", "line 1"),
    ],
)
def test_what_is_not_a_sweep_file_is_refused_with_its_line(text, line):
    with pytest.raises(UserError, match=rf"my\.yaml, {line}: "):
        parse_yaml(text, "my.yaml")


def test_control_characters_are_refused_with_the_source():
    with pytest.raises(UserError, match=r"my\.yaml is not YAML"):
        parse_yaml("a: \x00", "my.yaml")
