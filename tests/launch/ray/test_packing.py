"""What of a working directory is sent to a cluster."""

import pytest

from distrib.compat.ray.packaging import shipped_sizes
from distrib.errors import JobError
from distrib.job.script import Script, ScriptJob
from distrib.launch.ray.cluster.packing import EXCLUDED, check_size, path_in


@pytest.fixture
def folder(tmp_path):
    for path, size in {
        "job.yaml": 10,
        "code/model.py": 20,
        "code/__pycache__/model.pyc": 30,
        ".git/pack": 40,
        "runs/a/model.safetensors": 50,
        ".venv/lib/torch.so": 60,
        "data/big.bin": 70,
        "ignored/x": 80,
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x" * size)
    (tmp_path / ".rayignore").write_text("ignored/\n")
    return tmp_path


def test_code_and_data_are_sent_and_histories_runs_environments_and_what_is_ignored_are_not(folder):
    sizes = shipped_sizes(str(folder), EXCLUDED)
    sizes.pop(".rayignore", None)
    assert sizes == {"job.yaml": 10, "code/model.py": 20, "data/big.bin": 70}


def test_too_big_a_folder_is_refused_with_its_biggest_files(folder, monkeypatch):
    from ray._private.runtime_env import packaging

    check_size(str(folder))
    monkeypatch.setattr(packaging, "GCS_STORAGE_MAX_SIZE", 99)
    with pytest.raises(JobError, match=r"\.rayignore") as error:
        check_size(str(folder))
    assert str(error.value).splitlines()[1].endswith("data/big.bin")


def test_a_sparse_file_over_the_real_limit_is_refused(folder):
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(600 * 2**20)
    with pytest.raises(JobError, match=r"holds 600 MiB, and Ray sends at most 512 MiB") as error:
        check_size(str(folder))
    assert "huge.bin" in str(error.value)


def test_a_script_of_another_folder_is_refused(folder, monkeypatch):
    monkeypatch.chdir(folder / "code")
    path_in(str(folder / "code"), ScriptJob.of_command(Script(file=str(folder / "code" / "model.py"))))
    (folder / "train.py").touch()
    with pytest.raises(JobError, match=r"\.\./train\.py: is outside of the working directory"):
        path_in(str(folder / "code"), ScriptJob.of_command(Script(file="../train.py")))
