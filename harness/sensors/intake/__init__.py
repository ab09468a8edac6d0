"""Alerts that a sensor sends: syslog, CEF or EVE over UDP or TCP, received and understood."""
