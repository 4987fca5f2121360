//! Ends and turns of a pump whose client's bytes are still to be judged.

use std::{sync::Arc, time::Duration};

use sluicegate_policy::{
    Ceiling, Denial, EgressDocument, GrantDocument, Limits, Target, TargetPermit, decide,
    text::{self, Faults},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    time::timeout,
};

use super::{End, Paced, Pump};
use crate::{
    egress::gate::Gate,
    session::{Budget, Way},
};

/// To `a.test` on this port, by this block.
fn permit(egress: &str, port: u16) -> TargetPermit {
    let mut faults = Faults::default();
    let root = text::parse(&format!("{{{egress}}}"), &mut faults);
    let document = GrantDocument {
        egress: EgressDocument::read(&root, &mut faults),
        ..GrantDocument::default()
    };
    let grant = document.compile(&Ceiling::default(), &mut faults).unwrap();
    let target = Target::from_authority(&format!("a.test:{port}")).unwrap();
    decide(&Arc::new(grant), &target).unwrap()
}

/// The client sends this and ends, the server sends `banner` and ends: how that is taken, what report mode tells, and what arrives at
/// the server and at the client.
async fn ended(permit: &TargetPermit, first: &[u8]) -> (End, Option<Denial>, Vec<u8>, Vec<u8>) {
    let (mut client, mut downstream) = duplex(1024);
    let (mut upstream, mut server) = duplex(1024);
    client.write_all(first).await.unwrap();
    client.shutdown().await.unwrap();
    server.write_all(b"banner").await.unwrap();
    server.shutdown().await.unwrap();
    let mut pump = Pump::new(Gate::new(permit), Vec::new());
    let end = pump
        .run(&mut downstream, &mut upstream, |_, _| Ok(()))
        .await;
    drop((downstream, upstream));
    let (mut up, mut down) = (Vec::new(), Vec::new());
    server.read_to_end(&mut up).await.unwrap();
    client.read_to_end(&mut down).await.unwrap();
    (end, pump.reported(), up, down)
}

#[tokio::test]
async fn an_end_before_the_first_byte_is_no_tls() {
    let required = permit("allowedHosts: ['a.test:443']", 443);
    let (end, _, up, down) = ended(&required, b"").await;
    assert_eq!(end, End::Cut(Denial::TlsRequired));
    assert!(up.is_empty() && down.is_empty(), "{up:?} {down:?}");
    // Where any bytes may go, none may too.
    let auto = permit("allowedHosts: ['a.test:80']", 80);
    let (end, _, up, down) = ended(&auto, b"").await;
    assert!(matches!(end, End::Finished(_)), "{end:?}");
    assert_eq!((up.as_slice(), down.as_slice()), (&b""[..], &b"banner"[..]));
}

#[tokio::test]
async fn a_line_without_an_end_is_cut_or_in_report_mode_told() {
    let ruled = |mode: &str| {
        let rules = "[{host: 'a.test:80', http: {methods: [GET]}}]";
        let egress = format!("mode: {mode}, allowedHosts: ['a.test:80'], rules: {rules}");
        permit(&egress, 80)
    };
    let (end, reported, up, _) = ended(&ruled("enforce"), b"SSH-2").await;
    assert_eq!(end, End::Cut(Denial::MethodNotAllowed));
    assert_eq!((reported, up.as_slice()), (None, &b""[..]));
    let (end, reported, up, _) = ended(&ruled("report"), b"SSH-2").await;
    assert!(matches!(end, End::Finished(_)), "{end:?}");
    assert_eq!(reported, Some(Denial::MethodNotAllowed));
    assert_eq!(up, b"SSH-2");
}

#[tokio::test]
async fn a_long_first_word_goes_up_and_no_request_behind_it() {
    let auto = permit("allowedHosts: ['a.test:80']", 80);
    let word = [b'M'; 300];
    let (end, _, up, down) = ended(&auto, &word).await;
    assert!(matches!(end, End::Finished(_)), "{end:?}");
    assert_eq!(
        (up.as_slice(), down.as_slice()),
        (&word[..], &b"banner"[..])
    );
    let request = [&word[..], b" / HTTP/1.1\r\nHost: evil.test\r\n\r\n"].concat();
    let (end, _, up, _) = ended(&auto, &request).await;
    assert_eq!(end, End::Cut(Denial::MalformedRequest));
    assert!(up.is_empty(), "{}", up.escape_ascii());
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_is_held_back_gives_up_its_turn() {
    let limits = Limits {
        bandwidth: Some(100),
        ..Limits::default()
    };
    let budget = Arc::new(Budget::new(limits, None));
    let (_client, mut downstream) = duplex(1024);
    let (mut upstream, mut server) = duplex(1024);
    server.write_all(&[1; 300]).await.unwrap();
    let auto = permit("allowedHosts: ['a.test:80']", 80);
    let mut pump = Pump::new(Gate::new(&auto), Vec::new());
    let moment = Duration::from_millis(10);
    let run = pump.run(&mut downstream, &mut upstream, Paced(&budget));
    assert!(timeout(moment, run).await.is_err());
    assert!(pump.waits(), "the first piece is to be paid for");
    // A policy that wants TLS: until there is some, the upstream is not read, and its bytes go nowhere.
    let required = "allowedHosts: ['a.test:80'], rules: [{host: 'a.test:80', tls: require}]";
    pump.judge_by(&permit(required, 80));
    assert!(!pump.waits());
    let turn = budget.pace(Way::Down, 50).unwrap();
    let next = async {
        tokio::select! {
            end = pump.run(&mut downstream, &mut upstream, Paced(&budget)) => panic!("{end:?}"),
            may = turn => may,
        }
    };
    let next = timeout(Duration::from_secs(60), next).await;
    assert_eq!(next.ok(), Some(50), "whoever comes next has its turn");
}
