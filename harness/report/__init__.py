"""From a run directory to figures, tables and one self-contained page."""
