//! Where the kernel does not let an ordinary user confine anything.

use e2e::{Ask, Session};

use super::outer::{is_root, open_to_all, outer};
use super::relay;

/// In a user namespace that may have none of a kind, which any user can make.
const FORBIDDEN: &str = "echo 0 >/proc/sys/user/$0 && exec \"$@\"";

#[test]
fn nothing_is_run_and_the_knob_is_named() {
    outer(
        "forbidden::nothing_is_run_and_the_knob_is_named",
        async |outer| {
            let ran = outer.path("home/ran");
            let attempt = |knob: &'static str, flags: &'static [&'static str]| {
                let program = outer
                    .as_nobody("unshare")
                    .args(["--user", "--map-root-user", "sh", "-c", FORBIDDEN, knob])
                    .arg(outer.path("bin/sluicegate"))
                    .arg("run")
                    .args(flags)
                    .args(["--", "touch"])
                    .arg(&ran);
                program.run()
            };
            for knob in [
                "max_user_namespaces",
                "max_net_namespaces",
                "max_pid_namespaces",
                "max_ipc_namespaces",
                "max_mnt_namespaces",
            ] {
                let done = attempt(knob, &[]).await;
                assert_eq!(done.code, Some(123), "{knob}: {}", done.stderr);
                let remedy = format!("user.{knob} is 0. As root: sysctl -w user.{knob}=15000\n");
                for part in [&*remedy, "--unconfined", "Nothing was run"] {
                    assert!(done.stderr.contains(part), "{knob}: {}", done.stderr);
                }
                assert!(!ran.exists());
            }
            let done = attempt("max_user_namespaces", &["--unconfined"]).await;
            assert_eq!(done.code, Some(0), "{}", done.stderr);
            assert!(done.stderr.contains("WARNING"), "{}", done.stderr);
            assert!(ran.exists());
            outer.left_nothing().await;
        },
    );
}

#[test]
fn nor_with_a_gateway_elsewhere() {
    outer("forbidden::nor_with_a_gateway_elsewhere", async |outer| {
        let gateway = relay::gateway(&outer).await;
        let api = outer.api();
        let ask = Ask {
            allow: &[&api],
            ..Ask::default()
        };
        let session = Session::create(&gateway, &outer.ca, ask).await;
        let (trust, ran) = (outer.path("gateway-ca.pem"), outer.path("home/ran"));
        std::fs::copy(session.bundle(), &trust).unwrap();
        open_to_all(&trust);
        for knob in ["max_user_namespaces", "max_net_namespaces"] {
            let done = outer
                .as_nobody("unshare")
                .args(["--user", "--map-root-user", "sh", "-c", FORBIDDEN, knob])
                .arg(outer.path("bin/sluicegate-relay"))
                .args(["run", "--wait", "30s", "--", "touch"])
                .arg(&ran)
                .envs(&session.env)
                .env("SLUICEGATE_CA_FILE", &trust)
                .run()
                .await;
            assert_eq!(done.code, Some(123), "{knob}: {}", done.stderr);
            let remedy = format!("sysctl -w user.{knob}=15000\n");
            for part in [&*remedy, "--unconfined", "Nothing was run"] {
                assert!(done.stderr.contains(part), "{knob}: {}", done.stderr);
            }
            assert!(!ran.exists(), "{knob}");
        }
        outer.left_nothing().await;
    });
}

#[test]
fn unconfined_has_the_variables_and_nothing_more() {
    outer(
        "forbidden::unconfined_has_the_variables_and_nothing_more",
        async |outer| {
            let url = format!("https://{}/echo", outer.api());
            let script = format!(
                "curl -sS -o /dev/null -w '%{{http_code}} ' {url}; readlink /proc/self/ns/net"
            );
            let said = outer
                .run(&["--unconfined"], &["sh", "-c", &script])
                .run()
                .await
                .succeeded();
            let own = std::fs::read_link("/proc/self/ns/net").unwrap();
            assert_eq!(said, format!("200 {}\n", own.display()));
            let _ = is_root();
        },
    );
}
