//! The bytes around the hello: what opens a connection, records, lengths.

use super::*;

#[test]
fn two_messages_in_one_record() {
    let both = [Builder::new(b"a.test").message(), message(4, b"ticket")].concat();
    let mut reader = Reader::new();
    assert_eq!(name_of(&reader.feed(&record(22, &both))), Some("a.test"));
    assert_eq!(
        reader.consumed(),
        5 + Builder::new(b"a.test").message().len()
    );
}

#[test]
fn every_record_version_from_ssl3_to_tls13() {
    for minor in 0..=4 {
        let mut wire = Builder::new(b"a.test").wire();
        wire[2] = minor;
        assert_eq!(name_of(&feed(&wire)), Some("a.test"));
    }
}

#[test]
fn not_tls_at_the_first_byte_that_proves_it() {
    for (bytes, proof) in [
        (&b"GET / HTTP/1.1\r\n"[..], 1),
        (b"SSH-2.0-OpenSSH\r\n", 1),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", 1), // PostgreSQL SSLRequest
        (b"\x13\x03\x01\0\x10", 1),
        (b"\x16\x10\x01\0", 2),
        (b"\x15\xff", 2),
        (b"\x17\x03\x03\0\x01x", 1),
        (b"\x18\x03\x03\0\x03\x01", 1),
        (b"\x14\x02\0\x01\x01", 2),
        (b"\x14\x03\x03\x01", 4),
        (b"\x14\x03\x03\0\x02\x01", 5),
        (b"\x14\x03\x03\0\x01\x02", 6),
        (b"\x14\x03\x03\0\0\x17", 6),
        (b"\x15\x03\x03\x42\0\x01", 4),
        (b"\x15\x03\x03\0\x02\x02\x28", 6), // a fatal alert
        (b"\x15\x03\x03\0\0\x17", 6),
        (b"\x15\x01\0\x01", 4),
        (b"\x15\x01\0\0\x03\x01", 5),
        (b"\x16\0\0\x42", 4),
        (b"\x16\0\0\x01\x85\xa6", 6), // a login of MySQL's
        (b"\x15\x02\0\0\x01\0\0\0\0\0\0\0\xdd\x07", 5), // a message of MongoDB's
        (b"\x80\x2e\x02", 3),
        (b"\x80\x2e\x01\x01", 4),
        (b"\x80\x2e\x01\x00\x03", 5),
    ] {
        assert_eq!(feed(&bytes[..proof - 1]), Verdict::NeedMore, "{bytes:x?}");
        assert_eq!(feed(&bytes[..proof]), Verdict::NotTls, "{bytes:x?}");
        assert_eq!(feed(bytes), Verdict::NotTls, "{bytes:x?}");
    }
}

#[test]
fn what_a_server_might_take_for_tls_is_never_called_not_tls() {
    for (bytes, error) in [
        (&b"\x16\x05\x09\0\x80\x01"[..], HelloError::RecordVersion),
        (b"\x16\x02\0\x40\0\x01", HelloError::RecordVersion),
        (b"\x16\0\0\x41\xff\x01", HelloError::RecordVersion),
        (b"\x16\x03\x05", HelloError::RecordVersion),
        (b"\x15\x03\x03\0\x02\x01", HelloError::UnexpectedRecord),
        (b"\x15\x03\xff\0\x01\x01", HelloError::UnexpectedRecord),
        (b"\x15\x03\x01\x41\0\x01", HelloError::UnexpectedRecord),
        (b"\x15\x03\x01\0\0\x16", HelloError::UnexpectedRecord),
        (b"\x15\x05\x09\0\x02\x01", HelloError::UnexpectedRecord),
        (b"\x14\x03\x03\0\x01\x01", HelloError::UnexpectedRecord),
        (b"\x14\x03\x03\0\0\x16", HelloError::UnexpectedRecord),
        (b"\x80\x2e\x01\x00\x02", HelloError::SslV2),
        (b"\xff\x2e\x01\x03\x01", HelloError::SslV2),
    ] {
        assert_eq!(
            feed(&bytes[..bytes.len() - 1]),
            Verdict::NeedMore,
            "{bytes:x?}"
        );
        assert_eq!(field(bytes), error, "{bytes:x?}");
    }
}

#[test]
fn record_layer_faults() {
    let message = Builder::new(b"a.test").message();
    let (one, two) = message.split_at(60);
    let between = |middle: Vec<u8>| [record(22, one), middle, record(22, two)].concat();
    assert_eq!(name_of(&feed(&between(Vec::new()))), Some("a.test"));
    assert_eq!(field(&between(record(22, b""))), HelloError::EmptyRecord);
    assert_eq!(
        field(&between(record(20, b"\x01"))),
        HelloError::UnexpectedRecord
    );
    assert_eq!(
        field(&between(record(21, b"\x01\x5a"))),
        HelloError::UnexpectedRecord
    );
    assert_eq!(
        field(&between(record(23, b"x"))),
        HelloError::UnexpectedRecord
    );
    assert_eq!(
        field(&between(record(24, b"x"))),
        HelloError::UnexpectedRecord
    );
    assert_eq!(field(b"\x16\x03\x01\x40\x01"), HelloError::RecordTooLong);
    assert_eq!(feed(b"\x16\x03\x01\x40\x00"), Verdict::NeedMore);
    assert_eq!(field(b"\x16\x03\x01\0\0"), HelloError::EmptyRecord);
    assert_eq!(field(&record(22, b"\x02")), HelloError::NotClientHello);
    assert_eq!(field(&record(22, b"\0\0\0\0")), HelloError::NotClientHello);
}

#[test]
fn up_to_64_kib_and_not_a_byte_more() {
    let padded = |padding: usize| Builder::new(b"a.test").with(21, &vec![0; padding]);
    let room = MAX_HELLO - padded(0).body().len();
    // The extensions block itself is limited to 2^16-1 bytes; the rest of the room is the session's and the suites'.
    let wire = |padding: usize, suites: usize| {
        let hello = Builder {
            suites: vec![0x13; suites],
            ..padded(padding)
        };
        let records: Vec<u8> = hello
            .message()
            .chunks(1 << 14)
            .flat_map(|f| record(22, f))
            .collect();
        (hello.body().len(), records)
    };
    let (length, largest) = wire(room - 1000, 1004);
    assert_eq!(length, MAX_HELLO);
    assert_eq!(name_of(&feed(&largest)), Some("a.test"));
    let (length, larger) = wire(room - 1000, 1006);
    assert_eq!(length, MAX_HELLO + 2);
    assert_eq!(field(&larger[..9]), HelloError::TooLong);
    assert_eq!(
        field(b"\x16\x03\x01\0\x04\x01\xff\xff\xff"),
        HelloError::TooLong
    );
}

#[test]
fn every_prefix_needs_more_and_every_shortened_hello_is_malformed() {
    let hello = Builder::new(b"a.test").with(16, b"\0\x03\x02h2");
    let wire = hello.wire();
    for length in 0..wire.len() {
        assert_eq!(feed(&wire[..length]), Verdict::NeedMore, "{length}");
    }
    let body = hello.body();
    let extensions_at = 2 + 32 + 33 + 6 + 2;
    for length in 0..body.len() {
        let verdict = feed(&record(22, &message(1, &body[..length])));
        if length == extensions_at {
            assert_eq!(name_of(&verdict), None);
        } else {
            assert!(
                matches!(verdict, Verdict::Malformed(HelloError::Field(_))),
                "{length}: {verdict:?}"
            );
        }
    }
    let over = [body, vec![0]].concat();
    assert_eq!(
        field(&record(22, &message(1, &over))),
        HelloError::Field("extensions")
    );
}
