"""The papers beside the code name only what is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_path_in_the_table_of_standards_exists():
    rows = [line for line in (ROOT / "docs/standards.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        *_, code, tests, _ = row.split("|")
        for folder, cell in (("src/panloom", code), ("tests", tests)):
            paths = re.findall(r"`([^`]+)`", cell)
            assert paths, row
            for path in paths:
                assert (ROOT / folder / path).is_file(), path


def test_every_rfc_that_the_code_names_is_in_the_table():
    table = (ROOT / "docs/standards.md").read_text()
    named = {rfc for path in (ROOT / "src").rglob("*.py") for rfc in re.findall(r"RFC [0-9]+", path.read_text())}
    assert {rfc for rfc in named if rfc not in table} == set()


def test_every_demand_of_iscsi_names_code_and_tests_that_exist():
    rows = [line for line in (ROOT / "docs/rfc7143.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 40
    for row in rows:
        *_, code, tests, _ = row.split("|")
        named = re.findall(r"`([^`]+)`", tests)
        assert named, row
        for path in re.findall(r"`([^`]+)`", code):
            assert (ROOT / "src/panloom" / path).is_file(), path
        for test in named:
            path, _, function = test.partition("::")
            assert f"\ndef {function}" in (ROOT / "tests" / path).read_text(), test


def test_every_line_of_capabilities_names_the_files_that_test_it_and_no_others():
    tested: dict[int, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for numbers in re.findall(r"^ *(?:async )?def test_cap((?:_[0-9]{3})+)_", path.read_text(), re.MULTILINE):
            for number in numbers.strip("_").split("_"):
                tested.setdefault(int(number), set()).add(str(path.relative_to(ROOT / "tests")))
    rows = re.findall(r"^\| ([0-9]+) \|.*\|(.*)\|$", (ROOT / "docs/capabilities.md").read_text(), re.MULTILINE)
    assert {int(number): set(re.findall(r"`([^`]+)`", files)) for number, files in rows} == tested


def test_the_readme_names_every_command_and_what_the_set_up_fetches():
    readme = (ROOT / "README.md").read_text()
    program = (ROOT / "src/panloom/command/main.py").read_text()
    commands = re.findall(r'^    "([a-z]+)": \("panloom\.command', program, re.MULTILINE)
    assert len(commands) > 20
    named = re.findall(r"`(?:panloom )?([a-z]+)[^`]*`", readme)
    assert set(commands) - set(named) == {"demo", "version"}  # the one is `make demo` there
    megabytes = re.findall(r"megabytes=([0-9]+)", (ROOT / "scripts/setup").read_text())
    assert [f"{number} MB of Python" in readme for number in megabytes] == [True, True]


def test_the_licence_is_the_whole_text():
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_links_between_papers_lead_somewhere():
    for paper in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", paper.read_text()):
            if "://" in target:
                continue
            assert (paper.parent / target).exists(), f"{paper.name}: {target}"
