"""A missing program skips a test with word of how to get it, and fails it in CI."""

import pytest

from tests.programs import required


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [("true", pytest.fail.Exception), ("", pytest.skip.Exception), ("0", pytest.skip.Exception)],
)
def test_a_missing_program_fails_in_ci_and_skips_elsewhere(monkeypatch, ci, outcome):
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="apt-get install a-package"):
        required("a-program-that-nobody-has", package="a-package")


def test_what_no_package_of_debian_has_is_explained(monkeypatch):
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match=r"not on PATH; ask a neighbour$"):
        required("a-program-that-nobody-has", otherwise="ask a neighbour")


def test_a_program_that_is_there_is_found(monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert required("sh", package="dash").endswith("/sh")
