"""Whether a run is worse than a baseline: baselines, suites, paired tests, verdicts."""
