//! Datagrams, which nothing carries: who sends one hears of it at once, and what was tried is on record.

use super::outer::outer;

/// Sockets that are not connected hear of nothing that comes back: the call itself has to fail, and what waits for minutes would be waited
/// for here. One that is connected and only reads is told too.
#[test]
fn a_datagram_fails_at_once_and_its_destination_is_told() {
    outer(
        "datagrams::a_datagram_fails_at_once_and_its_destination_is_told",
        async |outer| {
            let script = r#"
import errno, socket

def tried(call):
    try: return call()
    except OSError as error: return errno.errorcode[error.errno]

four, six = (socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6))
for _ in range(2): print(tried(lambda: four.sendto(b"x", ("8.8.8.8", 123))))
print(tried(lambda: six.sendto(b"x", ("2606:4700:4700::1111", 123))))
print(tried(lambda: six.sendto(b"x", ("::ffff:8.8.8.8", 124))))
print(tried(lambda: four.sendto(b"x", ("224.0.0.251", 5353))))
[name] = {found[4][0] for found in socket.getaddrinfo("api.allowed.test", 443, socket.AF_INET)}
print(tried(lambda: four.sendto(b"x", (name, 443))))
connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
connected.settimeout(300)
connected.connect(("10.99.0.1", 500))
print(tried(lambda: connected.send(b"x")), tried(lambda: connected.recv(1)))
# The sandbox's own are nobody else's concern.
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.bind(("198.19.255.254", 0))
for there in own, connected:
    if there is connected:
        there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        there.bind(("127.0.0.1", 0))
    four.sendto(b"own", there.getsockname())
    print(there.recv(10).decode())
"#;
            let python = "/usr/bin/python3 -c \"$0\"";
            let dig =
                "dig +time=300 +tries=1 @8.8.4.4 api.allowed.test A >/dev/null 2>&1; echo dig $?";
            let both = format!("{python} && {dig}");
            let done = outer.run(&["--json"], &["sh", "-c", &both, script]);
            let done = done.run().await;
            let stderr = done.stderr.clone();
            let said = done.succeeded();
            let expected =
                "EPERM\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM ECONNREFUSED\nown\nown\ndig 9\n";
            assert_eq!(said, expected, "{stderr}");
            for datagrams in [
                "udp 8.8.8.8:123 (2 datagrams)",
                "udp 8.8.8.8:124 (1 datagram)",
                "udp [2606:4700:4700::1111]:123 (1 datagram)",
                "udp 224.0.0.251:5353 (1 datagram)",
                "udp api.allowed.test:443 (1 datagram)",
                "udp 10.99.0.1:500 (1 datagram)",
            ] {
                let recorded = outer.was_refused(datagrams, "unsupported_protocol");
                assert!(recorded, "{datagrams}: {:#?}", outer.records());
                assert!(stderr.contains(datagrams), "{datagrams}: {stderr}");
            }
            assert!(stderr.contains("udp 8.8.4.4:53 ("), "{stderr}");
        },
    );
}

/// Rules of the sandbox's network know TCP and UDP: of other protocols there are no sockets, whatever the kernel has.
#[test]
fn there_are_no_sockets_of_other_protocols() {
    outer(
        "datagrams::there_are_no_sockets_of_other_protocols",
        async |outer| {
            let script = r#"
import errno, socket

def made(*what):
    try: socket.socket(*what).close()
    except OSError as error: return errno.errorcode[error.errno]
    return "made"

STREAM, DATAGRAM, PACKETS, DCCP = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, 6
UDP_LITE, SCTP, L2TP, SMC = 136, 132, 115, 256
for family in socket.AF_INET, socket.AF_INET6:
    for kind, protocol in (DATAGRAM, UDP_LITE), (DATAGRAM, L2TP), (STREAM, SCTP), (STREAM, SMC), (PACKETS, 0), (PACKETS, SCTP), (DCCP, 0):
        print(made(family, kind | socket.SOCK_CLOEXEC, protocol))
    for kind, protocol in (STREAM, 0), (STREAM, 6), (DATAGRAM, 0), (DATAGRAM, 17):
        print(made(family, kind | socket.SOCK_NONBLOCK, protocol))
print(made(socket.AF_UNIX, PACKETS, 0))
print("MPTCP", made(socket.AF_INET, STREAM, 262))
"#;
            let python = ["/usr/bin/python3", "-c", script];
            let done = outer.run(&[], &python).run().await;
            let said = done.succeeded();
            let family = "EPROTONOSUPPORT\n".repeat(7) + &"made\n".repeat(4);
            // Where the kernel has it, it is there: on the wire it is TCP.
            let script = "import errno, socket\n\
                try: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); print('MPTCP made')\n\
                except OSError as error: print('MPTCP', errno.errorcode[error.errno])\n";
            let outside = outer.as_nobody(python[0]).args(["-c", script]);
            let mptcp = outside.run().await.succeeded();
            assert_eq!(said, format!("{family}{family}made\n{mptcp}"));
        },
    );
}

/// The real one. Where its file has the right to raw sockets it cannot even be started; otherwise it asks for one, and for one that
/// anybody may have where the system says so.
#[test]
fn ping_fails_at_once() {
    outer("datagrams::ping_fails_at_once", async |outer| {
        for target in ["8.8.8.8", "2606:4700:4700::1111", "api.allowed.test"] {
            // What waits for an answer would be waited for in vain.
            let command = ["ping", "-n", "-c", "1", "-W", "300", "-w", "300", target];
            let done = outer.run(&["--json"], &command).run().await;
            let code = done.code.unwrap();
            assert!(
                [2, 126].contains(&code),
                "{target}: {code}: {}",
                done.stderr
            );
            let why = ["Operation not permitted", "Permission denied"];
            let said = why.iter().any(|why| done.stderr.contains(why));
            assert!(said, "{target}: {}", done.stderr);
            assert!(!done.text().contains("bytes from"), "{}", done.text());
        }
    });
}

/// However many destinations a program makes up, so many are told apart, and the others counted.
#[test]
fn many_destinations_are_few_records() {
    outer(
        "datagrams::many_destinations_are_few_records",
        async |outer| {
            let script = r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in range(1, 501):
    try: s.sendto(b"x", ("8.8.8.8", port))
    except PermissionError: pass
# And one that came to the sandbox itself, where nobody took it.
s.sendto(b"x", ("127.0.0.1", 9))
"#;
            let python = ["/usr/bin/python3", "-c", script];
            outer.run(&["--quiet"], &python).run().await.succeeded();
            let mut datagrams = outer.records();
            datagrams.retain(|record| record.text("target").starts_with("udp "));
            assert_eq!(datagrams.len(), 41, "{datagrams:#?}");
            assert!(outer.was_refused("udp (461 datagrams)", "unsupported_protocol"));
            for record in &datagrams {
                assert_eq!(record.text("reason"), "unsupported_protocol");
                assert_eq!(record.text("front"), "transparent");
            }
        },
    );
}
