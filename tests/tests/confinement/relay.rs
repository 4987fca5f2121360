//! `sluicegate-relay run`: the same, with a gateway elsewhere.

use e2e::tasks::timed;
use e2e::{Ask, Gateway, Session, Settings, servers};
use rustix::process::Signal;

use super::outer::{Outer, outer};

pub(crate) async fn gateway(outer: &Outer) -> Gateway {
    let settings = Settings {
        dns: Some(outer.dns.address),
        ..Settings::default()
    };
    Gateway::start(&settings).await
}

pub(crate) fn command(
    outer: &Outer,
    session: &Session,
    flags: &[&str],
    command: &[&str],
) -> e2e::Program {
    let trust = outer.path("gateway-ca.pem");
    std::fs::copy(session.bundle(), &trust).unwrap();
    super::outer::open_to_all(&trust);
    outer
        .as_nobody(&outer.text("bin/sluicegate-relay"))
        .arg("run")
        .args(flags)
        .arg("--")
        .args(command)
        .envs(&session.env)
        .env("SLUICEGATE_CA_FILE", &trust)
        .env("CURL_CA_BUNDLE", outer.path("ca.pem"))
        .env("SSL_CERT_FILE", outer.path("ca.pem"))
}

#[test]
fn a_session_made_elsewhere() {
    outer("relay::a_session_made_elsewhere", async |outer| {
        let gateway = gateway(&outer).await;
        let redis = servers::redis().await;
        let cache = format!("cache=tcp://{}", redis.address);
        let (api, plain) = (outer.api(), outer.plain());
        let ask = Ask {
            allow: &[&api, &plain],
            services: &[&cache],
            ..Ask::default()
        };
        let session = Session::create(&gateway, &outer.ca, ask).await;
        let script = format!(
            "curl -sS -o /dev/null -w '%{{http_code}} ' https://{api}/echo\n\
             curl -sS -o /dev/null -w '%{{http_code}} ' --noproxy '*' http://{plain}/echo\n\
             redis-cli -s \"${{GESTALT_CACHE_SOCKET#unix://}}\" ping\n\
             curl -sS --noproxy '*' https://evil.test/ 2>/dev/null; echo $?\n\
             env | grep -E 'TOKEN|@' | wc -l\n"
        );
        // Names are asked for, and everything is carried, by each transport alike.
        for transport in ["quic", "h2", "h1"] {
            let by = ["--transport", transport];
            let said = command(&outer, &session, &by, &["sh", "-c", &script])
                .run()
                .await;
            assert_eq!(said.succeeded(), "200 200 PONG\n6\n0\n", "{transport}");
        }
        let refused = gateway.record_of("evil.test").await;
        assert_eq!(refused.text("reason"), "host_not_allowed");
        // At a port of its own.
        let listen = ["--listen", "cache=tcp://127.0.0.1:6379"];
        let said = command(&outer, &session, &listen, &["redis-cli", "ping"])
            .run()
            .await;
        assert_eq!(said.succeeded(), "PONG\n");
        let listen = ["--listen", "cache=unix:///tmp/x.sock"];
        let refused = command(&outer, &session, &listen, &["true"]).run().await;
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        // A static answer is the session's.
        let resolve = ["--resolve", "api.allowed.test=127.0.0.1"];
        let refused = command(&outer, &session, &resolve, &["true"]).run().await;
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        let said = "session create";
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    });
}

/// Its certificates are where `session create` says, in a directory that is hidden.
#[test]
fn a_session_made_on_the_same_machine() {
    outer("relay::a_session_made_on_the_same_machine", async |outer| {
        let gateway = gateway(&outer).await;
        let api = outer.api();
        let ask = Ask {
            allow: &[&api],
            ..Ask::default()
        };
        let answer = Session::attempt(&gateway, ask).await.succeeded();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let state = gateway.state();
        // 60: a certificate of the test's own authority, which is not among them; without the file it would be 77.
        let script = format!(
            "cat \"$CURL_CA_BUNDLE\"; ls {}; curl -sS https://{api}/echo 2>/dev/null; echo $?",
            state.join("admin.token").display()
        );
        let mut program = outer
            .at_home(e2e::Program::new(outer.path("bin/sluicegate-relay")))
            .args(["run", "--", "sh", "-c", &script])
            .env("SLUICEGATE_STATE_DIR", &state);
        for (name, value) in answer["env"].as_object().unwrap() {
            program = program.env(name, value.as_str().unwrap());
        }
        let done = program.run().await;
        let (stderr, said) = (done.stderr.clone(), done.succeeded());
        let pem = answer["files"][0]["pem"].as_str().unwrap();
        assert!(
            answer["files"][0]["path"]
                .as_str()
                .unwrap()
                .starts_with(state.to_str().unwrap())
        );
        assert_eq!(said, format!("{pem}60\n"), "{stderr}");
    });
}

#[test]
fn without_its_gateway_a_sandbox_has_no_way_out() {
    outer(
        "relay::without_its_gateway_a_sandbox_has_no_way_out",
        async |outer| {
            let gateway = gateway(&outer).await;
            let (api, plain) = (outer.api(), outer.plain());
            let ask = Ask {
                allow: &[&api, &plain],
                ..Ask::default()
            };
            let session = Session::create(&gateway, &outer.ca, ask).await;
            let script = format!(
                "ask() {{ curl -sS -o /dev/null --max-time 15 -w '%{{http_code}}\\n' \"$@\" http://{plain}/echo 2>/dev/null; }}\n\
             ask; ask --noproxy '*'; touch $HOME/before; while ! test -e $HOME/after; do sleep 0.1; done\n\
             ask & ask --noproxy '*' & ask --noproxy '*' --connect-to ::8.8.8.8:80 & wait\n"
            );
            let log = outer.path("dead.log");
            let mut running = command(&outer, &session, &[], &["sh", "-c", &script]).start(&log);
            e2e::until("the first half", || {
                outer.path("home/before").exists().then_some(())
            })
            .await;
            gateway.process.signal(Signal::KILL);
            std::fs::write(outer.path("home/after"), "").unwrap();
            // Each gives the gateway its time to come back.
            let minute = std::time::Duration::from_secs(60);
            e2e::tasks::until_for(minute, "the second half", || running.ended()).await;
            let said = running.said();
            let codes: Vec<&str> = said.lines().filter(|line| line.len() == 3).collect();
            assert_eq!(codes[..2], ["200", "200"], "{said}");
            for code in &codes[2..] {
                assert!(["502", "000"].contains(code), "{said}");
            }
            assert_eq!(codes.len(), 5, "{said}");
        },
    );
}

#[test]
fn a_gateway_that_is_not_there_is_no_reason_to_wait() {
    outer(
        "relay::a_gateway_that_is_not_there_is_no_reason_to_wait",
        async |outer| {
            let mut gateway = gateway(&outer).await;
            let session = Session::create(&gateway, &outer.ca, Ask::default()).await;
            gateway.process.signal(Signal::KILL);
            gateway.process.wait("the gateway's end").await;
            let ran = outer.text("home/ran");
            let asked = command(&outer, &session, &[], &["touch", &ran]);
            let (done, took) = timed(asked.run()).await;
            assert_eq!(done.code, Some(122), "{}", done.stderr);
            for part in ["refused", "Nothing was run", "--wait 30s", "--wait 0s"] {
                assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
            }
            assert!(!outer.path("home/ran").exists());
            // Without any answer a QUIC handshake would take ten.
            assert!(took < std::time::Duration::from_secs(8), "{took:?}");
            let done = command(&outer, &session, &["--wait", "0s"], &["true"])
                .run()
                .await;
            assert_eq!(done.code, Some(0), "{}", done.stderr);
            // One that comes while it is waited for.
            let log = outer.path("wait.log");
            let mut waiting =
                command(&outer, &session, &["--wait", "60s"], &["echo", "begun"]).start(&log);
            e2e::until("it to wait", || {
                waiting
                    .said()
                    .contains("waiting for the gateway")
                    .then_some(())
            })
            .await;
            // And one that is not waited for to its end.
            for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
                let log = outer.path(&format!("{code}.log"));
                let mut program =
                    command(&outer, &session, &["--wait", "60s"], &["touch", &ran]).start(&log);
                e2e::until("it to wait", || {
                    let said = program.said();
                    said.contains("waiting for the gateway").then_some(())
                })
                .await;
                program.signal(signal);
                assert_eq!(program.wait("its end").await, code, "{}", program.said());
                assert!(!outer.path("home/ran").exists());
            }
            gateway.restart().await;
            assert_eq!(waiting.wait("the command").await, 0, "{}", waiting.said());
            assert!(waiting.said().contains("begun"));
        },
    );
}
