"""Targets are resolved and their arguments checked, with every kind of mistake in the user's code."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distrib.errors import JobError
from distrib.job.reader import Job
from distrib.job.spec.targets import Target
from distrib.job.target import add_import_paths, check_arguments, resolve

Modules = Callable[[str, str], None]


@pytest.fixture
def paths() -> Iterator[list[str]]:
    """`sys.path`, as it was again afterwards."""
    kept = list(sys.path)
    yield sys.path
    sys.path[:] = kept


@pytest.fixture
def find(job: Job, modules: Modules, folder: Path) -> Callable[[str], Any]:
    """`find("module:attribute")` as the model of the job."""
    add_import_paths(job, folder)
    return lambda target: resolve(job, "model", Target(target=target))


@pytest.fixture
def refuse(find: Callable[[str], Any]) -> Callable[[str], str]:
    """`refuse("module:attribute")`: the message of the error, which must be placed at the model."""

    def refuse(target: str) -> str:
        with pytest.raises(JobError) as caught:
            find(target)
        assert str(caught.value).startswith("job.yaml:3: model: ")
        return caught.value.message

    return refuse


def test_import_paths_come_first_and_once(folder: Path, text: str, paths: list[str]) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "job.yaml").write_text(text)
    job = Job.load("sub/job.yaml")
    before = list(paths)
    paths.append(str(folder))
    for _ in range(2):
        add_import_paths(job, folder)
        assert paths == [str(folder), str(folder / "sub"), *before]


def test_one_import_path_where_both_are_the_same(job: Job, folder: Path, paths: list[str]) -> None:
    before = list(paths)
    add_import_paths(job, folder)
    assert paths == [str(folder), *before]


def test_a_target_is_found(find: Callable[[str], Any], modules: Modules) -> None:
    modules("work/digits.py", "class Mlp:\n    class Inner: pass\n\n    @classmethod\n    def make(cls): return 3\n")
    assert find("work.digits:Mlp").__name__ == "Mlp"
    assert find("work.digits:Mlp.Inner").__qualname__ == "Mlp.Inner"
    assert find("work.digits:Mlp.make")() == 3
    assert find("collections:OrderedDict").__name__ == "OrderedDict"


def test_a_missing_module_is_named(refuse: Callable[[str], str], modules: Modules, folder: Path) -> None:
    modules("work/digits.py", "")
    assert refuse("nowhere:Mlp").startswith(f"there is no module 'nowhere' in {folder}, and none is installed; ")
    assert "the module jobs.digits is" in refuse("nowhere:Mlp")
    assert refuse("wrok.digits:Mlp") == "there is no module 'wrok' (part of 'wrok.digits'); did you mean 'work'?"
    assert refuse("work.digit:Mlp") == "there is no module 'work.digit'; did you mean 'work.digits'?"
    assert refuse("work.other:Mlp").startswith("there is no module 'work.other' in work; ")
    assert refuse("work.digits.deep:Mlp").startswith("there is no module 'work.digits.deep'")
    assert "write 'digits', without .py" in refuse("digits.py:Mlp")


def test_a_missing_attribute_is_named(refuse: Callable[[str], str], modules: Modules) -> None:
    modules("work/digits.py", "class Mlp:\n    wide = 3\n")
    modules("empty.py", "")
    assert refuse("work.digits:MLP") == "'work.digits:MLP': work.digits has no 'MLP'; did you mean 'Mlp'?"
    assert refuse("work.digits:Other") == "'work.digits:Other': work.digits has no 'Other'; it has Mlp"
    assert refuse("work.digits:Mlp.wid") == "'work.digits:Mlp.wid': Mlp has no 'wid'; did you mean 'wide'?"
    assert refuse("empty:Mlp") == "'empty:Mlp': empty has no 'Mlp', or any other public name"
    assert refuse("work:digits_.Mlp").startswith("'work:digits_.Mlp': work has no 'digits_'")


def test_a_module_in_the_place_of_an_attribute(refuse: Callable[[str], str], modules: Modules) -> None:
    modules("package/__init__.py", "")
    modules("package/models.py", "class Mlp: pass\n")
    assert refuse("package:models.Mlp").endswith("but there is a module of that name; write 'package.models:Mlp'")


def test_what_cannot_be_called_is_refused(refuse: Callable[[str], str], modules: Modules) -> None:
    modules("values.py", "WIDTH = 3\n")
    assert refuse("values:WIDTH").startswith("'values:WIDTH' is of type int and cannot be called; name a class")


@pytest.mark.parametrize(
    ("code", "line", "expected"),
    [
        ("x = 1\nraise ValueError('no luck')\n", 2, "ValueError: no luck"),
        ("def f():\n    return {}['k']\n\nf()\n", 2, "KeyError: 'k'"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError: Expecting property name"),
        ("import sys\nsys.exit('bye')\n", 2, "SystemExit: bye"),
        ("x = (\n", 1, "SyntaxError: '(' was never closed"),
        ("import not_installed_anywhere.part\n", 1, "install 'not_installed_anywhere' on every host that runs ranks"),
        ("import broken.deeper\n", 1, "ModuleNotFoundError: No module named 'broken.deeper'"),
        ("from os import nothing_of_this_name\n", 1, "ImportError: cannot import name"),
    ],
)
def test_a_module_that_fails_names_its_line(
    refuse: Callable[[str], str], modules: Modules, folder: Path, code: str, line: int, expected: str
) -> None:
    modules("broken.py", code)
    message = refuse("broken:Mlp")
    assert message.startswith("importing 'broken' fails: ")
    assert expected in message
    assert f"({folder / 'broken.py'}:{line})" in message


def test_a_package_that_lacks_a_package_is_not_itself_missing(refuse: Callable[[str], str], modules: Modules) -> None:
    modules("outer/__init__.py", "import outer.inner.missing\n")
    modules("outer/inner/__init__.py", "")
    assert "importing 'outer.inner.missing' fails: ModuleNotFoundError" in refuse("outer.inner.missing:Mlp")


def test_a_module_whose_attributes_fail(refuse: Callable[[str], str], modules: Modules) -> None:
    modules("lazy.py", "def __getattr__(name):\n    raise RuntimeError('not today')\n")
    assert refuse("lazy:Mlp") == "'lazy:Mlp' cannot be read from its module: RuntimeError: not today"


def model(hidden: int, *, width: int = 3) -> None: ...
def free(first: int, /, second: int, **others: int) -> None: ...
def listing(*values: int, scale: float = 1.0) -> None: ...


class Model:
    def __init__(self, params: object, lr: float = 0.1) -> None: ...


@pytest.mark.parametrize(
    ("function", "args", "num_positional"),
    [
        (model, {"hidden": 1}, 0),
        (model, {"hidden": 1, "width": 2}, 0),
        (model, {"width": 2}, 1),
        (Model, {"lr": 1}, 1),
        (Model, {"params": 1}, 0),
        (free, {"second": 2, "third": 3}, 1),
        (free, {"first": 1}, 2),
        (listing, {"scale": 2.0}, 7),
        (partial(model, hidden=1), {}, 0),
        (max, {"anything": 1}, 0),  # has no signature
        (dict, {"anything": 1}, 0),
    ],
)
def test_right_arguments_pass(job: Job, function: Any, args: dict[str, Any], num_positional: int) -> None:
    check_arguments(job, "model", function, args, num_positional=num_positional)


@pytest.mark.parametrize(
    ("function", "args", "num_positional", "expected"),
    [
        (model, {"hiden": 1}, 0, "model.args.hiden: model has no argument 'hiden'; did you mean 'hidden'? Its"),
        (model, {"foo": 1}, 0, "model.args.foo: model has no argument 'foo'; its signature is model(hidden,"),
        (model, {}, 0, "model.args: model needs the argument 'hidden'; its signature is model(hidden, *, width=3)"),
        (model, {"hidden": 1}, 1, "model.args.hidden: distrib passes 'hidden' to model; remove it"),
        (model, {}, 2, "model: model must accept 2 positional argument(s); its signature is model(hidden,"),
        (Model, {"lrr": 1}, 1, "model.args.lrr: Model has no argument 'lrr'; did you mean 'lr'? Its signature"),
        (Model, {"lr": 1}, 0, "model.args: Model needs the argument 'params'"),
        (free, {"second": 1}, 0, "model.args: free needs the argument 'first'"),
        (free, {"second": 1, "other": 2}, 2, "model.args.second: distrib passes 'second' to free; remove it"),
        (listing, {"values": 1}, 0, "model.args.values: listing has no argument 'values'; its signature is listing("),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(
    job: Job, function: Any, args: dict[str, Any], num_positional: int, expected: str
) -> None:
    with pytest.raises(JobError) as caught:
        check_arguments(job, "model", function, args, num_positional=num_positional)
    assert str(caught.value).startswith(f"job.yaml:3: {expected}")


def test_a_long_signature_is_cut(job: Job) -> None:
    names = ", ".join(f"argument_{index}=0" for index in range(100))
    function = eval(f"lambda {names}: 0")
    with pytest.raises(JobError) as caught:
        check_arguments(job, "model", function, {"x": 1})
    assert len(str(caught.value)) < 450
