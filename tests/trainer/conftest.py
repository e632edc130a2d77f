"""Fixtures of the trainer's tests."""

import pytest
from support.problem import Problem


@pytest.fixture
def problem():
    return Problem()
