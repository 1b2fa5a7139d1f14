"""The codecs of ``wire/`` and the values of ``values.py``: any octets are a value that comes back, or are refused."""

import hashlib
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from fuzz.target import target
from panloom.errors import MalformedError
from panloom.values import Iqn, Lun, MacAddress, format_size, parse_duration, parse_size
from panloom.wire import dhcp, dhcpv6, internet, iscsi, iscsi_text, router_advertisement, scsi_cdb, scsi_sense, tftp
from panloom.wire.beacon import Beacon, digest_of
from panloom.wire.dhcp import Message, MessageType, Op, Option

MAC = MacAddress.parse("52:54:00:77:00:01")
PXE = {
    Option.MESSAGE_TYPE: bytes((MessageType.DISCOVER,)),
    Option.VENDOR_CLASS: b"PXEClient:Arch:00007:UNDI:003016",
    Option.CLIENT_ARCHITECTURE: b"\0\7",
    Option.CLIENT_INTERFACE: b"\1\3\x10",
    Option.CLIENT_MACHINE: bytes(17),
    Option.REQUESTED_ADDRESS: bytes((10, 77, 0, 51)),
    Option.RELAY_AGENT: b"\1\4port",
}


@target(
    seeds=lambda: (
        dhcp.encode(Message(op=Op.REQUEST, xid=1, chaddr=MAC, options=PXE)),
        dhcp.encode(Message(op=Op.REPLY, xid=1, chaddr=MAC, file=b"snponly.efi", options={12: b"x" * 600})),
    )
)
def dhcp_message(octets):
    """Any octets are a DHCP message that decodes from its own encoding, or are malformed."""
    with suppress(MalformedError):
        message = dhcp.decode(octets)
        assert dhcp.decode(dhcp.encode(message)) == message
        assert message.message_type in (None, *MessageType)
        for option in (Option.REQUESTED_ADDRESS, Option.SERVER_IDENTIFIER):
            message.address(option)


_ASKING = dhcpv6.Message(
    dhcpv6.Kind.SOLICIT,
    b"abc",
    (
        (1, b"\0\3\0\1" + MAC.to_octets()),
        (3, dhcpv6.encode_association(dhcpv6.Association(1, (dhcpv6.LeasedAddress(IPv6Address("2001:db8::1")),)))),
        (16, dhcpv6.encode_vendor_class(b"PXEClient:Arch:00007:UNDI:003000")),
    ),
)


@target(
    seeds=lambda: (
        dhcpv6.encode(_ASKING),
        dhcpv6.encode(
            dhcpv6.RelayMessage(
                dhcpv6.Kind.RELAY_FORWARD,
                0,
                IPv6Address("2001:db8:88::1"),
                IPv6Address("fe80::1"),
                ((9, dhcpv6.encode(_ASKING)), (79, b"\0\1" + MAC.to_octets())),
            )
        ),
    )
)
def dhcpv6_message(octets):
    """Any octets are a DHCPv6 message that decodes from its own encoding, or are malformed."""
    with suppress(MalformedError):
        message = dhcpv6.decode(octets)
        assert dhcpv6.decode(dhcpv6.encode(message)) == message
        for code, value in message.options:
            if code == dhcpv6.Option.IA_NA:
                found = dhcpv6.decode_association(value)
                assert dhcpv6.decode_association(dhcpv6.encode_association(found)) == found


@target(
    seeds=lambda: (
        internet.encode_udp_frame(
            internet.UdpFrame(internet.BROADCAST_MAC, MAC, IPv4Address(0xFFFFFFFF), IPv4Address(0), 67, 68, b"payload")
        ),
    )
)
def udp_frame(octets):
    """Any octets are a UDP frame that decodes from its own encoding, or are malformed."""
    with suppress(MalformedError):
        frame = internet.decode_udp_frame(octets)
        assert internet.decode_udp_frame(internet.encode_udp_frame(frame)) == frame


@target(
    seeds=lambda: (
        *map(
            tftp.encode,
            (
                tftp.Request("snponly.efi", "octet", {"blksize": "1468", "tsize": "0", "windowsize": "16"}),
                tftp.Data(7, b"x" * 20),
                tftp.Ack(7),
                tftp.Error(1, "no such file"),
                tftp.OptionAck({"blksize": "1468"}),
            ),
        ),
    )
)
def tftp_packet(octets):
    """Any octets are a TFTP packet that decodes from its own encoding, or are malformed."""
    with suppress(MalformedError):
        packet = tftp.decode(octets)
        again = tftp.encode(packet)
        # A few letters grow in lower case: such a request may exceed what a request may be.
        assert tftp.decode(again) == packet or len(again) > len(octets)


def _pdus():
    tags = {"initiator_task_tag": 1}
    numbers = {"stat_sn": 1, "exp_cmd_sn": 1, "max_cmd_sn": 9}
    yield iscsi.LoginRequest(flags=0x87, isid=bytes(6), cmd_sn=1, data=b"InitiatorName=iqn.1994-05.x:a\0", **tags)
    yield iscsi.ScsiCommand(cmd_sn=1, cdb=bytes(16), ahs=bytes(8), data=b"abcde", **tags)
    yield iscsi.DataOut(data=b"x" * 12, **tags)
    yield iscsi.NopOut(cmd_sn=1, data=b"ping", **tags)
    yield iscsi.TextRequest(cmd_sn=1, data=b"SendTargets=All\0", **tags)
    yield iscsi.TaskManagementRequest(flags=0x81, cmd_sn=1, **tags)
    yield iscsi.LogoutRequest(cmd_sn=1, **tags)
    yield iscsi.Snack(**tags)
    yield iscsi.LoginResponse(flags=0x87, isid=bytes(6), **numbers, **tags)
    yield iscsi.ScsiResponse(**numbers, **tags)
    yield iscsi.DataIn(exp_cmd_sn=1, max_cmd_sn=2, data=b"abc", **tags)
    yield iscsi.ReadyToTransfer(
        target_transfer_tag=2, r2t_sn=0, buffer_offset=0, desired_data_transfer_length=512, **numbers, **tags
    )
    yield iscsi.AsyncMessage(async_event=1, **numbers)
    yield iscsi.Reject(reason=4, data=bytes(48), **numbers)


@target(seeds=lambda: map(iscsi.encode, _pdus()))
def iscsi_pdu(octets):
    """Any header and the parts it announces are a PDU that decodes from its own encoding, or are malformed."""
    header = octets[: iscsi.HEADER_OCTETS]
    if len(header) < iscsi.HEADER_OCTETS:
        return
    ahs, data = iscsi.header_lengths(header)
    body = iscsi.HEADER_OCTETS + ahs
    with suppress(MalformedError):
        pdu = iscsi.decode(header, octets[iscsi.HEADER_OCTETS : body], octets[body : body + data])
        again = iscsi.encode(pdu)
        assert len(again) % 4 == 0
        assert iscsi.header_lengths(again) == (ahs, data)
        body = iscsi.HEADER_OCTETS + ahs
        assert iscsi.decode(again[: iscsi.HEADER_OCTETS], again[iscsi.HEADER_OCTETS : body], again[body:][:data]) == pdu


@target(seeds=lambda: (bytes(8), b"\x40\xff".ljust(8, b"\0"), b"\xc1\x01".ljust(8, b"\0")))
def lun_field(octets):
    """Any eight octets name a unit from 0 to 16383, or none; a unit's own field names it."""
    number = iscsi.lun_number(int.from_bytes(octets[:8].ljust(8, b"\0"), "big"))
    if number is not None:
        assert iscsi.lun_number(iscsi.lun_field(Lun(number).number)) == number


@target(
    seeds=lambda: (
        b"InitiatorName=iqn.1994-05.com.example:a\0SessionType=Normal\0AuthMethod=CHAP,None\0",
        b"MaxBurstLength=0x40000\0CHAP_R=0x00112233445566778899aabbccddeeff\0CHAP_C=0bAAECAwQFBgcICQoLDA0ODw==\0",
    )
)
def iscsi_keys(octets):
    """Any octets are keys, numbers and binary values that come back, or are malformed."""
    with suppress(MalformedError):
        keys = iscsi_text.decode_text(octets)
        assert iscsi_text.decode_text(iscsi_text.encode_text(list(keys.items()))) == keys
        for value in keys.values():
            with suppress(MalformedError):
                assert 0 <= iscsi_text.decode_number(value) < 1 << 64
            with suppress(MalformedError):
                binary = iscsi_text.decode_binary(value, longest_octets=64)
                assert len(binary) <= 64
                assert (
                    not binary
                    or iscsi_text.decode_binary(iscsi_text.encode_binary(binary), longest_octets=64) == binary
                )


@target(
    seeds=lambda: (
        *(bytes((operation,)).ljust(16, b"\1") for operation in scsi_cdb.Operation),
        scsi_cdb.encode_unmap_list(((0, 8), (64, 16))),
    )
)
def scsi_command(octets):
    """Any 16 octets are a command that decodes from its own encoding, or none; any others are malformed."""
    with suppress(MalformedError):
        command = scsi_cdb.decode(octets[:16])
        assert command is None or scsi_cdb.decode(scsi_cdb.encode(command)) == command
    with suppress(MalformedError):
        ranges = scsi_cdb.decode_unmap_list(octets)
        assert 16 * len(ranges) <= len(octets)
        assert scsi_cdb.decode_unmap_list(scsi_cdb.encode_unmap_list(ranges)) == ranges or not ranges


@target(seeds=lambda: (scsi_sense.encode(scsi_sense.Sense(5, 0x2100, 7)), scsi_sense.encode(scsi_sense.MISCOMPARE)))
def sense_data(octets):
    """Any octets are sense data that decode from their own encoding, or are malformed."""
    with suppress(MalformedError):
        sense = scsi_sense.decode(octets)
        assert scsi_sense.decode(scsi_sense.encode(sense)) == sense


LINK = IPv6Address("fe80::1")


@target(
    seeds=lambda: (
        router_advertisement.encode_solicitation(router_advertisement.Solicitation(MAC, LINK, MAC)),
        router_advertisement.encode_solicitation(router_advertisement.Solicitation(MAC, IPv6Address(0))),
        router_advertisement.encode_advertisement(router_advertisement.Advertisement(MAC, MAC, LINK, LINK)),
    )
)
def router_message(octets):
    """Any octets are a solicitation or an advertisement that decodes from its own encoding, or are malformed."""
    with suppress(MalformedError):
        asked = router_advertisement.decode_solicitation(octets)
        assert router_advertisement.decode_solicitation(router_advertisement.encode_solicitation(asked)) == asked
    with suppress(MalformedError):
        told = router_advertisement.decode_advertisement(octets)
        assert router_advertisement.decode_advertisement(router_advertisement.encode_advertisement(told)) == told


BEACON = Beacon("shop/web1", 3, 7, digest_of("00ff", "shop/web1", 3, 7))


@target(seeds=lambda: (BEACON.encode(), b"<13>Jan  1 00:00:01 web1: " + BEACON.encode() + b"\n"))
def beacon(octets):
    """Any octets are a beacon that decodes from its own encoding, or are malformed; only the key's owner makes one."""
    with suppress(MalformedError):
        found = Beacon.decode(octets)
        assert Beacon.decode(found.encode()) == found
        made = hashlib.sha256(f"00ff:{found.server}:{found.epoch}:{found.counter}".encode()).hexdigest()
        assert found.is_under("00ff") == (found.digest == made)


@target(seeds=lambda: (b"52:54:00:12:34:56", b"iqn.2026-11.dev.panloom:shop.web1", b"10GiB", b"1.5m", b"16383"))
def value(octets):
    """Any text is a value that comes back from its own spelling, or a ValueError."""
    text = octets.decode(errors="replace")
    for kind in (MacAddress, Iqn, Lun):
        with suppress(ValueError):
            found = kind.parse(text)
            assert kind.parse(str(found)) == found
    with suppress(ValueError):
        format_size(parse_size(text))
    with suppress(ValueError):
        assert 0 <= parse_duration(text) < float("inf")
