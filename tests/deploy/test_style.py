"""Scripts, YAML and workflows are what their linters ask for."""

import re

import yaml

from tests.deploy.tools import ROOT, assert_clean

WORKFLOWS = ROOT / ".github" / "workflows"


def test_shellcheck_finds_nothing():
    scripts = [
        ROOT / ".ci" / "run",
        *(ROOT / "tests").rglob("*.sh"),
        *(ROOT / "deploy").rglob("*.sh"),
    ]
    assert len(scripts) >= 2
    assert_clean("shellcheck", *scripts)


def test_ci_installs_every_program_that_the_tests_drive():
    """There a missing one fails its tests, where it skips them elsewhere."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = {name for text in sources for name in re.findall(r'package="([a-z-]+)"', text)}
    essential = {"dash", "gzip"}  # every Debian has them
    assert {"chromium", "prometheus"} <= named
    of_the_test_of_it = {"a-package"}
    missing = named - essential - of_the_test_of_it
    assert {name for name in missing if not re.search(rf"[( ]{name}[ )]", script)} == set()


def test_yamllint_finds_nothing():
    folders = ("deploy", "tests", ".github")
    assert_clean("yamllint", "--strict", *folders, "config.example.yaml", ".yamllint")


def test_the_workflows_are_valid_and_give_nobody_more_than_they_need():
    schema = "--builtin-schema=vendor.github-workflows"
    assert_clean("check-jsonschema", schema, *WORKFLOWS.iterdir())
    updates = WORKFLOWS.parent / "renovate.json"
    assert_clean("check-jsonschema", "--builtin-schema=vendor.renovate", updates)
    assert_clean("zizmor", "--offline", "--pedantic", "--no-progress", "--quiet", WORKFLOWS.parent)


def test_what_the_workflows_run_is_there_and_what_they_use_is_pinned_by_its_hash():
    text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS.iterdir())
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    made = re.findall(r"\bmake ([\w-]+)$", text, re.MULTILINE)
    assert {"dist", "sbom", "test-container"} == set(made)
    assert [target for target in made if f"\n{target}:" not in targets] == []
    used = re.findall(r"uses: (.+)", text)
    assert [name for name in used if not re.fullmatch(r"\S+@[0-9a-f]{40} # v[\d.]+", name)] == []


def test_nothing_is_released_that_was_not_tested():
    jobs = yaml.safe_load((WORKFLOWS / "release.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["test"]["steps"][-1] == {"run": ".ci/run"}
    assert (jobs["build"]["needs"], jobs["publish"]["needs"]) == ("test", "build")


def test_every_supported_python_is_in_the_matrix_and_no_other():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    supported = re.findall(r"Programming Language :: Python :: (3\.\d+)", project)
    workflow = yaml.safe_load((WORKFLOWS / "ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == supported
