"""All scenes: everything that matters happens in a dozen calls of each, so that every moment of them is examined, with
each state that a power cut may leave there.
"""

import copy

from panloom.errors import PanloomError
from support.crash import name_scenes, state_scenes, volume_scenes
from support.crash.chapter import Chapter, Finding, boot_of_the_machine
from support.crash.recorder import Recorder
from support.crash.stage import Checks, Scene, Stage

LIMIT = 64  # states that a power cut may leave, of one moment: nearly always all
SCENES = {
    name: each
    for module in (name_scenes, volume_scenes, state_scenes)
    for name, each in vars(module).items()
    if isinstance(each, Scene)
}


def tell(name, directory):
    """Return the chapter that a scene makes, and the entry of its log from which it is to be examined."""
    play, contents = SCENES[name]
    root = directory / "stage"
    root.mkdir()
    contents.write_to(root)
    chapter = Chapter(1, contents, Checks(), [])
    with boot_of_the_machine(directory, 1), Recorder(root, contents) as recorder:
        chapter.log = recorder.log
        stage = Stage(root, recorder)
        play(stage)
        recorder.kill()
    return chapter, stage.first


def examine(examination, name):
    """Look at every moment of a scene; one that goes wrong while it is played is a violation."""
    place = examination.directory / name
    place.mkdir()
    try:
        chapter, first = tell(name, place)
    except (AssertionError, PanloomError, OSError) as error:
        examination.violations.append(Finding(0, 0, 0, "none, while it was played", repr(error)))
    else:
        examination.examine([copy.copy(chapter)], 0, limit=LIMIT, first=first)
