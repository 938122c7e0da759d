"""Statistics of samples: intervals, groups, trends, verdicts; numpy only, so that a report is there in a second."""
