"""Scripts, YAML files and workflows pass their linters."""

import re

import yaml

from tests.deploy.schemas import assert_files_conform
from tests.deploy.tools import ROOT, assert_tool_passes

WORKFLOWS = ROOT / ".github" / "workflows"


def test_scripts_pass_shellcheck():
    scripts = [
        ROOT / ".ci" / "run",
        *(ROOT / "tests").rglob("*.sh"),
        *(ROOT / "deploy").rglob("*.sh"),
    ]
    assert len(scripts) >= 2
    assert_tool_passes("shellcheck", *scripts)


def test_ci_installs_every_program_that_the_tests_use():
    """A missing program fails its tests in CI, and skips them elsewhere."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = {name for text in sources for name in re.findall(r'package="([a-z-]+)"', text)}
    essential = {"dash", "gzip", "util-linux"}  # every Debian has them
    assert {"chromium", "prometheus"} <= named
    only_in_its_own_test = {"a-package"}
    missing = named - essential - only_in_its_own_test
    assert {name for name in missing if not re.search(rf"[( ]{name}[ )]", script)} == set()


def test_yaml_files_pass_yamllint():
    folders = ("deploy", "tests", ".github")
    assert_tool_passes("yamllint", "--strict", *folders, "config.example.yaml", ".yamllint")


def test_the_workflows_are_valid_and_secure():
    assert_files_conform("github-workflows", *WORKFLOWS.iterdir())
    assert_files_conform("renovate", WORKFLOWS.parent / "renovate.json")
    assert_tool_passes(
        "zizmor", "--offline", "--pedantic", "--no-progress", "--quiet", WORKFLOWS.parent
    )


def test_workflows_run_existing_targets_and_pin_actions_by_hash():
    text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS.iterdir())
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    run_by_workflows = re.findall(r"\bmake ([\w-]+)$", text, re.MULTILINE)
    assert {"dist", "sbom", "test-container"} == set(run_by_workflows)
    assert [target for target in run_by_workflows if f"\n{target}:" not in targets] == []
    used = re.findall(r"uses: (.+)", text)
    assert [name for name in used if not re.fullmatch(r"\S+@[0-9a-f]{40} # v[\d.]+", name)] == []


def test_a_release_needs_passing_tests():
    jobs = yaml.safe_load((WORKFLOWS / "release.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["test"]["steps"][-1] == {"run": ".ci/run"}
    assert (jobs["build"]["needs"], jobs["publish"]["needs"]) == ("test", "build")


def test_the_matrix_has_exactly_the_supported_pythons():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    supported = re.findall(r"Programming Language :: Python :: (3\.\d+)", project)
    workflow = yaml.safe_load((WORKFLOWS / "ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == supported
