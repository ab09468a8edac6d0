"""TRex as the generator: found on its host, configured, started and ended by us."""
