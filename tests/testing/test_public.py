"""What other projects may use for their tests can be imported by its public name."""

from __future__ import annotations

import pytest

from infini_eval import testing


@pytest.mark.parametrize("name", testing.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(testing, name).__doc__
    assert name in (testing.__doc__ or "")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        testing.nothing  # noqa: B018
