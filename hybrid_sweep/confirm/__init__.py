"""Confirm a front: its points and their controls, run again on fresh seeds, one at a time, and timed."""
