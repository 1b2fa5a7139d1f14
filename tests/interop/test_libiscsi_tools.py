"""libiscsi 1.19's own tools against our target: iscsi-ls, iscsi-inq, iscsi-readcapacity16 and its test-suite."""

import re
import subprocess

import pytest

from panloom.protocol.chap import Credentials
from panloom.storage.exports import Moved
from support.file_target import TARGET, FileDisk, FileManager, serving

BLOCKS = 131072
WEB1 = Credentials("web1", "secret-of-web1")


def run(*command, status=0):
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, errors="replace", check=False)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(params=[Credentials(), WEB1], ids=["none", "chap"])
def target(request, tmp_path):
    """Serve a disk and a small read-only one; yield the user's part of the URL and the portal."""
    disks = {0: FileDisk(tmp_path / "disk", BLOCKS), 1: FileDisk(tmp_path / "facts", 8, read_only=True)}
    with serving(FileManager(disks, wanted=request.param)) as portal:
        user = f"{request.param.user}%{request.param.secret}@" if request.param.user else ""
        yield f"iscsi://{user}{portal}"


def test_iscsi_ls(target):
    told = run("iscsi-ls", "-s", target)
    assert f"Target:{TARGET} Portal:" in told
    assert re.search(r"Lun:0 +Type:DIRECT_ACCESS \(Size:63M\)", told)
    assert re.search(r"Lun:1 +Type:DIRECT_ACCESS", told)


def test_iscsi_inq(target):
    told = run("iscsi-inq", f"{target}/{TARGET}/0")
    assert "Peripheral Device Type:DIRECT_ACCESS" in told
    assert "Vendor:PANLOOM" in told
    for page, word in ((0x80, "0001"), (0x83, "PANLOOM"), (0xB0, "maximum unmap lba count:1048576")):
        assert word in run("iscsi-inq", "-e", "1", "-c", str(page), f"{target}/{TARGET}/0"), page


def test_iscsi_readcapacity16(target):
    told = run("iscsi-readcapacity16", f"{target}/{TARGET}/0")
    assert f"RETURNED LOGICAL BLOCK ADDRESS:{BLOCKS - 1}" in told
    assert "LOGICAL BLOCK LENGTH IN BYTES:512" in told
    assert "LBPME:1 LBPRZ:1" in told


def test_a_wrong_secret_gets_nothing(tmp_path):
    with serving(FileManager({0: FileDisk(tmp_path / "disk", BLOCKS)}, wanted=WEB1)) as portal:
        for user in ("", "web1%guessed@", "web2%secret-of-web1@"):
            ended = subprocess.run(
                ["iscsi-inq", f"iscsi://{user}{portal}/{TARGET}/0"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert ended.returncode != 0
            assert "PANLOOM" not in ended.stdout


BOTH = Credentials("web1", "secret-of-web1", "shop", "secret-of-shop")


@pytest.mark.parametrize(("secret", "status"), [("secret-of-shop", 0), ("another-secret", 10)])
def test_both_prove_themselves(tmp_path, secret, status):
    with serving(FileManager({0: FileDisk(tmp_path / "disk", BLOCKS)}, wanted=BOTH)) as portal:
        url = f"iscsi://web1%secret-of-web1@{portal}/{TARGET}/0?target_user=shop&target_password={secret}"
        told = run("iscsi-inq", url, status=status)
    assert ("Vendor:PANLOOM" in told) == (status == 0)


@pytest.mark.parametrize("user", ["0x123", "0bdGVzdA=="])
def test_a_user_who_is_called_like_a_number(tmp_path, user):
    wanted = Credentials(user, "secret-of-web1")
    with serving(FileManager({0: FileDisk(tmp_path / "disk", BLOCKS)}, wanted=wanted)) as portal:
        assert "Vendor:PANLOOM" in run("iscsi-inq", f"iscsi://{user}%secret-of-web1@{portal}/{TARGET}/0")


def test_a_target_that_has_moved_is_followed(tmp_path):
    there = FileManager({0: FileDisk(tmp_path / "there", BLOCKS)})
    here = FileManager({0: FileDisk(tmp_path / "here", BLOCKS)})
    with serving(there) as elsewhere, serving(here) as portal:
        here.elsewhere = Moved(elsewhere)
        assert "Vendor:PANLOOM" in run("iscsi-inq", f"iscsi://{portal}/{TARGET}/0")
    assert len(there.ended) == 1
    assert here.ended == []


FAMILIES = [
    *("Inquiry", "Mandatory", "ModeSense6", "Prefetch10", "Prefetch16", "Read6", "Read10", "Read12", "Read16"),
    *("ReadCapacity10", "ReadCapacity16", "ReportSupportedOpcodes", "TestUnitReady", "Unmap"),
    *("Verify10", "Verify12", "Verify16", "Write10", "Write12", "Write16", "WriteSame10", "WriteSame16"),
    *("CompareAndWrite", "ExtendedCopy", "GetLBAStatus", "OrWrite", "ReadDefectData10", "ReadDefectData12"),
    *("PrinReadKeys", "PrinServiceactionRange", "PrinReportCapabilities", "ProutRegister", "ProutReserve"),
    *("ProutClear", "ProutPreempt", "ReceiveCopyResults", "Reserve6"),
    *("WriteVerify10", "WriteVerify12", "WriteVerify16"),
    *("iSCSIcmdsn", "iSCSIdatasn", "iSCSIResiduals", "iSCSITMF"),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_iscsi_test_cu(family, tmp_path):
    with serving(FileManager({0: FileDisk(tmp_path / "disk", BLOCKS)})) as portal:
        told = run("iscsi-test-cu", "-n", "-d", "-t", f"ALL.{family}", f"iscsi://{portal}/{TARGET}/0")
    summary = re.search(r"tests +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)", told)
    assert summary, told
    total, ran, passed, failed, inactive = map(int, summary.groups())
    assert total == ran == passed > 0, told
    assert failed == inactive == 0, told
