"""A missing program skips a test, and fails it in CI."""

import pytest

from tests.programs import required


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [("true", pytest.fail.Exception), ("", pytest.skip.Exception), ("0", pytest.skip.Exception)],
)
def test_a_missing_program_fails_in_ci_and_skips_elsewhere(monkeypatch, ci, outcome):
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="apt-get install a-package"):
        required("a-missing-program", package="a-package")


def test_the_message_explains_a_program_without_a_package(monkeypatch):
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match=r"not on PATH; build it from source$"):
        required("a-missing-program", otherwise="build it from source")


def test_an_installed_program_is_found(monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert required("sh", package="dash").endswith("/sh")
