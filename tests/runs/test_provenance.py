"""Where a run comes from."""

import subprocess
import sys
from importlib import metadata

import pytest

from distrib.runs.provenance import collect_provenance

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]


@pytest.fixture
def repository(tmp_path):
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        (tmp_path / "job.yaml").write_text("name: a")
        subprocess.run([*GIT, *command], cwd=tmp_path, check=True)
    return tmp_path


def test_versions_machine_and_command(tmp_path):
    provenance = collect_provenance(tmp_path, ["distrib", "run", "job.yaml"])
    assert provenance["git"] is None
    assert provenance["torch"] == metadata.version("torch")
    assert provenance["command"] == ["distrib", "run", "job.yaml"]
    assert provenance["num_cpus"] >= 1


def test_the_commit_and_whether_files_differ_from_it(repository):
    head = subprocess.run([*GIT, "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    (repository / "runs").mkdir()
    (repository / "runs" / "new").touch()
    assert collect_provenance(repository, [])["git"] == {"commit": head.stdout.strip(), "dirty": False}
    (repository / "job.yaml").write_text("name: b")
    assert collect_provenance(repository, [])["git"]["dirty"]


def test_without_git_or_folder_there_is_no_commit(repository, monkeypatch):
    assert collect_provenance(repository / "missing", [])["git"] is None
    monkeypatch.setenv("PATH", "")
    assert collect_provenance(repository, [])["git"] is None


def test_nothing_heavy_is_imported():
    code = "import sys, distrib.runs.record, distrib.runs.provenance as p; from pathlib import Path; \
p.collect_provenance(Path('.'), []); print([m for m in ('torch', 'ray', 'pydantic') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
