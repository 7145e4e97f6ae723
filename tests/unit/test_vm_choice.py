"""What of tests/root scripts/vm-test runs in a quarter of an hour."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.vm.choice import FEW, FILES_LEFT_OUT, LEFT_OUT, TWICE, chosen

ROOT_TESTS = Path(__file__).parent.parent / "root"
SETS = [f"[{family}-{backend}]" for family in ("ipv4", "ipv6") for backend in ("legacy", "nft")]


def test_each_test_is_taken_once_with_changing_parameters() -> None:
    functions = [f"tests/root/test_x.py::test_{number}" for number in range(40)]
    taken = chosen([function + each for function in functions for each in SETS])
    assert len(taken) == len(functions)
    assert {test.partition("[")[0] for test in taken} == set(functions)
    assert {test[test.index("[") :] for test in taken} == set(SETS)


def test_the_choice_does_not_depend_on_the_order() -> None:
    tests = [f"tests/root/test_x.py::test_{number}{each}" for number in range(9) for each in SETS]
    assert chosen(tests) == chosen(tests[::-1])


def test_some_are_taken_twice_and_some_never() -> None:
    tests = [f"tests/root/test_x.py::{name}{each}" for name in TWICE for each in SETS]
    assert len(chosen(tests)) == 2 * len(TWICE)
    assert chosen([f"tests/root/test_x.py::{name}" for name in LEFT_OUT]) == set()


def test_of_some_files_a_few_are_taken() -> None:
    for file in FEW:
        tests = [f"tests/root/{file}::test_{number}[x]" for number in range(90)]
        assert 5 < len(chosen(tests)) < 30


def test_each_file_in_the_lists_is_there() -> None:
    assert {*FILES_LEFT_OUT, *FEW} <= {path.name for path in ROOT_TESTS.glob("test_*.py")}


def test_each_name_in_the_lists_is_a_test() -> None:
    trees = [ast.parse(path.read_text()) for path in ROOT_TESTS.glob("test_*.py")]
    there = {each.name for tree in trees for each in tree.body if isinstance(each, ast.FunctionDef)}
    assert set(LEFT_OUT) | TWICE <= there
