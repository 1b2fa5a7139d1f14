import pytest

from panloom.boot.file_root import FileRoot


@pytest.fixture
def root(tmp_path):
    directory = tmp_path / "files"
    (directory / "sub").mkdir(parents=True)
    (directory / "snponly.efi").write_bytes(b"loader")
    (directory / "sub" / "vmlinuz").write_bytes(b"kernel")
    (directory / "inside").symlink_to("snponly.efi")
    (directory / "loop").symlink_to("loop")
    (directory / "out").symlink_to("../secret")
    (directory / "up").symlink_to("..")
    (tmp_path / "secret").write_bytes(b"secret")
    return FileRoot(directory)


@pytest.mark.parametrize("name", ["snponly.efi", "sub/vmlinuz", "inside"])
def test_files_below_the_directory_are_found(root, name):
    assert root.find(name).read_bytes() in (b"loader", b"kernel")
    assert name in root


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/", "/snponly.efi", "../secret", "sub/../../secret", "sub/../snponly.efi", "./snponly.efi"),
        *("sub", "sub/", "sub//vmlinuz", "out", "up/secret", "loop", "missing", "snponly.efi/x", "%2e%2e/secret"),
        *("..\\secret", "snponly.efi\0", "\0", "n" * 512, "\ud800", "/etc/passwd", "C:\\boot"),
    ],
)
def test_nothing_else_is(root, name):
    assert root.find(name) is None
    assert name not in root


def test_without_a_directory_there_is_no_file():
    assert FileRoot(None).find("snponly.efi") is None
