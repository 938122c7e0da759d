"""The capacity tables: their arithmetic against the planner's, and the page that quotes them."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the package `benchmarks` is not installed

from benchmarks.capacity import __main__ as command  # noqa: E402
from benchmarks.capacity import grid as capacity  # noqa: E402
from benchmarks.capacity.limits import limits_of, reduced_bytes  # noqa: E402
from benchmarks.capacity.measure import measure_host  # noqa: E402
from benchmarks.capacity.models import architecture  # noqa: E402

from infini_eval.api.backend import Batch  # noqa: E402
from infini_eval.distributed.mesh import MeshShape  # noqa: E402
from infini_eval.planning.devices import parse_gpus  # noqa: E402
from infini_eval.planning.plan import flops_a_token  # noqa: E402

H100 = parse_gpus("H100-80GB")[1]
SMALL = capacity.Grid(lengths=(1024, 16384), depths=3, samples=2)
ONE = MeshShape()


def printed(*arguments: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command.main(list(arguments)) == 0
    return out.getvalue()


def test_the_page_quotes_what_the_command_prints() -> None:
    page = (ROOT / "docs" / "capacity.md").read_text()
    for block in printed().strip().split("\n\n"):
        assert block in page, "python -m benchmarks.capacity --write docs/capacity.md"


def test_the_page_is_written_anew(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text("\n".join(f"<!-- block {number} -->\nSTALE\n<!-- end -->\nwords" for number in range(5)))
    small = ("--models", "300M", "--gpus", "2", "--lengths", "1k", "--samples", "2")
    assert printed(*small, "--write", str(page)) == ""
    text = page.read_text()
    assert "STALE" not in text
    assert text.count("words") == 5
    assert all(block in text for block in printed(*small).strip().split("\n\n"))
    page.write_text("nothing")
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert command.main([*small, "--write", str(page)]) == 2
    assert "block 0" in said.getvalue()


def test_shapes_have_the_known_parameters_and_flops() -> None:
    """FLOPs a token of the design page: 437 M (300M) and 14.28 G (8B)."""
    assert flops_a_token(architecture("300M"), 1 << 20).total == pytest.approx(437.3e6, rel=1e-3)
    assert flops_a_token(architecture("8B"), 1 << 20).total == pytest.approx(14.28e9, rel=1e-3)
    assert architecture("70B").total_parameters == pytest.approx(70.55e9, rel=1e-3)
    assert architecture("70B").keeps_memory


@pytest.mark.parametrize("name", ["300M", "8B"])
def test_the_work_of_a_grid_is_the_flops_of_its_prompts(name: str) -> None:
    model, utilisation = architecture(name), 0.5
    cost = capacity.cost_of(model, SMALL, H100, 1, ONE, utilisation)
    by_hand = sum(flops_a_token(model, length).total * length for length in SMALL.prompts)
    assert capacity.total_flops(model, SMALL) == pytest.approx(by_hand, rel=1e-3)
    assert H100.flops is not None
    prefill = by_hand / (H100.flops * utilisation)
    assert prefill < cost.ideal < 3 * prefill  # new tokens come on top: they weigh at such lengths
    assert cost.gpu_hours == pytest.approx(cost.seconds / 3600)


def test_twice_the_utilisation_halves_the_prefill() -> None:
    model = architecture("8B")
    fast, slow = (capacity.speed_of(model, 1 << 20, H100, ONE, share) for share in (0.6, 0.3))
    assert slow.prefill_seconds == pytest.approx(2 * fast.prefill_seconds)
    assert slow.decode_seconds_per_token == fast.decode_seconds_per_token


def test_a_batch_reads_the_weights_once_for_all_rows() -> None:
    model = architecture("8B")
    one = capacity.batch_seconds(model, Batch((0,), 1024), SMALL, H100, ONE, 0.5)
    eight = capacity.batch_seconds(model, Batch(tuple(range(8)), 8192), SMALL, H100, ONE, 0.5)
    assert one < eight < 8 * one


def test_the_smallest_replica_that_holds_the_model() -> None:
    grid = capacity.Grid()
    assert capacity.smallest_replica(architecture("8B"), grid, H100, 8) == ONE
    large = architecture("70B")
    assert capacity.smallest_replica(large, grid, H100, 1) is None
    found = capacity.smallest_replica(large, grid, H100, 8)
    assert found == MeshShape(tp=2)
    assert capacity.rank_bytes(large, grid, H100, found) <= H100.capacity < capacity.rank_bytes(large, grid, H100, ONE)


def test_more_replicas_than_prompts_stand_idle() -> None:
    model, grid = architecture("300M"), capacity.Grid(lengths=(1 << 20,), depths=1, samples=4)
    cost = capacity.cost_of(model, grid, H100, 8, ONE, 0.5)
    assert cost.idle >= 0.45
    assert cost.idle_longest == pytest.approx(cost.idle)
    assert capacity.cost_of(model, grid, H100, 1, ONE, 0.5).idle == 0


def test_bubble_and_prefix() -> None:
    assert capacity.bubble(1, 2) == 0.5
    assert capacity.bubble(64, 2) == pytest.approx(1 / 65)
    assert capacity.prefix_saving(11) == pytest.approx(11 / 6.5)
    assert capacity.prefix_saving(1) == 1
    assert capacity.prefix_saving(1001) < 2


def test_limits_follow_the_rates() -> None:
    model, grid = architecture("8B"), capacity.Grid()
    cost = capacity.cost_of(model, grid, H100, 8, ONE, 0.6)
    slow = limits_of(model, grid, cost, 8, ONE, command.rates_of("tokenise=1e3"))
    fast = limits_of(model, grid, cost, 8, ONE, command.rates_of("tokenise=1e6"))
    part = "tokenising to plan"
    assert slow.serial[part] == pytest.approx(1000 * fast.serial[part])
    assert "tokenising" in slow.first(cost)
    assert reduced_bytes(model, ONE) == 0
    assert reduced_bytes(model, MeshShape(tp=2)) == 2 * 32 * 4096 * 2


def test_flags() -> None:
    table = printed("--models", "8B", "--gpus", "16", "--utilisation", "0.5", "--lengths", "1k,128k", "--samples", "2")
    assert "{1k, 128k}: 84 prompts" in table
    assert "| 8B | 2." not in table
    assert "time at 50 %" in table
    with pytest.raises(SystemExit):
        command.main(["--rates", "nothing=1"])
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert command.main(["--device", "abacus"]) == 2
    assert "abacus" in said.getvalue()


@pytest.mark.distributed
@pytest.mark.slow
def test_the_host_is_measured_at_toy_size() -> None:
    rates = list(measure_host(toy=True, records=1))
    assert {"tokenise", "read", "load", "start", "store", "merge"} <= {rate.what for rate in rates}
    assert all(rate.value > 0 for rate in rates)
