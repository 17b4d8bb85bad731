"""Nets in other programs' files: written, checked against the net, timed; and what layers cost there."""
