"""Preflight: what is wrong with a lab before the first packet, and which bottleneck it would fake.

`gather` reads both hosts in a few round trips, `parse_*` make values of what was read, `checks_*`
judge them. What cannot be read is "not observable", never "fine".
"""
