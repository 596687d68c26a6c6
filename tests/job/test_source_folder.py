"""Packages of a project are found where its pyproject.toml says, or in src."""

import subprocess
import sys

import pytest

from distrib.errors import JobError
from distrib.job.reader import Job
from distrib.job.source_folder import source_folder
from distrib.job.target import add_import_paths, resolve

JOB = """
name: own
model: own_package.models:Net
data: {train: own_package.models:Net, batch_size: 8}
loss: own_package.models:Net
optimizer: own_package.models:Net
train: {steps: 1}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "project" / "jobs").mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").write_text("[project]\nname = 'own'\n")
    (tmp_path / "project" / "jobs" / "job.yaml").write_text(JOB)
    return tmp_path / "project"


def add_package(project, source):
    (project / source / "own_package").mkdir(parents=True)
    (project / source / "own_package" / "__init__.py").write_text("")
    (project / source / "own_package" / "models.py").write_text("class Net: pass\n")


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("src", ""),
        ("lib", "[tool.setuptools.packages.find]\nwhere = ['lib']\n"),
        ("lib", "[tool.setuptools.package-dir]\n'' = 'lib'\n"),
        ("lib", "[tool.hatch.build.targets.wheel]\npackages = ['lib/own_package']\n"),
        ("lib", "[[tool.poetry.packages]]\ninclude = 'own_package'\nfrom = 'lib'\n"),
        ("src", "this is [not TOML\n"),
        ("src", "[tool.setuptools]\npackage-dir = 3\n[tool.setuptools.packages.find]\nwhere = 4\n"),
    ],
)
def test_where_the_source_folder_is(project, source, settings):
    add_package(project, source)
    (project / "pyproject.toml").write_text(settings)
    assert source_folder(project / "jobs") == (project / source).resolve()


def test_no_source_folder(project, tmp_path):
    assert source_folder(project / "jobs") is None  # packages lie beside pyproject.toml
    (project / "jobs" / "pyproject.toml").write_text("")
    (project / "src").mkdir()
    assert source_folder(project / "jobs") is None  # the nearest project counts
    assert source_folder(tmp_path) is None


def test_a_job_of_a_src_layout_is_found_from_anywhere(project, tmp_path):
    add_package(project, "src")
    code = f"""
from pathlib import Path
from distrib.job.reader import Job
from distrib.job.target import add_import_paths, resolve
job = Job.load({str(project / "jobs" / "job.yaml")!r})
add_import_paths(job, Path.cwd())
print(resolve(job, "model", job.spec.model).__module__)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("own_package.models\n", "")


def test_a_missing_module_is_reported_with_the_source_folder(project, monkeypatch):
    (project / "src").mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    job = Job.load(project / "jobs" / "job.yaml")
    add_import_paths(job, project)
    with pytest.raises(JobError) as caught:
        resolve(job, "model", job.spec.model)
    assert str(project / "src") in str(caught.value)
