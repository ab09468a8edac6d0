"""The experiment: profiles, generators, sensors, trials, ledger, detection, results, reports."""

__version__ = "0.1.0"
