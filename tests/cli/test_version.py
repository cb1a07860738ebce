"""The commit that `--version` names."""

import re
import shutil
import subprocess

import pytest

from exporter.cli.version import commit_of_tree, version_text
from tests.programs import required


@pytest.fixture
def tree(tmp_path):
    """A git working tree with one commit."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "file").write_text("one")
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run([required("git", package="git"), *command], cwd=root, check=True)
    return root


def test_a_working_tree_has_its_commit_and_says_when_files_changed(tree):
    commit = commit_of_tree(tree)
    assert re.fullmatch("[0-9a-f]{12}", commit)
    (tree / "untracked").touch()
    assert commit_of_tree(tree) == commit
    (tree / "file").write_text("two")
    assert commit_of_tree(tree) == f"{commit}-dirty"


def test_a_tag_does_not_replace_the_commit(tree):
    commit = commit_of_tree(tree)
    subprocess.run(["git", "tag", "v1"], cwd=tree, check=True)
    assert commit_of_tree(tree) == commit


def test_a_tree_without_git_has_no_commit(tree, monkeypatch):
    unpacked = tree / "unpacked"
    unpacked.mkdir()
    assert commit_of_tree(unpacked) == "", "the repository around it is another one"
    monkeypatch.setenv("PATH", "/nonexistent")
    assert commit_of_tree(tree) == ""
    monkeypatch.undo()
    shutil.rmtree(tree / ".git" / "objects")
    assert commit_of_tree(tree) == ""


@pytest.mark.parametrize(
    ("content", "text"), [("0123456789ab\n", "1.2 (commit 0123456789ab)"), (None, "1.2")]
)
def test_the_version_names_the_commit_of_the_build(tmp_path, monkeypatch, content, text):
    monkeypatch.setattr("exporter.cli.version._PACKAGE", tmp_path)
    if content is not None:
        (tmp_path / "COMMIT").write_text(content)
    assert version_text("1.2") == text
