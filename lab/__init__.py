"""Hosts and what is on them: inventory, connections, the virtual lab, preflight guards."""
