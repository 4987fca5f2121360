//! B. Ports.

use serde_json::json;

use crate::forms::{CONNECTS, FORMS, FORWARDS};
use crate::lab::{Shared, settings};
use crate::sandbox::Expect::{Denied, Malformed};

static LAB: Shared = Shared::new(settings);

#[test]
pub(crate) fn v020_port_spelling() {
    LAB.run(20, async |lab, row| {
        let port = lab.api.port();
        let always = [
            ":0".to_owned(),
            ":65536".into(),
            ":99999999999".into(),
            ":18446744073709552059".into(),
            format!(":+{port}"),
            ":-1".into(),
            format!(": {port}"),
            format!(":{port} "),
            format!(":0{port}"),
            format!(":0x{port:x}"),
            ":https".into(),
            format!(":{port}:80"),
            format!("::{port}"),
            format!(":{port}."),
            format!(":{port}a"),
            format!(":{port}%00"),
            ":\u{664}\u{664}\u{663}".into(),
            ":\u{ff14}\u{ff14}\u{ff13}".into(),
            format!(":{port},80"),
        ];
        for suffix in always {
            lab.session
                .refused(lab, row, format!("api.allowed.test{suffix}"), Malformed)
                .await;
        }
        // In absolute-form a port may be missing (RFC 9110 §4.2.1): then it is 80, which is not allowed here.
        for suffix in ["", ":"] {
            let authority = format!("api.allowed.test{suffix}");
            for form in CONNECTS {
                lab.session
                    .refused_by(lab, row, form, authority.as_bytes(), Malformed)
                    .await;
            }
        }
        let expect = Denied(&["port_not_allowed"]);
        for form in FORWARDS {
            lab.session
                .refused_by(lab, row, form, b"api.allowed.test", expect)
                .await;
        }
    });
}

#[test]
pub(crate) fn v021_other_ports() {
    LAB.run(21, async |lab, row| {
        for port in [1, 22, 80, 443, 8443, 65535] {
            for host in ["api.allowed.test", "a.wild.test", "plain.allowed.test"] {
                let expect = Denied(&["port_not_allowed"]);
                lab.session
                    .refused(lab, row, format!("{host}:{port}"), expect)
                    .await;
            }
        }
    });
}

#[test]
pub(crate) fn v022_own_listeners() {
    LAB.run(22, async |lab, row| {
        let ports = lab.gateway.ports;
        // The session may reach everything on loopback, by name and by address, and still not the gateway.
        let session = lab
            .allowing(&["own.allowed.test:*", "127.0.0.0/8:*", "[::1]:*"])
            .await;
        lab.dns.point("own.allowed.test");
        // Where a host dials what another sandbox exposes, since after this gateway started.
        let path = "/runtime/providers/test/sessions";
        let exposing = json!({"expose": {"plugin": "tcp"}}).to_string();
        let exposing = lab.gateway.admin("POST", path, &exposing).await.json();
        let dialled = exposing["session"]["dialTargets"]["plugin"]
            .as_str()
            .unwrap();
        let dialled: u16 = dialled.rsplit_once(':').unwrap().1.parse().unwrap();
        let own = [
            ports.public.port(),
            ports.plain.port(),
            ports.management.port(),
            dialled,
        ];
        for port in own {
            for form in FORMS {
                let literal = format!("127.0.0.1:{port}");
                let expect = Denied(&["own_listener"]);
                session
                    .refused_by(lab, row, form, literal.as_bytes(), expect)
                    .await;
            }
            // The name is known to be ours only once it is resolved.
            let (named, expect) = (
                format!("own.allowed.test:{port}"),
                Denied(&["own_listener"]),
            );
            session
                .refused_once_resolved(lab, row, &named, expect)
                .await;
        }
        let other = format!("127.0.0.1:{}", lab.api.port());
        session.served(lab, row, &other, &other, &lab.api).await;
    });
}
