"""Programs out of Markdown: which block is taken, and that a program without fences is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.client.fences import without_fences
from pool.errors import InvalidJobError

CASES = {
    "labelled": ("```python\nx = 1\n```", "x = 1\n"),
    "another label": ("~~~py\nx = 1\n~~~\n", "x = 1\n"),
    "without a label": ("text\n```\nx = 1\n```\n", "x = 1\n"),
    "never closed": ("```python\nx = 1\ny = 2", "x = 1\ny = 2"),
    "the first Python one": ("```sh\npip install x\n```\n```python\nx = 1\n```\n```python\nx = 2\n```", "x = 1\n"),
    "in a list": ("1. this\n   ```python\n   if x:\n       y = 1\n   ```", "if x:\n    y = 1\n"),
    "longer fences around shorter ones": ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
    "with attributes": ('```python title="a.py"\nx = 1\n```', "x = 1\n"),
    "of Windows": ("```python\r\nx = 1\r\n```\r\n", "x = 1\n"),
    "no fences": ("x = '`'\n", "x = '`'\n"),
    "only another language": ("```json\n{}\n```", "```json\n{}\n```"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_block_of_python_is_the_program(name):
    text, expected = CASES[name]
    assert without_fences(text) == expected


@given(st.text(alphabet="`~ \npyx1.'", max_size=60))
def test_any_text_has_a_program_which_is_no_longer(text):
    assert len(without_fences(text)) <= len(text)


def test_whether_to_strip_is_yes_or_no():
    from pool.client import job

    with pytest.raises(InvalidJobError, match="strip_fences"):
        job.build("x = 1", {"strip_fences": "yes"}, pool="default")
