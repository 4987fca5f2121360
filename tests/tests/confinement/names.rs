//! The name server inside.

use super::outer::{Outer, outer};

#[test]
fn allowed_names_have_addresses_and_others_do_not_exist() {
    outer(
        "names::allowed_names_have_addresses_and_others_do_not_exist",
        async |outer| {
            let script = r#"
            ask() { echo "$1 $2 $(dig +time=20 +tries=1 +noall +comments +answer "$@" 2>&1 | tr '\n\t' '  ')"; }
            ask api.allowed.test A
            ask API.Allowed.Test. AAAA
            ask api.allowed.test HTTPS
            ask api.allowed.test SVCB
            ask api.allowed.test TXT
            ask api.allowed.test ANY
            ask api.allowed.test NULL
            ask api.allowed.test MX
            ask api.allowed.test NS
            ask _http._tcp.api.allowed.test SRV
            ask evil.test A
            ask evil.test HTTPS
            ask evil.test MX
            ask evil.test SOA
            ask evil.test NS
            ask _http._tcp.evil.test SRV
            ask c2VjcmV0LXRoYXQtaXMtZXhmaWx0cmF0ZWQtYnktbmFtZS1xdWVyaWVz.evil.test A
            ask c2VjcmV0.evil.test TXT
            ask any.evil.test ANY
            ask 'a\/b.evil.test' A
            ask deep.wild.test A
            ask wild.test A
            ask localhost A
            ask api.allowed.test A +tcp
            ask 1.0.18.198.in-addr.arpa PTR
            echo "hosts $(getent ahosts api.allowed.test | tr '\n' ' ')"
            dig +time=2 +tries=1 @8.8.8.8 api.allowed.test A >/dev/null 2>&1; echo "elsewhere $?"
        "#;
            let started = std::time::Instant::now();
            let done = outer
                .run(&["--allow", "*.wild.test:9"], &["sh", "-c", script])
                .run()
                .await;
            let took = started.elapsed();
            let stderr = done.stderr.clone();
            let said = done.succeeded();
            let has = |start: &str, parts: &[&str]| {
                let line = said
                    .lines()
                    .find(|line| line.starts_with(start))
                    .unwrap_or_default();
                for part in parts {
                    assert!(line.contains(part), "{start}: {part}\n{said}\n{stderr}");
                }
            };
            has("api.allowed.test A status", &[]);
            has("api.allowed.test A", &["NOERROR", " 10 ", "198.18.0."]);
            has(
                "API.Allowed.Test. AAAA",
                &["NOERROR", "fd73:6c75:6963:6567::"],
            );
            for kind in ["HTTPS", "SVCB", "MX", "NS"] {
                has(
                    &format!("api.allowed.test {kind}"),
                    &["NOERROR", "ANSWER: 0"],
                );
            }
            has("_http._tcp.api.allowed.test", &["NOERROR", "ANSWER: 0"]);
            for kind in ["MX", "SOA", "NS"] {
                has(&format!("evil.test {kind}"), &["NXDOMAIN"]);
            }
            has("_http._tcp.evil.test", &["NXDOMAIN"]);
            for kind in ["TXT", "ANY", "NULL"] {
                has(&format!("api.allowed.test {kind}"), &["REFUSED"]);
            }
            has("evil.test A", &["NXDOMAIN"]);
            has("evil.test HTTPS", &["NXDOMAIN"]);
            has("c2VjcmV0LXRoYXQ", &["NXDOMAIN"]);
            has("c2VjcmV0.evil.test TXT", &["REFUSED"]);
            has("deep.wild.test A", &["NOERROR", "198.18.0."]);
            has("wild.test A", &["NXDOMAIN"]);
            has("localhost A", &["127.0.0.1"]);
            has("1.0.18.198", &["NXDOMAIN"]);
            has("hosts", &["198.18.0.1"]);
            assert!(said.contains("elsewhere 9"), "{said}");
            // No query left the sandbox, for whatever name: addresses there mean nothing.
            assert_eq!(outer.dns.queries(), []);
            // And each name that was refused is in the decision log.
            for name in ["evil.test", "c2VjcmV0.evil.test", "any.evil.test"] {
                let name = name.to_ascii_lowercase();
                assert!(outer.was_refused(&name, "host_not_allowed"), "{name}");
            }
            // What is no host name too, as it was asked.
            let odd = "a%5C%2Fb.evil.test";
            assert!(outer.was_refused(odd, "malformed_target"), "{stderr}");
            let names = outer
                .records()
                .iter()
                .filter(|record| record.text("front") == "names")
                .count();
            // What was said of a name holds for ten seconds, and is asked for again behind them.
            let most = 8 * (1 + usize::try_from(took.as_secs() / 10).unwrap());
            assert!(
                (5..=most).contains(&names),
                "one for each name, not for each query: {names}"
            );
            assert!(stderr.contains("--allow evil.test"), "{stderr}");
        },
    );
}

/// Asks each of these in a sandbox, and answers what `dig` said to it, line by line.
async fn asked(outer: &Outer, questions: &[&str]) -> Vec<(String, String)> {
    let asks: String = questions
        .iter()
        .map(|question| {
            format!("echo $(dig +time=20 +tries=1 +noall +comments +answer {question} 2>&1)\n")
        })
        .collect();
    let done = outer.run(&[], &["sh", "-c", &asks]).run().await;
    let said = done.succeeded();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), questions.len(), "{said}");
    let pairs = questions.iter().zip(lines);
    pairs
        .map(|(question, line)| ((*question).to_owned(), line.to_owned()))
        .collect()
}

/// No keys for ECH, no other protocols and no addresses beside those that stand for the name.
#[test]
fn v040_https_and_svcb_have_no_answer() {
    outer("names::v040_https_and_svcb_have_no_answer", async |outer| {
        let questions = ["api.allowed.test HTTPS", "api.allowed.test SVCB"];
        for (question, said) in asked(&outer, &questions).await {
            let empty = said.contains("NOERROR") && said.contains("ANSWER: 0");
            assert!(empty, "{question}: {said}");
        }
        assert_eq!(outer.dns.queries(), []);
    });
}

#[test]
fn v042_data_in_questions_goes_nowhere() {
    outer(
        "names::v042_data_in_questions_goes_nowhere",
        async |outer| {
            let long = "c2VjcmV0LXRoYXQtaXMtZXhmaWx0cmF0ZWQtYnktbmFtZS1xdWVyaWVz.evil.test A";
            let kinds = ["TXT", "NULL", "ANY"].map(|kind| format!("api.allowed.test {kind}"));
            let mut questions: Vec<&str> = kinds.iter().map(String::as_str).collect();
            questions.push(long);
            for (question, said) in asked(&outer, &questions).await {
                let status = if question == long {
                    "NXDOMAIN"
                } else {
                    "REFUSED"
                };
                assert!(said.contains(status), "{question}: {said}");
            }
            assert_eq!(outer.dns.queries(), []);
        },
    );
}

/// Resolvers leave out a family in which the machine has no address of its own; loopback's do not count.
#[test]
fn names_have_addresses_for_those_who_ask_for_one_family() {
    outer(
        "names::names_have_addresses_for_those_who_ask_for_one_family",
        async |outer| {
            let script = "import socket\n\
                for family in socket.AF_INET, socket.AF_INET6:\n\
                \x20   for name in 'localhost', 'api.allowed.test':\n\
                \x20       try: print(len(socket.getaddrinfo(name, 1, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)) > 0)\n\
                \x20       except OSError as error: print(error)\n";
            let python = ["/usr/bin/python3", "-c", script];
            assert_eq!(
                outer.run(&[], &python).run().await.succeeded(),
                "True\nTrue\nTrue\nTrue\n"
            );
            // What it serves at such an address is its own to reach.
            let serve = "import socket\n\
                for family, address in (2, '198.19.255.254'), (10, 'fd73:6c75:6963:6567:ffff:ffff:ffff:fffe'):\n\
                \x20   s = socket.create_server((address, 8080), family=family)\n\
                \x20   c = socket.create_connection((address, 8080))\n\
                \x20   print(c.getsockname() == s.accept()[1])\n";
            let python = ["/usr/bin/python3", "-c", serve];
            assert_eq!(
                outer.run(&[], &python).run().await.succeeded(),
                "True\nTrue\n"
            );
            let url = format!("http://{}/echo", outer.plain());
            for family in ["-4", "-6"] {
                let curl = [
                    "curl",
                    "-sS",
                    "-o",
                    "/dev/null",
                    "--noproxy",
                    "*",
                    family,
                    &url,
                ];
                outer.run(&[], &curl).run().await.succeeded();
            }
        },
    );
}

#[test]
fn a_flood_of_names_is_budgeted() {
    outer("names::a_flood_of_names_is_budgeted", async |outer| {
        let script = r#"
import os, socket, struct
sent, codes = 1000, {}
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(50)
for n in range(sent):
    labels = [os.urandom(20).hex().encode(), b"evil", b"test"]
    name = b"".join(bytes([len(l)]) + l for l in labels) + b"\0"
    s.sendto(struct.pack(">HHHHHH", n, 0x100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1), ("127.0.0.53", 53))
    reply = s.recv(1000)
    codes[reply[3] & 15] = codes.get(reply[3] & 15, 0) + 1
print(codes.get(3, 0), codes.get(5, 0))
"#;
        let started = std::time::Instant::now();
        let done = outer
            .run(&["--quiet"], &["/usr/bin/python3", "-c", script])
            .run()
            .await;
        let most = 201 + 51 * (started.elapsed().as_secs() + 1);
        let said = done.succeeded();
        let (missing, refused) = said.trim().split_once(' ').unwrap();
        let (missing, refused): (u64, u64) = (missing.parse().unwrap(), refused.parse().unwrap());
        assert_eq!(missing + refused, 1000, "{said}");
        assert!(
            missing >= 200 && missing <= most,
            "{missing} of at most {most}"
        );
        assert_eq!(outer.records().len() as u64, missing);
        assert_eq!(outer.dns.queries(), []);
    });
}
