use proptest::prelude::*;

use super::*;

/// A body with the given extensions, as a handshake message.
fn message(extensions: Option<&[(u16, Vec<u8>)]>) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(32);
    body.extend([9; 32]);
    body.extend([0, 2, 0x13, 0x01]);
    body.extend([1, 0]);
    if let Some(extensions) = extensions {
        let mut all = Vec::new();
        for (kind, content) in extensions {
            all.extend(kind.to_be_bytes());
            all.extend((content.len() as u16).to_be_bytes());
            all.extend(content);
        }
        body.extend((all.len() as u16).to_be_bytes());
        body.extend(all);
    }
    let mut message = vec![CLIENT_HELLO];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    message
}

fn name_entry(kind: u8, name: &[u8]) -> Vec<u8> {
    let mut entry = vec![kind];
    entry.extend((name.len() as u16).to_be_bytes());
    entry.extend(name);
    entry
}

fn name_extension(entries: &[Vec<u8>]) -> (u16, Vec<u8>) {
    let list = entries.concat();
    let mut content = (list.len() as u16).to_be_bytes().to_vec();
    content.extend(list);
    (EXTENSION_SERVER_NAME, content)
}

fn sni(name: &str) -> (u16, Vec<u8>) {
    name_extension(&[name_entry(0, name.as_bytes())])
}

/// The message in records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in message.chunks(size) {
        wire.extend([HANDSHAKE, 3, 1]);
        wire.extend((piece.len() as u16).to_be_bytes());
        wire.extend(piece);
    }
    wire
}

fn read(wire: &[u8], step: usize) -> Progress {
    let mut reader = Reader::new();
    for piece in wire.chunks(step) {
        match reader.push(piece) {
            Progress::More => {}
            end => return end,
        }
    }
    assert_eq!(reader.bytes(), wire);
    Progress::More
}

fn named(name: &str) -> Progress {
    Progress::Hello(ClientHello { server_name: Some(name.into()) })
}

const NAMELESS: Progress = Progress::Hello(ClientHello { server_name: None });
const MALFORMED: Progress = Progress::Refused(Refusal::Malformed);
const TOO_LONG: Progress = Progress::Refused(Refusal::TooLong);

#[test]
fn any_pieces_give_the_same_name() {
    // A key share as large as X25519MLKEM768's, and an ECH extension.
    let message = message(Some(&[(51, vec![5; 1216]), sni("Shop.Example."), (0xfe0d, vec![8; 700])]));
    for size in [1, 2, 3, 5, 100, 1400, RECORD_MAX] {
        let wire = records(&message, size);
        for step in [1, 2, 7, 536, 1400, wire.len()] {
            assert_eq!(read(&wire, step), named("shop.example"), "records of {size}, steps of {step}");
        }
        for cut in [0, 1, 4, 5, 6, wire.len() / 2, wire.len() - 1] {
            assert_eq!(read(&wire[..cut], 64.max(cut)), Progress::More, "cut at {cut}");
        }
    }
}

#[test]
fn bytes_after_the_hello_are_kept_and_not_judged() {
    let mut wire = records(&message(Some(&[sni("a.b")])), 100);
    wire.extend([23, 3, 3, 0, 5, 1, 2, 3]);
    let mut reader = Reader::new();
    assert_eq!(reader.push(&wire), named("a.b"));
    assert_eq!(reader.bytes(), wire);
}

#[test]
fn hellos_without_a_name() {
    assert_eq!(read(&records(&message(None), 400), 9), NAMELESS);
    assert_eq!(read(&records(&message(Some(&[])), 400), 9), NAMELESS);
    assert_eq!(read(&records(&message(Some(&[(43, vec![2, 3, 4])])), 400), 9), NAMELESS);
}

#[test]
fn ambiguous_and_damaged_hellos_are_refused() {
    let refused = |extensions: &[(u16, Vec<u8>)]| read(&records(&message(Some(extensions)), 4000), 4096) == MALFORMED;
    assert!(refused(&[sni("a.b"), sni("c.d")]));
    assert!(refused(&[name_extension(&[name_entry(0, b"a.b"), name_entry(0, b"c.d")])]));
    assert!(refused(&[name_extension(&[name_entry(0, b"")])]));
    assert!(refused(&[name_extension(&[])]));
    assert!(refused(&[name_extension(&[name_entry(0, b"a b")])]));
    assert!(refused(&[name_extension(&[name_entry(0, "\u{fc}.b".as_bytes())])]));
    assert!(refused(&[(0, vec![])]));
    assert!(refused(&[(0, vec![0, 9, 0, 0, 3, b'a'])]));
    let mut trailing = sni("a.b");
    trailing.1.push(0);
    assert!(refused(&[trailing]));

    // A length inside that is larger than what is there.
    let mut long = message(Some(&[sni("a.b")]));
    let last = long.len() - 1;
    long[last - 3] = 9;
    assert_eq!(read(&records(&long, 4000), 4096), MALFORMED);
    // Another handshake message, an empty record, a record too long, another record in between.
    assert_eq!(read(&records(&[2, 0, 0, 1, 0], 10), 4096), MALFORMED);
    assert_eq!(read(&[22, 3, 1, 0, 0], 1), MALFORMED);
    assert_eq!(read(&[22, 3, 1, 0x40, 1], 1), MALFORMED);
    let mut mixed = records(&message(Some(&[sni("a.b")]))[..20], 20);
    mixed.extend([23, 3, 3, 0, 1, 0]);
    assert_eq!(read(&mixed, 1), MALFORMED);
}

#[test]
fn other_protocols_are_told_by_their_first_bytes() {
    for first in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x", &[0x80, 0x2e, 1, 3, 1], &[22, 2]] {
        assert_eq!(read(first, 1), Progress::Refused(Refusal::NotTls));
    }
}

#[test]
fn what_is_too_long_is_refused_early() {
    // The length alone says so.
    assert_eq!(read(&records(&[1, 0, 0x40, 1], 4), 1), TOO_LONG);
    assert_eq!(read(&records(&[1, 0xff, 0xff, 0xff], 4), 1), TOO_LONG);
    // Records of one byte use the wire up.
    let long = message(Some(&[(51, vec![0; 8000]), sni("a.b")]));
    assert_eq!(read(&records(&long, 1), 1), TOO_LONG);
    // The largest that is allowed.
    let most = message(Some(&[(51, vec![0; MESSAGE_MAX - 91]), sni("a.b")]));
    assert_eq!(most.len(), MESSAGE_HEADER + MESSAGE_MAX);
    assert_eq!(read(&records(&most, 1400), 1400), named("a.b"));
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), step in 1_usize..50) {
        let _ = read(&bytes, step);
        let mut wire = vec![22, 3, 1, 0, 200, 1, 0, 0, 190];
        wire.extend(bytes);
        let _ = read(&wire, step);
    }

    /// Any change of up to four bytes of a good hello: no panic, and the pieces never matter.
    #[test]
    fn mutations_are_read_alike_in_all_pieces(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        size in 1_usize..300,
        step in 1_usize..64,
    ) {
        let mut wire = records(&message(Some(&[(51, vec![5; 60]), sni("shop.example"), (43, vec![2, 3, 4])])), size);
        for (place, byte) in changes {
            let place = place.index(wire.len());
            wire[place] = byte;
        }
        prop_assert_eq!(read(&wire, step), read(&wire, wire.len()));
    }

    #[test]
    fn names_come_through(name in "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?(\\.[a-z0-9]{1,20}){0,4}", size in 1_usize..500) {
        prop_assert_eq!(read(&records(&message(Some(&[sni(&name.to_uppercase())])), size), 3), named(&name));
    }
}
