"""docs/first-hour.md, from the top, as root and as a user of the submit group."""

import os

import pytest

from tests.newcomer.page import follow

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user"),
]


def test_what_the_page_of_the_first_ten_minutes_says_is_what_happens(place):
    follow("docs/first-hour.md", place)
