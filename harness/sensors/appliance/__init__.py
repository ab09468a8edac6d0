"""Sensors that are read from outside only: by command, SNMP, Prometheus or an HTTP interface."""
