"""How often the 95 % intervals of the reports hold the truth, over haystacks, depths, accuracy and correlation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from benchmarks._harness import Metric
from infini_eval.reports.statistics.intervals import Average, average_over, proportion
from infini_eval.reports.statistics.paired import difference_interval
from infini_eval.reports.statistics.trends import logistic_trend
from infini_eval.reports.statistics.verdicts import effective_length

USES_TORCH = False
LEAST = 93.0  # percent; wider than 98 is allowed
HAYSTACKS, DEPTHS = (3, 5, 10, 20, 50), (5, 21)
ACCURACY, CORRELATION = (0.5, 0.8, 0.95, 0.99), (0.0, 0.1, 0.3, 0.6)
SLOPE, FALL = -0.5, 0.1  # log odds over one standard deviation of x; what B loses against A
LENGTHS = ((1024, 0.98), (2048, 0.95), (4096, 0.90), (8192, 0.80), (16384, 0.60))  # the fixed bar lies at 85.6 %
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Case:
    """One situation: `haystacks` texts, each asked at `depths` depths, of this accuracy and intraclass correlation."""

    kind: str
    haystacks: int
    depths: int
    accuracy: float
    correlation: float


@dataclass(frozen=True)
class Result:
    """In how many percent of the repetitions that gave an interval it held the truth, and how wide it was on average."""

    case: Case
    coverage: float
    width: float
    given: float


Trial = tuple[bool, float] | None


def average(case: Case, rng: np.random.Generator) -> Trial:
    """The average over depths, each haystack asked once at each depth; beta-binomial luck of haystacks."""
    chance = _chances(case, rng)
    right = (rng.random((case.haystacks, case.depths)) < chance[:, None]).astype(float).reshape(-1)
    depth = np.tile(np.arange(case.depths), case.haystacks)
    found = average_over(depth, right, np.repeat(np.arange(case.haystacks), case.depths))
    return found.low <= case.accuracy <= found.high, found.high - found.low


def group(case: Case, rng: np.random.Generator) -> Trial:
    """A group (segments, phases, compressions) to which haystacks give samples of different numbers."""
    cluster = np.repeat(np.arange(case.haystacks), rng.integers(1, case.depths + 1, case.haystacks))
    right = (rng.random(len(cluster)) < _chances(case, rng)[cluster]).astype(float)
    low, high = proportion(right, cluster).interval
    return low <= case.accuracy <= high, high - low


def own_haystacks(case: Case, rng: np.random.Generator) -> Trial:
    """Every sample has a haystack of its own, so that nothing is shared: `haystacks` x `depths` samples."""
    n = case.haystacks * case.depths
    found = average_over(np.zeros(n, np.int64), (rng.random(n) < case.accuracy).astype(float), np.arange(n))
    return found.low <= case.accuracy <= found.high, found.high - found.low


def one_haystack(case: Case, rng: np.random.Generator) -> Trial:
    """All samples in one haystack: what the interval has to hold is the accuracy on that haystack."""
    n, chance = case.haystacks * case.depths, float(_chances(case, rng)[0])
    found = average_over(np.zeros(n, np.int64), (rng.random(n) < chance).astype(float), np.zeros(n, np.int64))
    return found.low <= chance <= found.high, found.high - found.low


def trend_within(case: Case, rng: np.random.Generator) -> Trial:
    """The odds ratio over depth: every haystack is asked at every depth."""
    cluster = np.repeat(np.arange(case.haystacks), case.depths)
    return _trend(case, np.tile(np.arange(case.depths, dtype=float), case.haystacks), cluster, rng)


def trend_between(case: Case, rng: np.random.Generator) -> Trial:
    """The odds ratio over length: five lengths, each with haystacks of its own."""
    cluster = np.repeat(np.arange(case.haystacks), case.depths)
    return _trend(case, (np.arange(case.haystacks) % len(LENGTHS)).astype(float)[cluster], cluster, rng)


def _trend(case: Case, x: np.ndarray, cluster: np.ndarray, rng: np.random.Generator) -> Trial:
    slope = SLOPE / float(x.std())
    chance = 1 / (1 + np.exp(-np.log(case.accuracy / (1 - case.accuracy)) - slope * (x - x.mean())))
    found = logistic_trend(x, (_luck(case, cluster, rng) < _quantiles(chance)).astype(float), cluster)
    if found.low is None or found.high is None:
        return None
    return found.low <= float(np.exp(slope)) <= found.high, float(np.log(found.high / found.low))


def difference(case: Case, rng: np.random.Generator) -> Trial:
    """B - A on the same samples, each with luck of its own on haystacks and half of the rest in common."""
    cluster = np.repeat(np.arange(case.haystacks), case.depths)
    common = rng.normal(size=len(cluster))
    scores = []
    for accuracy in (case.accuracy, case.accuracy - FALL):
        own = (common + rng.normal(size=len(cluster))) / 2**0.5
        shared = rng.normal(size=case.haystacks)[cluster]
        latent = case.correlation**0.5 * shared + (1 - case.correlation) ** 0.5 * own
        scores.append((latent < _NORMAL.inv_cdf(accuracy)).astype(float))
    depth = np.tile(np.arange(case.depths), case.haystacks)
    _, low, high = difference_interval(depth, scores[1] - scores[0], cluster)
    return low <= -FALL <= high, high - low


def length_fixed(case: Case, rng: np.random.Generator) -> Trial:
    """The effective length by the fixed bar: neither "at least" nor "below" may say something false."""
    return _length(case, rng, None)


def length_relative(case: Case, rng: np.random.Generator) -> Trial:
    """The same by the bar relative to the shortest length."""
    return _length(case, rng, LENGTHS[0][1])


def _length(case: Case, rng: np.random.Generator, relative_to: float | None) -> Trial:
    """Five lengths with the same haystacks; the width is the share of lengths that stay undecided."""
    cluster = np.repeat(np.arange(case.haystacks), case.depths)
    depth = np.tile(np.arange(case.depths), case.haystacks)
    shared = rng.normal(size=case.haystacks)[cluster]
    averages: list[tuple[int, Average, int]] = []
    for length, accuracy in LENGTHS:
        own = rng.normal(size=len(cluster))
        latent = case.correlation**0.5 * shared + (1 - case.correlation) ** 0.5 * own
        right = (latent < _NORMAL.inv_cdf(accuracy)).astype(float)
        averages.append((length, average_over(depth, right, cluster), len(right)))
    found = effective_length(averages) if relative_to is None else effective_length(averages, None)
    if found is None:
        return None
    bar = 0.856 if relative_to is None else 0.85 * relative_to
    true = max(length for length, accuracy in LENGTHS if accuracy >= bar)
    held = (found.at_least is None or found.at_least <= true) and (found.below is None or found.below > true)
    return held, len(found.undecided) / len(LENGTHS)


def _chances(case: Case, rng: np.random.Generator) -> np.ndarray:
    """Each haystack's chance of a right answer, float64 [haystacks]: beta with the asked mean and correlation."""
    if not case.correlation:
        return np.full(case.haystacks, case.accuracy)
    size = (1 - case.correlation) / case.correlation
    return rng.beta(case.accuracy * size, (1 - case.accuracy) * size, case.haystacks)


def _luck(case: Case, cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standard normal values [samples] that correlate by so much within a haystack."""
    shared = rng.normal(size=case.haystacks)[cluster]
    return case.correlation**0.5 * shared + (1 - case.correlation) ** 0.5 * rng.normal(size=len(cluster))


def _quantiles(chance: np.ndarray) -> np.ndarray:
    """The normal quantile of each chance; few of them differ."""
    values, place = np.unique(chance, return_inverse=True)
    return np.array([_NORMAL.inv_cdf(float(value)) for value in values])[place]


Kind = tuple[Callable[[Case, np.random.Generator], Trial], tuple[int, ...], tuple[float, ...], tuple[float, ...]]
KINDS: dict[str, Kind] = {  # what to try, over which haystacks, accuracies and correlations
    "average over depths": (average, HAYSTACKS, ACCURACY, CORRELATION),
    "group of samples": (group, HAYSTACKS, ACCURACY, CORRELATION),
    "samples of their own haystacks": (own_haystacks, (3, 10, 50), ACCURACY, (0.0,)),
    "one haystack (for itself)": (one_haystack, (3, 10, 50), (0.5, 0.8, 0.95), (0.0, 0.3)),
    "trend over depth": (trend_within, HAYSTACKS[1:], (0.5, 0.8, 0.95), (0.0, 0.3, 0.6)),
    "trend over length": (trend_between, HAYSTACKS[1:], (0.5, 0.8, 0.95), (0.0, 0.3, 0.6)),
    "paired difference": (difference, HAYSTACKS, (0.55, 0.8, 0.95), (0.0, 0.3, 0.6)),
    "effective length, fixed bar": (length_fixed, HAYSTACKS, (0.9,), (0.0, 0.3, 0.6)),
    "effective length, relative bar": (length_relative, HAYSTACKS, (0.9,), (0.0, 0.3, 0.6)),
}


def measure(repetitions: int, *, toy: bool = False) -> Iterator[Result]:
    """Every case, each from a seed of its own."""
    for kind, (trial, haystacks, accuracies, correlations) in KINDS.items():
        cases = itertools.product(haystacks, DEPTHS, accuracies, correlations)
        for number, values in enumerate(itertools.islice(cases, 4) if toy else cases):
            case = Case(kind, *values)
            rng = np.random.default_rng([number, *kind.encode()])
            found = [made for made in (trial(case, rng) for _ in range(repetitions)) if made is not None]
            held, widths = [made[0] for made in found], [made[1] for made in found]
            coverage = 100 * float(np.mean(held)) if found else float("nan")
            yield Result(case, coverage, float(np.mean(widths or [0])), 100 * len(found) / repetitions)


def run(toy: bool) -> list[Metric]:
    results = list(measure(30 if toy else 1000, toy=toy))
    metrics = []
    for kind in KINDS:
        own = [result.coverage for result in results if result.case.kind == kind and result.given >= 20]
        name = kind.replace(",", "").replace(" (for itself)", "").replace(" ", "_")
        note = f"least of {len(own)} cases; mean {np.mean(own):.1f} %"
        metrics.append(Metric(f"coverage_{name}", min(own), "%", ">=", LEAST, note))
    return metrics


def table(results: list[Result]) -> str:
    """Markdown: for each interval and number of haystacks the least, mean and largest coverage, and the mean width."""
    lines = ["| interval | haystacks | cases | coverage: least, mean, largest | mean width |", "|---|---|---|---|---|"]
    for kind, (_, haystacks, _, _) in KINDS.items():
        for count in haystacks:
            own = [r for r in results if (r.case.kind, r.case.haystacks) == (kind, count) and r.given >= 20]
            values = [result.coverage for result in own]
            width = f"{np.mean([result.width for result in own]):.2f}"
            shown = f"{min(values):.1f}, {np.mean(values):.1f}, {max(values):.1f}"
            lines.append(f"| {kind} | {count} | {len(own)} | {shown} | {width} |")
    return "\n".join(lines)


if __name__ == "__main__":
    made = list(measure(1000))
    print(table(made))
    for result in made:
        if result.coverage < LEAST:
            print(f"below {LEAST:g} %: {result}")
