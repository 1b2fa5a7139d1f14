"""A build that cannot be is one error, and leaves nothing behind."""

import pytest

from panloom.errors import ConfigErrors, UnavailableError
from panloom.golden.build import build_image


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text("size: 1GiB\n")
    return path


def test_a_build_that_fails_leaves_its_log_and_nothing_else(tmp_path, recipe):
    recipe.write_text("mirror: http://127.0.0.1:9/debian\n")
    with pytest.raises(UnavailableError, match=r"could not be made: .*; see .*log"):
        build_image(recipe, tmp_path / "out" / "web.img", archive=tmp_path / "archive")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["web.img.log"]


def test_a_wrong_recipe_is_refused_before_anything_is_made(tmp_path, recipe):
    recipe.write_text("size: 1\n")
    with pytest.raises(ConfigErrors):
        build_image(recipe, tmp_path / "out" / "web.img", archive=tmp_path / "archive")
    assert not (tmp_path / "out").exists()
