"""Confirm a front: its points and their controls, run anew on fresh seeds, one at a time, and timed."""
