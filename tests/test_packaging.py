"""What pyproject.toml says of the project is what requirements.txt and the folders say."""

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from files import REPOSITORY

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
WHEEL = PYPROJECT["tool"]["setuptools"]
APART = {"app", "app-test"}  # not in `all`: a web server, and the driver of a browser


def brought_by(lines: list[str]) -> set[str]:
    """The requirements that `lines` name, those of the project's own extras among them included."""
    brought = set()
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            brought |= set().union(*(brought_by(EXTRAS[extra]) for extra in requirement.extras))
        else:
            brought.add(str(requirement))
    return brought


def named_in(file: str) -> set[str]:
    """The requirements of a file, each of which has its reason beside it."""
    lines = (REPOSITORY / file).read_text(encoding="utf-8").splitlines()[1:]
    assert all(re.fullmatch(r"\S+ +# \w.*", line) for line in lines)
    named = [str(Requirement(line.partition("#")[0])) for line in lines]
    assert len(named) == len(set(named))
    return set(named)


def test_requirements_txt_is_the_core_set_and_all_extras_each_with_its_reason():
    assert named_in("requirements.txt") == set(PROJECT["dependencies"]) | brought_by(EXTRAS["all"])


def test_requirements_app_txt_is_what_the_page_and_its_tests_need_beside_it():
    assert named_in("requirements-app.txt") == brought_by(EXTRAS["app-test"]) - brought_by(EXTRAS["all"])


def test_no_package_is_asked_for_twice():
    direct = [line for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines]
    names = [requirement.name for requirement in map(Requirement, direct) if requirement.name != PROJECT["name"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - APART))
def test_every_extra_but_the_pages_is_a_part_of_all(extra):
    assert brought_by(EXTRAS[extra]) <= brought_by(EXTRAS["all"])


def test_every_extra_that_a_message_names_exists():
    sources = [path.read_text(encoding="utf-8") for path in REPOSITORY.glob("[!.]*/**/*.py")]
    named = {name for text in sources for name in re.findall(r"needs_extra\(\"(\w+)\"|'\.\[(\w+)\]'", text)}
    assert {"data", "video", "metrics", "train", "demo"} <= {first or second for first, second in named} <= set(EXTRAS)


def test_a_wheel_holds_every_module():
    modules = {path.stem for path in REPOSITORY.glob("*.py")} - {"hubconf"}  # which torch.hub reads from the repository
    assert set(WHEEL["py-modules"]) == modules
    rooms = {path.parent for path in REPOSITORY.glob("[!.]*/**/__init__.py")}
    configs = {path.parent for path in REPOSITORY.glob("configs/**/*.yaml")}
    packages = {".".join(folder.relative_to(REPOSITORY).parts) for folder in rooms | configs}
    assert set(WHEEL["packages"]) == {name for name in packages if not re.match(r"(tests|benchmarks|build)\b", name)}


def test_a_wheel_holds_every_file_that_the_modules_read():
    for package in WHEEL["packages"]:
        patterns = ["*.py", *WHEEL["package-data"].get(package, [])]
        for file in files_of(REPOSITORY / package.replace(".", "/")):
            name = file.relative_to(REPOSITORY / package.replace(".", "/")).as_posix()
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), file


def files_of(folder: Path) -> Iterator[Path]:
    """The files of a package: those of its folder, and those of folders in it that are no packages themselves."""
    for path in folder.iterdir():
        if path.is_file():
            yield path
        elif path.name != "__pycache__" and ".".join(path.relative_to(REPOSITORY).parts) not in WHEEL["packages"]:
            yield from files_of(path)
