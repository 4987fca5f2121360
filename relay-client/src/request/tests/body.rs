//! Where messages end: lengths, chunks, trailers, tunnels.

use super::*;

#[test]
fn framing() {
    use HeadError::{ContentLength, TransferEncoding, TwoFramings};
    let framing = |fields: &str| {
        let told = tell([&with_fields(fields.as_bytes())[..]]);
        told.error.map_or_else(|| Ok(told.heads[0].3), Err)
    };
    assert_eq!(framing(""), Ok(Framing::None));
    for (value, length) in [
        (" 5", 5),
        ("5", 5),
        (" 0", 0),
        (" 18446744073709551615", u64::MAX),
    ] {
        assert_eq!(
            framing(&format!("Content-Length:{value}\r\n")),
            Ok(Framing::Length(length)),
            "{value}"
        );
    }
    for value in [
        " 5, 5",
        " 5,5",
        " +5",
        " -5",
        " 5 ",
        " 5\t",
        "  5",
        "\t5",
        " 0x5",
        " 5 5",
        "",
        " ",
        " 5a",
        " 18446744073709551616",
        " 99999999999999999999999",
        " 5;",
        " \u{665}",
        " 5.0",
        " 1e3",
        " 5_0",
    ] {
        assert_eq!(
            framing(&format!("Content-Length:{value}\r\n")),
            Err(ContentLength),
            "{value:?}"
        );
    }
    assert_eq!(
        framing("Content-Length: 5\r\ncontent-length: 5\r\n"),
        Err(ContentLength)
    );
    for value in [" chunked", "chunked", " Chunked", " CHUNKED"] {
        assert_eq!(
            framing(&format!("Transfer-Encoding:{value}\r\n")),
            Ok(Framing::Chunked),
            "{value}"
        );
    }
    for value in [
        " chunked, identity",
        " identity, chunked",
        " xchunked",
        " chunked,",
        ",chunked",
        " chunked ",
        "  chunked",
        "\tchunked",
        " chunked\t",
        " \"chunked\"",
        " identity",
        "",
        " gzip",
        " gzip, chunked",
        " chunked;q=1",
        " chunked, chunked",
    ] {
        assert_eq!(
            framing(&format!("Transfer-Encoding:{value}\r\n")),
            Err(TransferEncoding),
            "{value:?}"
        );
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-encoding: chunked\r\n";
    assert_eq!(framing(twice), Err(TransferEncoding));
    for both in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: x\r\nContent-Length: 0\r\n",
    ] {
        assert_eq!(framing(both), Err(TwoFramings));
    }
    let old = b"POST http://a.test/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(error_of(old), Some(TransferEncoding));
}

#[test]
fn connect_has_no_body_and_a_tunnel_after_it() {
    let connect = |fields: &str| {
        format!("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\x16\x03\x01")
            .into_bytes()
    };
    for fields in ["", "Content-Length: 0\r\n"] {
        let told = tell([&connect(fields)[..]]);
        assert!(told.opaque && told.error.is_none());
        assert_eq!(told.consumed, connect(fields).len() - 3);
    }
    for fields in [
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: x\r\n",
    ] {
        assert_eq!(
            error_of(&connect(fields)),
            Some(HeadError::ConnectContent),
            "{fields}"
        );
    }
}

fn chunked(body: &str) -> Vec<u8> {
    let head = with_fields(b"Transfer-Encoding: chunked\r\n");
    [&head[..], body.as_bytes()].concat()
}

#[test]
fn chunked_bodies_end_where_they_end() {
    for body in [
        "0\r\n\r\n",
        "000\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "0000000000000005\r\nhello\r\n0\r\n\r\n",
        "a;x;y=z;q=\"a \\\" ; b\"\r\n0123456789\r\n0;last\r\n\r\n",
        "A\r\n01\r\n456789\r\n0\r\nDigest: abc\r\nX: \r\n\r\n",
    ] {
        let next = b"GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let bytes = [&chunked(body)[..], next].concat();
        let told = tell([&bytes[..]]);
        assert_eq!(told, tell(bytes.chunks(1)), "{body}");
        assert_eq!(
            (told.error, told.heads.len(), told.bodies[0]),
            (None, 2, body.len()),
            "{body}"
        );
        assert_eq!(told.heads[1].1, b"/next");
        assert_eq!(told.consumed, bytes.len());
    }
    let told = tell([&chunked("0\r\nDigest: abc\r\nHost: evil\r\n\r\n")[..]]);
    assert_eq!(
        told.trailers,
        [[
            (b"Digest".to_vec(), b"abc".to_vec()),
            (b"Host".to_vec(), b"evil".to_vec())
        ]]
    );
}

#[test]
fn chunk_faults() {
    use HeadError::{
        BareCr, BareLf, ChunkEnd, ChunkExtension, ChunkSize, FieldName, Folding, TrailersTooLarge,
    };
    let long = format!("1;{}\r\n", "x".repeat(2000));
    let trailers = format!("0\r\n{}\r\n", "X: 0123456789\r\n".repeat(MAX_FIELDS + 1));
    let trailer = format!("0\r\nX: {}\r\n\r\n", "y".repeat(MAX_TRAILERS));
    for (body, error) in [
        ("0x5\r\n", ChunkSize),
        ("-1\r\n", ChunkSize),
        ("+1\r\n", ChunkSize),
        (" 1\r\n", ChunkSize),
        ("1 \r\n", ChunkSize),
        ("1\t;x\r\n", ChunkSize),
        ("\r\n", ChunkSize),
        (";x\r\n", ChunkSize),
        ("g\r\n", ChunkSize),
        ("00000000000000005\r\n", ChunkSize),
        ("10000000000000000\r\n", ChunkSize),
        ("5\nhello\r\n", BareLf),
        ("5\r\rhello", BareCr),
        ("5;\r\nhello", ChunkExtension),
        ("5; x\r\nhello", ChunkExtension),
        ("5;x=\r\nhello", ChunkExtension),
        ("5;x=\"a\r\nhello", ChunkExtension),
        ("5;x=\"a\"b\r\nhello", ChunkExtension),
        ("5;x\n\r\nhello", BareLf),
        ("5;x=\"\n\"\r\nhello", BareLf),
        ("5;x=\0\r\nhello", ChunkExtension),
        (&long, ChunkExtension),
        ("5\r\nhello0\r\n\r\n", ChunkEnd),
        ("5\r\nhello\n0\r\n\r\n", ChunkEnd),
        ("5\r\nhello\r0", ChunkEnd),
        ("5\r\nhello \r\n", ChunkEnd),
        ("0\r\nX\r\n\r\n", FieldName),
        ("0\r\n X: y\r\n\r\n", Folding),
        ("0\r\nX: y\n\r\n", BareLf),
        ("0\r\n\n", BareLf),
        (&trailers, TrailersTooLarge),
        (&trailer, TrailersTooLarge),
    ] {
        assert_eq!(
            error_of(&chunked(body)),
            Some(error),
            "{}",
            &body[..body.len().min(40)]
        );
    }
}

#[test]
fn trailers_are_those_of_the_last_message_only() {
    let first = chunked("0\r\nA: 1\r\n\r\n");
    let second = chunked("0\r\nB: 2\r\n\r\n");
    let third = with_fields(b"");
    let told = tell([&[first, second, third].concat()[..]]);
    let names: Vec<Vec<&[u8]>> = told
        .trailers
        .iter()
        .map(|message| message.iter().map(|(name, _)| &name[..]).collect())
        .collect();
    assert_eq!(names, [vec![&b"A"[..]], vec![b"B"], vec![]]);
}
