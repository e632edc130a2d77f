"""The results folder on disk: no other room writes a sweep's files."""
