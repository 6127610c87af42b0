"""`mlflow models serve` with a registered model, asked over HTTP: images, and errors that say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from mlflow_parts import ask, model_server
from registry_parts import NAME, Desk, build, make_gan, own_samples, tracker_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server of the champion, a conditional GAN."""
    root = tmp_path_factory.mktemp("serving")
    patch = pytest.MonkeyPatch()
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    desk = Desk(tracker_in(root), build(root, "cgan"))
    desk.register(40.0)
    environment = {"MLFLOW_TRACKING_URI": desk.tracker.uri, "MLFLOW_REGISTRY_URI": desk.tracker.uri}
    with model_server(f"models:/{NAME}@champion", root, environment) as found:
        yield found
    patch.undo()


def rows(**columns: list[Any]) -> dict[str, Any]:
    return {"dataframe_split": {"columns": list(columns), "data": list(zip(*columns.values(), strict=True))}}


def lives(address: str) -> None:
    status, answer = ask(address, rows(seed=[0, 1, 7], label=[3, 0, 9]))
    assert status == 200
    images = np.array(answer["predictions"], np.uint8)
    np.testing.assert_array_equal(images, own_samples(make_gan("cgan"), [0, 1, 7], [3, 0, 9]).numpy())


@pytest.mark.parametrize(
    "body",
    [
        rows(seed=[1], label=[3], truncation=[0.7]),
        rows(seed=[1]),
        {"dataframe_records": [{"seed": 1, "label": 3}, {"seed": 2, "label": 4}]},
        {"inputs": {"seed": [1, 2], "truncation": [0.5, 1.0]}},
    ],
)
def test_good_rows_are_answered_with_images(address: str, body: dict[str, Any]) -> None:
    status, answer = ask(address, body)
    assert status == 200, answer
    assert np.array(answer["predictions"]).shape[1:] == (16, 16, 1)
    lives(address)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (rows(sed=[1]), "Model is missing inputs ['seed']. Note that there were extra inputs: ['sed']"),
        (rows(label=[1]), "Model is missing inputs ['seed']"),
        (rows(seed=[1, None]), "row 1: seed is nan, expected an integer from 0 to "),
        (rows(seed=[3, -1]), "row 1: seed is -1, expected an integer from 0 to "),
        (rows(seed=[1.5]), "row 0: seed is 1.5, expected an integer from 0 to "),
        ({"inputs": {"seed": [1, 1.5]}}, "row 1: seed is 1.5, expected an integer from 0 to "),
        (rows(seed=[1], label=[2.5]), "row 0: label is 2.5, expected an integer from 0 to 9"),
        (rows(seed=[1], to_seed=[0.5], mix=[0.5]), "row 0: to_seed is 0.5, expected an integer from 0 to "),
        (rows(seed=[True]), "row 0: seed is True, expected an integer from 0 to "),
        (rows(seed=[[1]]), "row 0: seed is [1], expected an integer from 0 to "),
        (rows(seed=["one"]), "row 0: seed is 'one', expected an integer from 0 to "),
        (rows(seed=["x" * 10**6]), "row 0: seed is 'xxx"),
        (rows(seed=[2**70]), f"row 0: seed is {2**70}, expected an integer from 0 to {2**63 - 1}"),
        (rows(seed=[1], label=[10]), "row 0: label is 10, expected an integer from 0 to 9"),
        (rows(seed=[1], label=[-1]), "row 0: label is -1, expected an integer from 0 to 9"),
        (rows(seed=[1], truncation=[0]), "row 0: truncation is 0.0, expected a number above 0 and at most 1"),
        (rows(seed=[1], truncation=[2]), "row 0: truncation is 2.0, expected a number above 0 and at most 1"),
        (rows(seed=[]), "there are 0 rows; expected 1 to 262144"),
        (b"not json", "JSON"),
        ({}, "dataframe_split"),
        ([], "dataframe_split"),
    ],
)
def test_bad_rows_are_answered_with_what_is_wrong(address: str, body: Any, says: str) -> None:
    status, answer = ask(address, body)
    assert 400 <= status < 500, answer
    assert says in answer, answer
    assert "Traceback" not in answer
    lives(address)


def test_what_mlflow_changes_before_the_model_sees_it(address: str) -> None:
    """A model with a signature cannot refuse this: MLflow drops columns that the signature does not name, and logs a
    warning."""
    plain = ask(address, rows(seed=[1]))
    assert plain[0] == 200
    assert ask(address, rows(seed=[1], turncation=[0.5])) == plain


def test_a_seed_of_63_bits_is_not_rounded(address: str) -> None:
    last = 2**63 - 1
    status, answer = ask(address, rows(seed=[last, last - 1, 2**53 + 1], label=[3, 3, 3]))
    assert status == 200, answer
    expected = own_samples(make_gan("cgan"), [last, last - 1, 2**53 + 1], [3, 3, 3]).numpy()
    np.testing.assert_array_equal(np.array(answer["predictions"], np.uint8), expected)


def test_ten_million_rows_are_refused(address: str) -> None:
    body = b'{"inputs": {"seed": [' + b"0," * (10**7 - 1) + b"0]}}"
    status, answer = ask(address, body)
    assert 400 <= status < 500, answer
    assert "there are 10000000 rows; expected 1 to 262144" in answer
    lives(address)
