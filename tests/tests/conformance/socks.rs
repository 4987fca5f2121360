//! K. SOCKS5: what only it can say.

use e2e::raw::End;
use e2e::{Record, Socks, Wire, socks};

use crate::lab::{Lab, Shared, settings};
use crate::sandbox::Expect::{Denied, Malformed};
use crate::table::{Front, Row};

static LAB: Shared = Shared::new(settings);

async fn logged_in(lab: &Lab) -> Socks {
    let address = lab.gateway.listener("socks").await;
    let mut client = Socks::dial(address, &lab.session.handle).await;
    assert_eq!(client.login().await, 0);
    client
}

/// A connection to the listener, nothing said yet.
async fn fresh(lab: &Lab) -> Wire {
    Wire::dial(lab.gateway.listener("socks").await).await
}

/// This request gets this code, then the end; nothing is asked of anybody.
async fn refused(lab: &Lab, row: &mut Row, request: &[u8], code: u8) -> Record {
    let what = request.escape_ascii().to_string();
    let mut client = logged_in(lab).await;
    let mark = lab.mark();
    assert_eq!(client.request(request).await, code, "{what}");
    assert_eq!(client.wire.rest().await, (Vec::new(), End::Fin), "{what}");
    lab.nothing_since(&mark, &what);
    row.on(Front::Socks);
    let record = lab.refusal_of(client.wire.local()).await;
    assert_eq!(record.text("outcome"), "refused", "{what}: {record:?}");
    record
}

/// Closed with these last bytes and no others.
async fn closed(lab: &Lab, row: &mut Row, sent: &[u8], last: &[u8], reason: &str) {
    let what = sent.escape_ascii().to_string();
    let mut wire = fresh(lab).await;
    let mark = lab.mark();
    wire.send(sent).await;
    assert_eq!(wire.rest().await, (last.to_vec(), End::Fin), "{what}");
    lab.nothing_since(&mark, &what);
    row.on(Front::Socks);
    let record = lab.refusal_of(wire.local()).await;
    assert_eq!(
        (record.text("outcome"), record.text("reason")),
        ("refused", reason),
        "{what}: {record:?}"
    );
}

#[test]
pub(crate) fn v134_names() {
    LAB.run(134, async |lab, row| {
        let port = lab.api.port();
        let long = [
            &[b'a'; 63][..],
            b".",
            &[b'b'; 63],
            b".",
            &[b'c'; 63],
            b".",
            &[b'd'; 63],
        ];
        let names: [&[u8]; 6] = [
            b"",
            b"api.allowed.test\0",
            b"api\0.allowed.test",
            b"[::1]",
            b"127.1",
            &long.concat(),
        ];
        for name in names {
            let request = socks::by_name(name, port).unwrap();
            let record = refused(lab, row, &request, 1).await;
            assert_eq!(record.text("reason"), "malformed_target", "{record:?}");
        }
        // Text that is an address is one: refused as one, allowed as one.
        for literal in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1"] {
            let request = socks::by_name(literal.as_bytes(), port).unwrap();
            let record = refused(lab, row, &request, 2).await;
            assert_eq!(record.text("reason"), "address_not_allowed", "{record:?}");
        }
        let session = lab.allowing(&[&format!("127.0.0.1:{port}")]).await;
        let address = lab.gateway.listener("socks").await;
        let mut client = Socks::dial(address, &session.handle).await;
        assert_eq!(client.login().await, 0);
        let request = socks::by_name(b"127.0.0.1", port).unwrap();
        assert_eq!(client.request(&request).await, 0);
        // Port 0 is nobody's, and an address type nobody knows has a code of its own.
        refused(
            lab,
            row,
            &socks::by_name(b"api.allowed.test", 0).unwrap(),
            1,
        )
        .await;
        refused(lab, row, &[5, 1, 0, 2, 1, 2, 3, 4, 1, 187], 8).await;
    });
}

#[test]
pub(crate) fn v135_mapped_addresses() {
    LAB.run(135, async |lab, row| {
        let port = lab.api.port();
        let mapped = "::ffff:127.0.0.1".parse().unwrap();
        let record = refused(lab, row, &socks::by_address(mapped, port), 2).await;
        assert_eq!(record.text("reason"), "address_not_allowed");
        let metadata = "::ffff:169.254.169.254".parse().unwrap();
        let record = refused(lab, row, &socks::by_address(metadata, 80), 2).await;
        assert!(
            ["address_not_allowed", "metadata_address"].contains(&record.text("reason")),
            "{record:?}"
        );
        // A rule for the IPv4 address decides its mapped form too.
        let denied = lab
            .sandbox(serde_json::json!({"egress": {
                "allowedHosts": [format!("127.0.0.0/8:{port}")],
                "deniedHosts": ["127.0.0.1:*"],
            }}))
            .await;
        let address = lab.gateway.listener("socks").await;
        let mut client = Socks::dial(address, &denied.handle).await;
        assert_eq!(client.login().await, 0);
        assert_eq!(client.request(&socks::by_address(mapped, port)).await, 2);
        let record = lab.refusal_of(client.wire.local()).await;
        assert_eq!(record.text("reason"), "host_denied", "{record:?}");
    });
}

#[test]
pub(crate) fn v136_other_commands() {
    LAB.run(136, async |lab, row| {
        let target = lab.api_target();
        for command in [0, 2, 3, 4, 0x80, 0xf0, 0xff] {
            let mut request = socks::request(target.as_bytes()).unwrap();
            request[1] = command;
            let record = refused(lab, row, &request, 7).await;
            assert_eq!(record.text("reason"), "unsupported_protocol", "{record:?}");
        }
        let mut client = logged_in(lab).await;
        let request = socks::request(target.as_bytes()).unwrap();
        assert_eq!(client.request(&request).await, 0);
    });
}

#[test]
pub(crate) fn v137_no_authentication() {
    LAB.run(137, async |lab, row| {
        for methods in [&[0][..], &[], &[1], &[0, 1, 3, 0x80, 0xfe]] {
            let count = u8::try_from(methods.len()).unwrap();
            let greeting = [&[5, count], methods].concat();
            closed(lab, row, &greeting, &[5, 0xff], "credential_missing").await;
        }
        // Offered beside it, the password is what is asked for; and it must be right.
        let wrong = [&[5, 2, 0, 2][..], &socks::login("sluicegate", "wrong")].concat();
        closed(lab, row, &wrong, &[5, 2, 1, 1], "credential_invalid").await;
        let none = [&[5, 2, 0, 2][..], &socks::login("", "")].concat();
        closed(lab, row, &none, &[5, 2, 1, 1], "credential_missing").await;
        let expect = Denied(&["host_not_allowed"]);
        let session = lab.allowing(&["api.allowed.test:443"]).await;
        let form = crate::forms::Form::Socks;
        session
            .refused_by(lab, row, form, b"evil.test:443", expect)
            .await;
        session
            .refused_by(lab, row, form, b"evil..test:443", Malformed)
            .await;
    });
}

#[test]
pub(crate) fn v138_other_protocols() {
    LAB.run(138, async |lab, row| {
        let sent: [&[u8]; 6] = [
            // SOCKS4 to 127.0.0.1:80, and SOCKS4a to a name.
            &[4, 1, 0, 80, 127, 0, 0, 1, 0],
            b"\x04\x01\x01\xbb\x00\x00\x00\x01user\x00api.allowed.test\x00",
            b"GET http://api.allowed.test/ HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n",
            b"CONNECT api.allowed.test:443 HTTP/1.1\r\nHost: api.allowed.test:443\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &[22, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        ];
        for bytes in sent {
            closed(lab, row, bytes, b"", "malformed_request").await;
        }
        // Too slow is no different: the end, and why.
        let mut wire = fresh(lab).await;
        wire.send([5]).await;
        assert_eq!(wire.rest().await, (Vec::new(), End::Fin));
        let record = lab.refusal_of(wire.local()).await;
        assert_eq!(record.text("reason"), "head_timeout", "{record:?}");
    });
}
