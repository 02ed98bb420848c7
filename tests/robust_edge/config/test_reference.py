"""The page of all settings is the one that the declarations give."""

from pathlib import Path

from robust_edge.config.compress import CompressConfig
from robust_edge.config.reference import COMMAND, settings_page
from robust_edge.settings.setting import walk

PAGE = Path(__file__).parents[3] / "docs/settings.md"


def test_the_committed_page_is_current():
    assert PAGE.read_text("utf-8") == settings_page(), f"write it again: {COMMAND}"


def test_every_setting_stands_on_the_page_with_its_option():
    lines = settings_page().splitlines()
    for key, _, declaration in walk(CompressConfig):
        (line,) = [line for line in lines if line.startswith(f"| `{key}` |")]
        assert declaration.flag in line
        assert declaration.help in line
