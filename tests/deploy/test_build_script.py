"""scripts/build with a `docker` of our own: the names and labels that it gives to images."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# An image is a file below $IMAGES that holds its id, which is that of its arguments and content.
DOCKER = r"""#!/bin/bash
file() { printf '%s/%s' "$IMAGES" "${1//[:\/]/_}"; }
case "$1 $2" in
"info "*) ;;
build*)
    while [ $# -gt 0 ]; do
        case $1 in
        --build-arg) arguments+="$2 " ;;
        --tag) tags+=("$2") ;;
        esac
        shift
    done
    id=sha256:$(cat <(echo "$arguments") kronos_api/*.py | sha256sum | cut -c 1-64)
    for tag in "${tags[@]}"; do echo "$id" >"$(file "$tag")"; done
    echo "$arguments" >>"$IMAGES.built"
    ;;
"image inspect") case $4 in *Size*) echo 1 ;; *) cat "$(file "$5")" ;; esac ;;
tag*) cp "$(file "$2")" "$(file "$3")" ;;
*) exit 1 ;;
esac
"""


class Tree:
    """A checkout with the files that the images are made of."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self.images = folder / "images"
        self.images.mkdir()
        (folder / "bin").mkdir()
        docker = folder / "bin" / "docker"
        docker.write_text(DOCKER)
        docker.chmod(0o755)
        named = ("GIT_", "BUILD_DATE", "TORCH")
        own = {"PATH": f"{docker.parent}:{os.environ['PATH']}", "IMAGES": str(self.images)}
        known = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(named)}
        self.env = kept | own | known
        self.source = self.root / "kronos_api" / "main.py"
        self.write(self.source, "first = 1\n")
        for name in (".dockerignore", ".gitignore", "Dockerfile", "Dockerfile.production"):
            shutil.copy2(ROOT / name, self.root)
        for name in ("scripts/build", "pyproject.toml", "README.md", "LICENSE"):
            (self.root / name).parent.mkdir(exist_ok=True)
            shutil.copy2(ROOT / name, self.root / name)
        for name in ("build.txt", "complete.txt", "runtime.txt"):
            self.write(self.root / "requirements" / name, "")
        self.git("init", "--quiet")
        self.git("add", "--all")
        user = ("-c", "user.name=a", "-c", "user.email=a@example")
        self.git(*user, "commit", "--quiet", "--message", "one")
        self.commit = self.git("rev-parse", "--short=12", "HEAD")

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.check_output(command, cwd=self.root, env=self.env, text=True).strip()

    def build(self, **variables: str) -> tuple[str, str]:
        """The build's arguments, and what was printed on stderr."""
        done = subprocess.run(
            ["scripts/build", "--only", "production", "--no-audit"],
            cwd=self.root,
            env=self.env | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return Path(f"{self.images}.built").read_text().splitlines()[-1], done.stderr

    def tags(self) -> dict[str, str]:
        """Ids of the images by tag, without the one that moves."""
        named = {path.name: path.read_text() for path in self.images.iterdir()}
        return {name: named[name] for name in named if not name.endswith("current")}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_clean_tree_is_named_after_its_commit(tree: Tree) -> None:
    arguments, warned = tree.build()
    assert f"GIT_COMMIT={tree.commit} " in arguments
    assert warned == ""
    (tree.root / "docs").mkdir()
    (tree.root / "docs" / "page.md").write_text("goes into no image")
    (tree.source.parent / "__pycache__").mkdir()
    (tree.source.parent / "__pycache__" / "main.cpython-311.pyc").write_text("")
    assert tree.build() == (arguments, "")


def test_dirty_tree_is_named_after_its_content(tree: Tree) -> None:
    clean, _ = tree.build()
    tree.source.write_text("first = 2\n")
    dirty, warned = tree.build()
    assert f"GIT_COMMIT={tree.commit}-dirty-" in dirty
    assert "the working tree is dirty" in warned
    assert "kronos_api/main.py" in warned
    os.utime(tree.source, (1, 1))
    assert tree.build()[0] == dirty
    (tree.source.parent / "untracked.py").write_text("")
    other, _ = tree.build()
    (tree.source.parent / "untracked.py").unlink()
    tree.source.chmod(0o755)
    executable, _ = tree.build()
    assert len({clean, dirty, other, executable}) == 4
    assert len(set(tree.tags().values())) == len(tree.tags()) == 4


def test_files_that_git_ignores_and_docker_takes_make_a_tree_dirty(tree: Tree) -> None:
    tree.write(tree.source.parent / "build" / "left.txt", "left")
    arguments, warned = tree.build()
    assert "-dirty-" in arguments
    assert "kronos_api/build/" in warned


def test_version_tag_never_moves(tree: Tree) -> None:
    tree.build()
    before = tree.tags()
    tree.build(TORCH="2.13.0")
    after = tree.tags()
    assert before.items() < after.items()
    (new,) = after.keys() - before.keys()
    assert new.endswith(f"-{after[new][7:19]}")


def test_tree_without_git_is_named_after_its_content(tree: Tree) -> None:
    shutil.rmtree(tree.root / ".git")
    first, _ = tree.build()
    assert "GIT_COMMIT=unknown-" in first
    assert tree.build()[0] == first
    tree.source.write_text("first = 2\n")
    assert tree.build()[0] != first
