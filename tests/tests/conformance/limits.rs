//! I. Resources.

mod bandwidth;
mod ends;
mod everywhere;

use std::time::Duration;

use e2e::raw::{End, drain, read_head};
use e2e::{RawOrigin, until, within};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::forms::{FORMS, FORWARDS, Form};
use crate::lab::{Lab, Shared, alone, is_closed, settings};
use crate::sandbox::{Sandbox, refusal_reason};
use crate::table::{Front, Row};
use crate::tap::{HALF, Mode, Tap};

pub(crate) use ends::*;

static LAB: Shared = Shared::new(settings);

async fn limited(lab: &Lab, limits: serde_json::Value) -> Sandbox {
    let egress = json!({"allowedHosts": [lab.api_target(), lab.plain_target()], "allowedAddresses": ["127.0.0.0/8"]});
    lab.sandbox(json!({"egress": egress, "limits": limits}))
        .await
}

/// The status and reason of a CONNECT, and the connection.
async fn attempt(session: &Sandbox, target: &str) -> (u16, String, e2e::Wire) {
    let mut wire = session.dial().await;
    wire.send(Form::Connect.head(target.as_bytes(), &session.credential()))
        .await;
    let head = wire.head().await;
    if head.status == 200 {
        return (200, String::new(), wire);
    }
    let length = head.value("content-length").parse().unwrap();
    let body = wire.take(length).await;
    let reply = e2e::wire::Reply { head, body };
    (reply.status(), refusal_reason(&reply), wire)
}

/// A CONNECT is refused 429 for this reason; its Retry-After, empty where there is none.
async fn retry(session: &Sandbox, target: &str, reason: &str) -> String {
    let mut wire = session.dial().await;
    wire.send(Form::Connect.head(target.as_bytes(), &session.credential()))
        .await;
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 429);
    assert_eq!(refusal_reason(&reply), reason);
    reply.head.value("retry-after").to_owned()
}

#[test]
pub(crate) fn v115_slow_heads() {
    LAB.run(115, async |lab, row| {
        for start in [
            "",
            "C",
            "CONNECT api.allowed.test",
            "GET http://plain.allowed.test/ HTTP/1.1\r\nHost: plain",
        ] {
            let mut wire = lab.session.dial().await;
            wire.send(start).await;
            let mark = lab.mark();
            assert!(wire.cut().await < Duration::from_secs(5), "{start:?}");
            lab.nothing_since(&mark, start);
        }
        let mut wire = lab.session.dial().await;
        wire.send("CONNECT api.allowed.test").await;
        let reply = wire.reply().await;
        let told = (reply.status(), refusal_reason(&reply));
        assert_eq!(told, (408, "head_timeout".to_owned()));
        // The second head of a connection has the same deadline once it has begun.
        let mut wire = lab.session.ready(lab, Form::ConnectKept).await;
        wire.send("GET http://plain").await;
        assert!(wire.cut().await < Duration::from_secs(5));
        // Nor does a refusal buy the long patience that clients have who are known.
        let mut stranger = lab.session.dial().await;
        let plain = lab.plain_target();
        let ask = format!("GET http://{plain}/x HTTP/1.1\r\nHost: {plain}\r\n\r\n");
        stranger.send(ask).await;
        assert_eq!(stranger.reply().await.status(), 407);
        let mut known = lab.session.ready(lab, Form::ConnectKept).await;
        assert!(stranger.cut().await < Duration::from_secs(5));
        known.stays_quiet().await;
        row.on(Front::Connect);
        row.on(Front::Absolute);
    });
}

#[test]
pub(crate) fn v119_connect_flood() {
    LAB.run(119, async |lab, row| {
        let (target, flooding) = (
            lab.api_target(),
            limited(lab, json!({"opensPerSecond": 1})).await,
        );
        let mut refused = 0;
        for _ in 0..40 {
            let (status, reason, _) = attempt(&flooding, &target).await;
            if status == 429 {
                assert_eq!(reason, "too_many_opens");
                refused += 1;
            }
            // The neighbour notices nothing.
            assert_eq!(attempt(&lab.session, &target).await.0, 200);
        }
        assert!(refused >= 10, "{refused} of 40 refused");
        // One may be due by now: whoever asks on is refused.
        let (line, host) = (
            format!("GET http://{target}/x"),
            format!("Host: {target}\r\n"),
        );
        let asked = async {
            loop {
                let (reply, _) = flooding.ask(&line, &host).await;
                if reply.status() == 429 {
                    break reply;
                }
            }
        };
        let reply = within("a refusal", asked).await;
        assert_eq!(
            (reply.status(), refusal_reason(&reply).as_str()),
            (429, "too_many_opens")
        );
        // A rate refills at a known time, but for one that is none.
        assert_eq!(reply.head.value("retry-after"), "1");
        let never = limited(lab, json!({"opensPerSecond": 0})).await;
        assert_eq!(retry(&never, &target, "too_many_opens").await, "");
        refused_targets(lab).await;
        everywhere::requests_in_a_tunnel(lab).await;
        everywhere::opens(lab, row).await;
    });
}

/// What is not allowed cannot be asked for any faster, and takes nothing of what is.
async fn refused_targets(lab: &Lab) {
    const ASKS: usize = 40;
    let target = lab.api_target();
    let session = limited(lab, json!({"opensPerSecond": 2})).await;
    let start = Instant::now();
    let mut reasons = Vec::new();
    for _ in 0..ASKS {
        let (status, reason, _) = attempt(&session, "flood.evil.test:443").await;
        reasons.push((status, reason));
    }
    // On one connection, none waited for.
    let mut wire = session.dial().await;
    let credential = session.credential();
    let ask = format!(
        "GET http://flood.evil.test/ HTTP/1.1\r\nHost: flood.evil.test\r\n{credential}\r\n"
    );
    wire.send(ask.repeat(ASKS)).await;
    for _ in 0..ASKS {
        let reply = wire.reply().await;
        reasons.push((reply.status(), refusal_reason(&reply)));
    }
    let of = |status, reason: &str| {
        let same = |one: &&(u16, String)| one.0 == status && one.1 == reason;
        reasons.iter().filter(same).count()
    };
    let (denied, flood) = (of(403, "host_not_allowed"), of(429, "too_many_opens"));
    assert_eq!(denied + flood, 2 * ASKS, "{reasons:?}");
    let most = 3 + 2 * usize::try_from(start.elapsed().as_secs()).unwrap() + 2;
    assert!(
        (2..=most).contains(&denied),
        "{denied} of {} were told why",
        2 * ASKS
    );
    assert_eq!(attempt(&session, &target).await.0, 200, "what is allowed");
}

#[test]
pub(crate) fn v120_quotas_at_the_edge() {
    LAB.run(120, async |lab, row| {
        let target = lab.api_target();
        let session = limited(lab, json!({"tunnels": 3})).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            let (status, _, wire) = attempt(&session, &target).await;
            assert_eq!(status, 200);
            open.push(wire);
        }
        // Nobody knows when one of them ends.
        assert_eq!(retry(&session, &target, "too_many_tunnels").await, "");
        assert_eq!(attempt(&lab.session, &target).await.0, 200, "the neighbour");
        drop(open.pop());
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let again = async {
            while attempt(&session, &target).await.0 != 200 {
                tick.tick().await;
            }
        };
        within("the freed place", again).await;
        // Bytes: what is over the quota ends the tunnel, and the next open is refused.
        let frugal = limited(lab, json!({"bytes": 1000})).await;
        let (_, _, mut wire) = attempt(&frugal, &target).await;
        let _ = wire.stream.write_all(&[1; 4000]).await;
        wire.cut().await;
        // Bytes that are spent do not come back.
        assert_eq!(retry(&frugal, &target, "byte_quota").await, "");
        inside(lab).await;
        to_the_byte(lab).await;
        one_destination(lab).await;
        bandwidth::kept(lab, row).await;
        everywhere::places_and_bytes(lab, row).await;
    });
}

/// Plain HTTP in a tunnel keeps the tunnel's place, for as long as its connection lives.
async fn inside(lab: &Lab) {
    let plain = lab.plain_target();
    let session = limited(lab, json!({"tunnels": 1})).await;
    let mut wire = session.tunnel(&plain).await;
    for _ in 0..2 {
        wire.send(format!("GET /probe HTTP/1.1\r\nHost: {plain}\r\n\r\n"))
            .await;
        assert_eq!(wire.reply().await.status(), 200);
        let (status, reason, _) = attempt(&session, &plain).await;
        assert_eq!((status, reason.as_str()), (429, "too_many_tunnels"));
    }
    drop(wire);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let again = async {
        while attempt(&session, &plain).await.0 != 200 {
            tick.tick().await;
        }
    };
    within("the freed place", again).await;
}

/// Not one byte over the quota goes on; heads are bytes too.
async fn to_the_byte(lab: &Lab) {
    lab.dns.point("counted.allowed.test");
    let origin = RawOrigin::start().await;
    let target = format!("counted.allowed.test:{}", origin.address.port());
    let egress = json!({"allowedHosts": [target], "allowedAddresses": ["127.0.0.0/8"]});
    let grant = json!({"egress": egress, "limits": {"bytes": 1000}});
    let session = lab.sandbox(grant).await;
    let mut near = session.tunnel(&target).await;
    let mut far = origin.accept().await;
    near.send([1; 1000]).await;
    let mut whole = vec![0; 1000];
    far.read_exact(&mut whole).await.unwrap();
    let _ = near.stream.write_all(&[2]).await;
    near.cut().await;
    let mut more = Vec::new();
    let _ = far.read_to_end(&mut more).await;
    assert_eq!(more, b"", "what is over the quota went up");
    let record = lab
        .gateway
        .record("the record of the cut", |one| {
            one.text("target") == target && one.text("reason") == "byte_quota"
        })
        .await;
    assert_eq!(record.number("bytesUp"), Some(1000));

    let api = lab.api_target();
    let session = limited(lab, json!({"bytes": 4000})).await;
    let (mut served, fields) = (0, format!("Host: {api}\r\nX-Long: {}\r\n", "x".repeat(900)));
    let refusal = loop {
        let (reply, _) = session
            .ask(&format!("GET http://{api}/probe"), &fields)
            .await;
        if reply.status() != 200 {
            break (reply.status(), refusal_reason(&reply));
        }
        served += 1;
        assert!(served < 5, "four heads of 900 bytes and more went up");
    };
    assert_eq!(
        (served > 1, refusal),
        (true, (429, "byte_quota".to_owned()))
    );
}

/// What is open to one destination leaves room for the others.
async fn one_destination(lab: &Lab) {
    let (api, plain) = (lab.api_target(), lab.plain_target());
    let session = limited(lab, json!({"tunnelsPerDestination": 2})).await;
    let (first, second) = (session.tunnel(&api).await, session.tunnel(&api).await);
    let (status, reason, _) = attempt(&session, &api).await;
    let refusal = (status, reason.as_str());
    assert_eq!(refusal, (429, "too_many_to_destination"));
    // Another spelling is the same destination; absolute-form counts along.
    let spelled = api.replace("api.allowed.test", "API.allowed.test.");
    assert_eq!(attempt(&session, &spelled).await.0, 429);
    let get = |target: &str| {
        (
            format!("GET http://{target}/probe"),
            format!("Host: {target}\r\n"),
        )
    };
    let (line, host) = get(&api);
    let (reply, _) = session.ask(&line, &host).await;
    let refusal = (reply.status(), refusal_reason(&reply));
    assert_eq!(refusal, (429, "too_many_to_destination".to_owned()));
    // Another destination, and the neighbour.
    assert_eq!(attempt(&session, &plain).await.0, 200);
    assert_eq!(attempt(&lab.session, &api).await.0, 200);
    drop(first);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let again = async {
        while attempt(&session, &api).await.0 != 200 {
            tick.tick().await;
        }
    };
    within("the freed place", again).await;
    drop(second);
}

/// The status of a CONNECT, and the connection; nothing where it is reset before a word.
async fn probe(lab: &Lab, target: &str) -> Option<(u16, TcpStream)> {
    let head = Form::Connect.head(target.as_bytes(), &lab.session.credential());
    let mut stream = TcpStream::connect(lab.gateway.ports.plain).await.ok()?;
    stream.write_all(&head).await.ok()?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.ok()?;
    let status = std::str::from_utf8(&start[9..]).unwrap();
    Some((status.parse().unwrap(), stream))
}

#[test]
pub(crate) fn v121_out_of_descriptors() {
    alone(121, async |row| {
        let lab = Lab::start(settings()).await;
        let target = lab.api_target();
        let mut early = lab.session.ready(&lab, Form::ConnectKept).await;
        let mut streams = Vec::new();
        let _open = lab.http3().await;
        let process = Pid::from_raw(lab.gateway.process.id());
        let now = u64::try_from(lab.gateway.descriptors()).unwrap();
        // Sixteen are kept back, eight of them also from ways out: two dozen connections, not one more.
        let scarce = Rlimit {
            current: Some(now + 40),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        prlimit(process, Resource::Nofile, scarce).unwrap();
        let mut ends = JoinSet::new();
        for _ in 0..100 {
            let address = lab.gateway.ports.plain;
            ends.spawn(async move {
                // The reset may be there before the connection is.
                let Ok(mut stream) = TcpStream::connect(address).await else {
                    return true;
                };
                matches!(stream.read(&mut [0]).await, Ok(0) | Err(_))
            });
        }
        // Nobody waits for nothing: some are let in, every other one is reset.
        let refused = async {
            for _ in 0..70 {
                assert_eq!(ends.join_next().await.unwrap().ok(), Some(true));
            }
        };
        within("70 of 100 to be refused", refused).await;
        drop(ends);
        // Let in, and then without a descriptor for the way out: the gateway's own limit, not the destination's fault, nor
        // its DNS server's. Every name is a new one, so that each has to be asked for.
        let mut held = Vec::new();
        let exhausted = async {
            for turn in 0.. {
                let name = format!("n{turn}.wild.test");
                lab.dns.point(&name);
                let fresh = format!("{name}:{}", lab.api.port());
                match probe(&lab, &fresh).await {
                    Some((200, stream)) => held.push(stream),
                    Some((503, _)) | None => break,
                    Some((other, _)) => panic!("{fresh}: {other}"),
                }
            }
        };
        within("tunnels to be refused", exhausted).await;
        // What has been let in gets some more, and then none either: streams of a connection, and a request on another.
        let exhausted = async {
            for turn in 0.. {
                let name = format!("s{turn}.wild.test");
                lab.dns.point(&name);
                let fresh = format!("{name}:{}", lab.api.port());
                let begun = lab.session.begun(&lab, Form::Http3, &fresh).await;
                match begun.unwrap() {
                    (head, stream) if head.status == 200 => streams.push(stream),
                    (head, _) => {
                        assert_eq!(head.status, 503, "{fresh}");
                        break;
                    }
                }
            }
        };
        within("streams to be refused", exhausted).await;
        lab.dns.point("late.wild.test");
        let late = format!("late.wild.test:{}", lab.api.port());
        let head = Form::Absolute.head(late.as_bytes(), &lab.session.credential());
        early.send(head).await;
        assert_eq!(early.reply().await.status(), 503);
        // Operators are let in all the same.
        assert_eq!(lab.gateway.management("/healthz").await.status(), 200);
        drop((held, streams));
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        let again = async {
            while !matches!(probe(&lab, &target).await, Some((200, _))) {
                tick.tick().await;
            }
        };
        within("the gateway to recover", again).await;
        row.on(Front::Connect);
        let head = Form::Absolute.head(target.as_bytes(), &lab.session.credential());
        early.send(head).await;
        assert_eq!(early.reply().await.status(), 200);
        row.on(Front::Absolute);
        // Idle connections do not keep anybody out: more of them than there is room for.
        for turn in 0..60 {
            let name = format!("idle{turn}.wild.test");
            lab.dns.point(&name);
            let idle = format!("{name}:{}", lab.api.port());
            let head = Form::Absolute.head(idle.as_bytes(), &lab.session.credential());
            early.send(head).await;
            assert_eq!(early.reply().await.status(), 200, "{idle}");
        }
        assert!(matches!(probe(&lab, &target).await, Some((200, _))));
        row.on(Front::Http3);
    });
}

#[test]
pub(crate) fn v122_bytes_that_would_forge_a_record() {
    LAB.run(122, async |lab, row| {
        let plain = lab.plain_target();
        let odd = "/\"},{\"outcome\":\"forged\"}%0a%0d%1b[31m\u{e9}\\n";
        let mut wire = lab.session.dial().await;
        wire.send(format!(
            "GET http://{plain}{odd} HTTP/1.1\r\nHost: {plain}\r\n{}\r\n",
            lab.session.credential()
        ))
        .await;
        let status = wire.reply().await.status();
        assert!([200, 400].contains(&status), "{status}");
        let mut wire = lab.session.dial().await;
        let head = [
            b"CONNECT evil\x1b[31m\n{\"outcome\":\"forged\"}:443 HTTP/1.1\r\n",
            lab.session.credential().as_bytes(),
            b"\r\n",
        ]
        .concat();
        wire.send(head).await;
        assert_eq!(wire.reply().await.status(), 400);
        lab.session
            .refused(
                lab,
                row,
                "after.evil.test:443",
                crate::sandbox::Expect::Refused,
            )
            .await;
        // The harness reads every line as one JSON object, and none of them says what was forged.
        let records = lab.gateway.records();
        assert!(
            records
                .iter()
                .all(|record| record.text("outcome") != "forged")
        );
        let log = std::fs::read(lab.gateway.directory().join("access.jsonl")).unwrap();
        assert!(
            log.iter().all(|byte| *byte == b'\n' || *byte >= b' '),
            "control bytes in the log"
        );
    });
}

#[test]
pub(crate) fn v123_labels_are_bounded() {
    LAB.run(123, async |lab, row| {
        let count = async || {
            lab.gateway
                .management("/metrics")
                .await
                .text()
                .lines()
                .count()
        };
        let expect = crate::sandbox::Expect::Denied(&["host_not_allowed"]);
        lab.session
            .refused(lab, row, "first.evil.test:443", expect)
            .await;
        let before = count().await;
        for number in 0..100 {
            let target = format!("n{number}.evil{number}.test:{}", 1000 + number);
            lab.session
                .refused_by(lab, row, Form::Connect, target.as_bytes(), expect)
                .await;
        }
        // What ends late of the rows before may be one of a kind.
        let made = count().await.saturating_sub(before);
        assert!(made < 50, "a hundred names made {made} new series");
        assert!(
            !lab.gateway
                .management("/metrics")
                .await
                .text()
                .contains("evil"),
            "names in metrics"
        );
    });
}
