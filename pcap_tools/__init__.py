"""Captures in, captures and tables out: no network, no SSH, no root."""
