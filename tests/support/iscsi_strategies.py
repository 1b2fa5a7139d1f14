"""Any iSCSI PDU at all, and any SCSI command, for hypothesis."""

from hypothesis import strategies as st

from panloom.wire import iscsi
from panloom.wire.scsi_cdb import Operation

U8, U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))

WIDTHS = {
    "flags": U8,
    "lun": U64,
    "isid": st.binary(min_size=6, max_size=6),
    "cdb": st.binary(min_size=16, max_size=16),
}
OCTET_FIELDS = {
    *("version_max", "version_min", "version_active", "response", "status", "reason", "status_class", "status_detail"),
    *("async_event", "async_vcode"),
}
SHORT_FIELDS = {"tsih", "cid", "time2wait", "time2retain", "parameter1", "parameter2", "parameter3"}


def field(name):
    if name == "immediate":
        return st.booleans()
    if name == "ahs":
        return st.integers(0, 8).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
    if name == "data":
        return st.binary(max_size=40)
    return WIDTHS.get(name, U8 if name in OCTET_FIELDS else U16 if name in SHORT_FIELDS else U32)


KINDS = sorted(iscsi.Pdu.__subclasses__(), key=lambda kind: kind.OPCODE)
any_pdu = st.one_of(
    st.builds(kind, **{name: field(name) for name in kind.__struct_fields__})
    for kind in KINDS
)  # fmt: skip

any_cdb = st.builds(
    lambda operation, rest: bytes((operation,)) + rest,
    st.sampled_from(sorted(Operation)),
    st.binary(min_size=15, max_size=15)
    | st.lists(st.sampled_from([0, 0, 0, 1, 8, 255]), min_size=15, max_size=15).map(bytes),
)
any_command = st.builds(
    iscsi.ScsiCommand,
    flags=st.sampled_from([0x80, 0xC0, 0xA0, 0xE0, 0x20, 0x60, 0xC1]),
    lun=st.sampled_from([0, 0, 0, 1 << 48, 0xC100 << 48]),
    initiator_task_tag=st.just(1),
    expected_data_transfer_length=st.sampled_from([0, 1, 24, 96, 200, 512, 1000, 4096, 65536, 2**32 - 1]),
    cmd_sn=st.just(1),
    cdb=any_cdb,
    data=st.sampled_from([b"", b"", b"x" * 24, b"x" * 512, b"x" * 4096]),
)
