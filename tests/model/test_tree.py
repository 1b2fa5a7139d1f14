"""Any text is a sequence of documents or one TextError with a place inside the text; nothing else comes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.model.tree import MAX_DEPTH, Mapping, Position, Scalar, Sequence, Text, TextError, Tree


def only(text: str) -> Tree:
    (tree,) = Text(text)
    return tree


def scalars(text: str) -> dict[str, str | None]:
    tree = only(text)
    assert isinstance(tree, Mapping)
    return {entry.key: entry.value.text for entry in tree.entries if isinstance(entry.value, Scalar)}


def test_scalars_stay_as_written():
    written = "mac: 52:54:00:12:34:56\nname: no\nversion: 1.10\nmode: 0o17\nyear: 2026-11-21\nquoted: 'null'\n"
    assert scalars(written) == {
        "mac": "52:54:00:12:34:56",
        "name": "no",
        "version": "1.10",
        "mode": "0o17",
        "year": "2026-11-21",
        "quoted": "null",
    }


@pytest.mark.parametrize("null", ["", "~", "null", "Null", "NULL"])
def test_nothing_is_none(null):
    assert scalars(f"a: {null}") == {"a": None}


def test_positions_count_characters_from_one():
    tree = only("é: x\nlist:\n  - ü: yes\n")
    assert isinstance(tree, Mapping)
    listed = tree.entries[1].value
    assert isinstance(listed, Sequence)
    inner = listed.items[0]
    assert isinstance(inner, Mapping)
    assert tree.entries[0].value.at == Position(1, 4)
    assert (inner.entries[0].at, inner.entries[0].value.at) == (Position(3, 5), Position(3, 8))


def test_crlf_and_a_byte_order_mark_do_not_shift_positions():
    tree = only("\ufeffa: 1\r\nb: 2\r\n")
    assert isinstance(tree, Mapping)
    assert [entry.at for entry in tree.entries] == [Position(1, 1), Position(2, 1)]


def test_duplicate_keys_are_named_with_both_positions_and_do_not_end_the_reading():
    text = Text("a: 1\nb: 2\na: 3\n---\nc: {x: 1, x: 2}\n")
    assert len(list(text)) == 2
    assert [(found.at, "1:1" in found.why or "5:5" in found.why) for found in text.duplicates] == [
        (Position(3, 1), True),
        (Position(5, 11), True),
    ]


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("a:\n\tb: 1\n", Position(2, 1), "tab"),
        ("a: b: c\n", Position(1, 5), "colon"),
        ("a: {b: 10.1.0.1[1-2]}\n", Position(1, 16), "quote"),
        ("a: 'b\n", Position(2, 1), "begun at line 1, column 4"),
        ("a: !!int 3\n", Position(1, 4), "!!int"),
        ("a: !custom {}\n", Position(1, 4), "!custom"),
        ("a: *x\n", Position(1, 4), "&x"),
        ("a: &x [*x]\n", Position(1, 8), "&x"),
        ("? [a]\n: b\n", Position(1, 3), "word"),
        ("~: b\n", Position(1, 1), "missing"),
        ("x: &x {a: 1}\ny: {<<: *x}\n", Position(2, 5), "merge"),
        ("a: \x01\n", Position(1, 4), "character"),
        ("a: \ud800\n", Position(1, 4), "character"),
        ("[" * 100_000, Position(1, MAX_DEPTH + 1), "deep"),
        ("{a: " * 100_000, Position(1, 4 * MAX_DEPTH + 1), "deep"),
    ],
)
def test_awkward_text_is_refused_at_its_place(text, at, words):
    with pytest.raises(TextError) as caught:
        list(Text(text))
    assert caught.value.at == at
    assert words in caught.value.why


def test_an_alias_bomb_is_refused_before_it_grows():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(TextError, match="aliases"):
        list(Text("\n".join(lines)))


def test_an_alias_means_what_it_names():
    assert isinstance(only("a: &x {b: 1}\nc: *x\n"), Mapping)


yaml_like = st.text(alphabet=st.sampled_from(list("ab:-[]{}&*!?|>'\"#%@`,~ \t\n\r01<\ufeffé\ud800\x00")), max_size=60)


@given(st.text() | yaml_like)
def test_any_text_is_documents_or_a_text_error(text):
    lines = text.splitlines() or [""]
    try:
        list(Text(text))
    except TextError as error:
        assert 1 <= error.at.line <= len(lines) + 1
        assert error.at.column >= 1
        assert error.why
