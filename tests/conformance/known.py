"""What tgtd 1.0.85 does with the same tests, where it is not run beside us: pass, fail, skip, hang or crash.

The best of two LUN profiles (thin; removable and thin), each test in a process of its own.
"""

TGTD = {
    **dict.fromkeys(("Verify10", "Verify12", "Verify16"), (8, 0, 0, 0)),
    **dict.fromkeys(("Read12", "Read16", "ModeSense6"), (5, 0, 0, 0)),
    **dict.fromkeys(("Read10", "OrWrite", "Write10", "WriteVerify10", "WriteVerify12", "WriteVerify16"), (6, 0, 0, 0)),
    **dict.fromkeys(("Write12", "Write16"), (5, 0, 0, 0)),
    **dict.fromkeys(("WriteSame10", "WriteSame16"), (9, 0, 1, 0)),
    **dict.fromkeys(("Prefetch10", "Prefetch16", "ReadCapacity16"), (4, 0, 0, 0)),
    **dict.fromkeys(("Mandatory", "TestUnitReady", "ReadCapacity10", "ProutRegister"), (1, 0, 0, 0)),
    **dict.fromkeys(("ProutClear", "ProutPreempt", "PrinReportCapabilities"), (1, 0, 0, 0)),
    **dict.fromkeys(("ReadDefectData10", "ReadDefectData12", "ReadOnly", "NoMedia"), (0, 0, 1, 0)),
    **dict.fromkeys(("PrinServiceactionRange", "iSCSIdatasn"), (0, 1, 0, 0)),
    **dict.fromkeys(("PrinReadKeys", "Read6", "iSCSIcmdsn"), (2, 0, 0, 0)),
    **dict.fromkeys(("ExtendedCopy", "WriteAtomic16"), (0, 0, 6, 0)),
    "CompareAndWrite": (0, 0, 5, 0),
    "GetLBAStatus": (1, 2, 0, 0),
    "Inquiry": (6, 0, 1, 0),
    "MultipathIO": (2, 1, 1, 0),
    "PreventAllow": (5, 1, 2, 0),
    "ProutReserve": (9, 4, 0, 0),
    "ReceiveCopyResults": (0, 0, 2, 0),
    "ReportSupportedOpcodes": (3, 0, 1, 0),
    "Reserve6": (4, 1, 2, 0),
    "Sanitize": (0, 0, 11, 0),
    "StartStopUnit": (3, 0, 0, 0),
    "Unmap": (1, 1, 1, 0),
    "iSCSIResiduals": (10, 0, 0, 0),
    "iSCSITMF": (1, 0, 0, 1),
}
