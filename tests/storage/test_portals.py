"""How portals are written, and which of them lead to ourselves."""

import pytest

from panloom.storage.portals import leads_here, parse_portal, portal_text


@pytest.mark.parametrize("text", ["192.0.2.1:3260", "[2001:db8::1]:3260"])
def test_decode_undoes_encode(text):
    assert portal_text(*parse_portal(text)) == text


@pytest.mark.parametrize(
    ("portal", "listened"),
    [
        ("192.0.2.1:3260", "192.0.2.1:3260"),
        ("[2001:0db8::1]:3260", "[2001:db8::1]:3260"),
        ("127.0.0.1:3260", "0.0.0.0:3260"),
        ("[::1]:3260", "[::]:3260"),
    ],
)
def test_a_portal_that_leads_to_ourselves(portal, listened):
    assert leads_here(parse_portal(portal), map(parse_portal, ["192.0.2.7:3260", listened]))


@pytest.mark.parametrize(
    ("portal", "listened"),
    [
        ("192.0.2.1:3261", "192.0.2.1:3260"),
        ("192.0.2.2:3260", "192.0.2.1:3260"),
        ("192.0.2.1:3260", "0.0.0.0:3260"),
        ("127.0.0.1:3261", "0.0.0.0:3260"),
        ("127.0.0.1:3260", "[::]:3260"),
    ],
    ids=["another port", "another address", "no address of ours", "another port of ours", "another family"],
)
def test_a_portal_that_leads_elsewhere(portal, listened):
    assert not leads_here(parse_portal(portal), [parse_portal(listened)])
