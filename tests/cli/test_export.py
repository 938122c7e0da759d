"""`infini-eval export`: what a format is made from, and the flags that are a format's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import infini_eval
from infini_eval.api import export, registry
from infini_eval.cli.main import main
from infini_eval.errors import ConfigError
from infini_eval.options import option, positive_int
from infini_eval.testing.fake_runs import FakeRun, write_fake_run


@dataclass(frozen=True)
class ShoutSettings:
    TITLE: ClassVar[str] = "the format shout"

    times: int = option(1, "how often (default: %(default)s)", read=positive_int)


@export("shout", place="shout.txt", made_from="checkpoint", settings=ShoutSettings)
def shout(checkpoint: Path, place: Path, settings: ShoutSettings) -> list[str]:
    """shout: the checkpoint's name in capitals."""
    place.write_text(checkpoint.name.upper() * settings.times)
    return [f"{place}: {settings.times} times"]


@export("source-name", place="name.txt", made_from="data")
def source_name(data: str, place: Path) -> list[str]:
    """source-name: the data set's name."""
    place.write_text(data)
    return [str(place)]


@pytest.fixture(autouse=True)
def formats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._own("exports"), "shout", shout)
    monkeypatch.setitem(registry._own("exports"), "source_name", source_name)


@pytest.mark.parametrize("given", [["ckpt/one"], ["--ckpt-path", "ckpt/one"]])
def test_a_checkpoint_is_exported_with_the_formats_own_flags(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["export", *given, "--format", "shout", "--output", str(tmp_path / "out")]
    assert main([*asked, "--times", "3"]) == 0
    assert (tmp_path / "out").read_text() == "ONEONEONE" and "3 times" in capsys.readouterr().out


def test_a_data_set_is_exported_by_its_name(tmp_path: Path) -> None:
    assert main(["export", "owner/set", "--format", "source-name", "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_text() == "owner/set"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--format", "shout"], "the export shout was given 0 sources"),
        (["a", "b", "--format", "shout"], "the export shout was given 2 sources"),
        (["a", "--ckpt-path", "b", "--format", "shout"], "the export shout was given 2 sources"),
        (["a", "--format", "shout", "--failed-as-wrong"], "the export shout is not made from runs"),
        (["a", "--format", "csv", "--times", "2"], "--times: not for the format csv\n  valid: --format shout"),
        (["--ckpt-path", "a", "--format", "csv"], "--ckpt-path: the format csv is not made from a checkpoint"),
        (["--format", "csv"], "no run to export"),
        (["a", "--format", "shout", "--times", "0"], "is not a whole number of at least 1"),
    ],
)
def test_what_does_not_belong_to_a_format_is_said(
    asked: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["export", *asked])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_from_python_options_are_named(tmp_path: Path) -> None:
    infini_eval.export("ckpt/one", format="shout", output=tmp_path / "out", times=2)
    assert (tmp_path / "out").read_text() == "ONEONE"
    with pytest.raises(ConfigError, match=r"the export shout has no option 'volume'(?s:.*)times"):
        infini_eval.export("ckpt/one", format="shout", output=tmp_path / "out", volume=2)
    run = write_fake_run(tmp_path / "run", FakeRun(depths=(0,), per_cell=1))
    with pytest.raises(ConfigError, match=r"was given a result of evaluate\(\)(?s:.*)one checkpoint"):
        infini_eval.export(infini_eval.analyze(run), format="shout")


def test_a_run_cannot_end_in_an_export_that_is_not_made_from_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["run", "--task", "qa", "--model", "fake:any", "--eval_dataset_path", "none.csv"]
    assert main([*asked, "--save_path", str(tmp_path / "r"), "--report-to", "csv,shout"]) == 2
    message = capsys.readouterr().err
    assert "--report-to shout: that export is not made from runs" in message and "csv" in message
