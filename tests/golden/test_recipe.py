"""What a recipe may say, and where apt takes a suite from."""

import pytest

from panloom.errors import ConfigError, ConfigErrors, UnavailableError
from panloom.golden.mirrors import Archive, chosen
from panloom.golden.recipe import Recipe, load

GIB = 1 << 30
TOLD = (
    "http://deb.example/debian/\tbookworm\tmain\n"
    "http://deb.example/debian/\tbookworm\tcontrib\n"
    "http://deb.example/debian/\tbookworm-updates\tmain\n"
    "http://sec.example/debian-security/\tbookworm-security\tmain\n"
    "http://other.example/apt\tcloud-sdk-bookworm\tmain\n"
)


def test_a_recipe_says_what_it_says_and_the_rest_is_debian():
    text = "size: 4GiB\npackages: [nginx-light, openssh-server]\nfiles: {/etc/motd: hello}\nrun: ['true']\n"
    files = {"/etc/motd": "hello"}
    packages = ("nginx-light", "openssh-server")
    assert load("web.yaml", text) == Recipe(size="4GiB", packages=packages, files=files, run=("true",))
    assert load("empty.yaml", "") == Recipe(suite="bookworm", size=2 * GIB)


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("size: 1", "size", "whole MiB"),
        ("size: 2TiB", "size", "to 1TiB"),
        ("suite: ../../etc", "suite", "a suite of Debian"),
        ("mirror: file:///etc", "mirror", "http://"),
        ("packages: [--force]", "packages.0", "the name of a Debian package"),
        ("files: {motd: text}", "files.motd", "an absolute path"),
        ("package: [a]", "package", "no such key; there are suite"),
        ("run: true", "run", "tuple"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, where, why):
    with pytest.raises(ConfigErrors) as caught:
        load("web.yaml", text)
    (error,) = caught.value.errors
    assert error.where == f"web.yaml: {where}"
    assert why in error.why


@pytest.mark.parametrize("text", ["a: [", "- a", "\x00"])
def test_what_is_no_mapping_is_one_error(text):
    with pytest.raises(ConfigError):
        load("web.yaml", text)


def test_a_suite_comes_from_the_hosts_own_mirror_with_its_updates():
    found = chosen("bookworm", TOLD)
    assert [archive.suite for archive in found] == ["bookworm", "bookworm-updates", "bookworm-security"]
    assert found[0].line() == "deb http://deb.example/debian/ bookworm main"
    assert found[2] == Archive("http://sec.example/debian-security/", "bookworm-security", "main")


def test_a_suite_that_the_host_does_not_know_needs_a_mirror():
    with pytest.raises(UnavailableError, match=r"only bookworm, .*write `mirror:`"):
        chosen("trixie", TOLD)
