"""Optional packages: an import that fails is shown as itself, whatever was asked for when it happened."""

from __future__ import annotations

import sys

from infini_eval.packages import broken_import


def raised(make):
    try:
        make()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_import_that_fails_inside_another_error_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "built_for_another_torch.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def load() -> None:
        try:
            __import__("built_for_another_torch")
        except RuntimeError as error:
            raise OSError("cannot load the tokenizer") from error

    found = broken_import(raised(load))
    assert found is not None and "operator torchvision::nms does not exist" in str(found)
    sys.modules.pop("built_for_another_torch", None)


def test_other_errors_are_no_imports() -> None:
    assert broken_import(raised(lambda: int("x"))) is None
