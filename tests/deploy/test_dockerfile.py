"""Checks of the Dockerfile without a build; `make test-container` builds it."""

import re
from pathlib import PurePath
from urllib.parse import urlsplit

from tests.deploy.tools import DEPLOY, ROOT, assert_tool_passes, parse_flags

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
TEXT = DOCKERFILE.read_text(encoding="utf-8")


def test_the_dockerfile_passes_hadolint():
    assert_tool_passes("hadolint", DOCKERFILE)


def test_copied_files_exist_and_are_not_ignored():
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.MULTILINE)
    copied = {name for line in lines for name in line.split()}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {name for name in copied if (ROOT / name).exists()} == copied
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert "*" in ignored  # keeps keys, state and history of the clone out of the layers


def test_every_installed_package_is_pinned_by_hash():
    for installed in re.findall(r"install [^&]*", TEXT.replace("\\\n", "")):
        assert (
            "--require-hashes" in installed
            or "--no-index" in installed
            or "--directory" in installed
        )
    for lock in ("requirements.lock", "requirements-build.lock"):
        assert lock in TEXT


def test_both_stages_use_the_same_supported_python():
    (python,) = set(re.findall(r"^FROM docker\.io/library/python:(\S+)-slim", TEXT, re.MULTILINE))
    assert f'"Programming Language :: Python :: {python}"' in (ROOT / "pyproject.toml").read_text()


def test_the_health_check_is_a_valid_command():
    (command,) = re.findall(r'CMD \["cartesia-exporter", "(\w+)"\]', TEXT)
    page = urlsplit(parse_flags(command)["url"])
    exposed = re.findall(r"^EXPOSE (\d+)$", TEXT, re.MULTILINE)
    assert [str(page.port)] == exposed
    assert PurePath(page.path) == PurePath("/-/healthy")
