"""The page of all settings is the one that the declarations give."""

from robust_edge.config.compress import CompressConfig
from robust_edge.config.reference import settings_page
from robust_edge.settings.setting import walk


def test_every_setting_stands_on_the_page_with_its_option():
    lines = settings_page().splitlines()
    for key, _, declaration in walk(CompressConfig):
        (line,) = [line for line in lines if line.startswith(f"| `{key}` |")]
        assert declaration.flag in line
        assert declaration.help in line
