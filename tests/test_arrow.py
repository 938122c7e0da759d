"""Columns of Python values: what pyarrow makes of the same values, with its errors, and pandas is not imported for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infini_eval.arrow import column
from support.limits import PROCESS_S

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
SCALARS = (st.text(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))


def lists_of(values):
    return st.lists(st.none() | values, max_size=9)


@given(st.one_of([lists_of(one) for one in SCALARS] + [lists_of(lists_of(one)) for one in SCALARS]))
def test_a_column_is_what_pyarrow_makes_of_the_values(values):
    made = column(values)
    made.validate(full=True)
    assert made.equals(pa.array(values)) and made.to_pylist() == values


@given(lists_of(st.dictionaries(st.sampled_from(("role", "content", "turn")), st.text() | st.none())))
def test_mappings_become_a_column_of_the_fields_that_some_of_them_have(values):
    names = dict.fromkeys(name for value in values for name in value or ())
    made = column(values)
    made.validate(full=True)
    assert made.to_pylist() == [value and {name: value.get(name) for name in names} if value != {} else
                                dict.fromkeys(names) for value in values]  # fmt: skip
    assert made.equals(pa.array(values, made.type))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2.5, None], None),
        (["a", None], pa.large_string()),
        ([1, None], pa.float64()),
        ([], pa.string()),
        ([None, None], pa.int64()),
        ([1, 2], pa.int8()),
        ([b"bytes"], None),
        ([[{"a": [1]}, None], []], None),
    ],
)
def test_other_types_come_out_alike_too(values, kind):
    assert column(values, kind).equals(pa.array(values, kind))


@pytest.mark.parametrize("values", [["a", 1], [True, 1], [2**63], [2**53 + 1, 0.5], ["\ud800"], [[1], "a"]])
def test_what_pyarrow_refuses_is_refused_alike(values):
    with pytest.raises(Exception) as theirs:
        pa.array(values)
    with pytest.raises(theirs.type):
        column(values)


FILTERED = ["--eval_dataset_path", str(DATA), "--num_samples", "1", "--depths", "0,50"]
MADE = ["--context_length", "256", "--depth_percent", "50", "--num_shots", "1", "--num_digits", "2"]


@pytest.mark.parametrize("command", [["passkey", *FILTERED], ["grid", *MADE]], ids=["passkey", "grid"])
def test_an_evaluation_and_its_report_import_no_pandas(tmp_path, command):
    """In a process of its own, with filtered data and with data that are made: `table.filter(kept)` would import it."""
    pytest.importorskip("pandas")
    arguments = [*command, "--ckpt-path", str(ROOT / "checkpoints/infini-demo"), "--save_path", str(tmp_path / "run")]
    code = (
        "import sys; from infini_eval.cli.main import main\n"
        f"status = main({arguments!r})\n"
        "print('pandas' in sys.modules, file=sys.stderr)\n"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PROCESS_S)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False"
