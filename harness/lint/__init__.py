"""The linter: is a capture fit for a profile and a sensor? One function a bias."""
