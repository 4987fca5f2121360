//! Inputs nobody here invented, end to end.

use data_encoding::BASE64;
use e2e::corpus;
use serde_json::{Value, json};

use crate::lab::{Lab, apart, settings};
use crate::sandbox::Sandbox;
use crate::tap::{Mode, Tap, read_all};

fn entries(folder: &std::path::Path, file: &str) -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(folder.join(file)).unwrap()).unwrap()
}

#[test]
fn live_hellos_pass_whole_or_not_at_all() {
    let Some(folder) = corpus::folder("clienthello-live") else {
        return;
    };
    let manifest = entries(&folder, "manifest.json");
    assert!(manifest.len() >= 109);
    apart(async {
        let lab = Lab::start(settings()).await;
        let names = manifest.iter().filter_map(|entry| entry["sni"].as_str());
        let names = names.chain(["other.test"]);
        let hosts: Vec<String> = names.map(|name| format!("{name}:*")).collect();
        let rules: Vec<Value> = hosts
            .iter()
            .map(|host| json!({"host": host, "tls": "require"}))
            .collect();
        let egress =
            json!({"allowedHosts": hosts, "allowedAddresses": ["127.0.0.0/8"], "rules": rules});
        let session = lab.sandbox(json!({"egress": egress})).await;
        lab.dns.point("other.test");
        for entry in &manifest {
            let bytes = std::fs::read(folder.join(entry["file"].as_str().unwrap())).unwrap();
            if let Some(name) = entry["sni"].as_str() {
                lab.dns.point(name);
                hello(&session, name, &bytes, true).await;
            }
            hello(&session, "other.test", &bytes, false).await;
        }
    });
}

async fn hello(session: &Sandbox, name: &str, bytes: &[u8], right: bool) {
    let tap = Tap::start(Mode::Silent).await;
    let mut wire = session.tunnel(&format!("{name}:{}", tap.port())).await;
    wire.send(bytes).await;
    if right {
        tap.receives(bytes, name).await;
    } else {
        wire.cut().await;
        drop(wire);
        tap.got_nothing(name).await;
    }
}

#[test]
fn coding_mutations_are_refused_or_forwarded_in_one_form() {
    let Some(folder) = corpus::folder("smuggler-te-mutations") else {
        return;
    };
    let mutations = entries(&folder, "mutations.json");
    assert!(mutations.len() >= 1703);
    apart(async {
        let lab = Lab::start(settings()).await;
        let plain = lab.plain_target();
        let start = format!(
            "POST http://{plain}/mutant HTTP/1.1\r\nHost: {plain}\r\n{}",
            lab.session.credential()
        );
        let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n";
        let (mut refused, mut served) = (0, 0);
        for entry in &mutations {
            let gadget = BASE64
                .decode(entry["gadget_b64"].as_str().unwrap().as_bytes())
                .unwrap();
            // Read as chunked, the content is empty and the rest a request to be refused; read as none, it is no request.
            let bytes = [start.as_bytes(), &gadget, b"\r\n\r\n0\r\n\r\n", smuggled].concat();
            let mut wire = lab.session.dial().await;
            wire.send(&bytes).await;
            match wire.reply().await.status() {
                400 => refused += 1,
                200 => served += 1,
                other => panic!("{other} to {}", gadget.escape_ascii()),
            }
        }
        assert!(
            refused > 1000 && served > 0,
            "{refused} refused, {served} served"
        );
        // Every byte that went up reads as whole requests of one spelling, one for each that was served.
        let visits = lab.plain.visits();
        let requests: Vec<_> = visits
            .iter()
            .flat_map(|visit| read_all(&visit.bytes))
            .collect();
        assert_eq!(requests.len(), served);
        for request in requests {
            assert!(
                request.line.starts_with("POST /mutant ") && request.body.is_empty(),
                "{request:?}"
            );
            assert!(request.values("x-smuggled").is_empty(), "{request:?}");
            let letters =
                |name: &str| -> String { name.chars().filter(char::is_ascii_alphabetic).collect() };
            let framing = request
                .fields
                .iter()
                .filter(|(name, _)| letters(name) == "transferencoding");
            assert!(
                framing.clone().count() <= 1
                    && framing.clone().all(|(_, value)| value == "chunked"),
                "{request:?}"
            );
        }
    });
}
