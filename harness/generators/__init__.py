"""Traffic generators behind one seam; the registry is in `registry`."""
