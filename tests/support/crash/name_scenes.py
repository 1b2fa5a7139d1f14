"""Scenes of files and their names."""

import errno

from panloom.disk_io import write_fully
from panloom.durable_names import Directory, PartialFile
from support.crash.stage import scene


@scene()
def a_file_in_new_directories(stage):
    directory = Directory(stage.root / "a" / "b")
    with PartialFile(directory, "x", 0o600) as file:
        write_fully(file.fd, [b"x" * 1500], 0)
        file.appear("x")
    stage.always("x is whole", lambda root: (root / "a" / "b" / "x").read_bytes() == b"x" * 1500)


@scene()
def a_name_that_is_seen_after_it_could_not_be_made_durable(stage):
    directory = Directory(stage.root / "a")
    with stage.failing("open", 1, errno.EMFILE), PartialFile(directory, "x", 0o600) as file:
        file.appear("x")
    if directory.holds("x"):
        stage.always("x is there", lambda root: (root / "a" / "x").exists())


@scene()
def a_list_of_names_after_one_could_not_be_made_durable(stage):
    directory = Directory(stage.root / "a")
    with stage.failing("open", 1, errno.EMFILE), PartialFile(directory, "x", 0o600) as file:
        file.appear("x")
    if "x" in directory.names():
        stage.always("x is there", lambda root: (root / "a" / "x").exists())


@scene()
def a_second_name(stage):
    directory = _directory_with_x(stage)
    directory.link("x", "y")
    stage.always("y is there", lambda root: (root / "a" / "y").exists())


@scene()
def another_name(stage):
    directory = _directory_with_x(stage)
    directory.move("x", "y")
    stage.always("y is there", lambda root: (root / "a" / "y").exists())


@scene()
def a_name_that_is_gone(stage):
    directory = _directory_with_x(stage)
    directory.remove("x")
    stage.always("x is gone", lambda root: not (root / "a" / "x").exists())


def _directory_with_x(stage):
    directory = Directory(stage.root / "a")
    with PartialFile(directory, "x", 0o600) as file:
        file.appear("x")
    stage.from_here()
    return directory
