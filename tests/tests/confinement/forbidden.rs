//! Where the kernel does not let an ordinary user confine anything.

use super::outer::{is_root, outer};

/// In a user namespace that may have none below it, which any user can make.
const FORBIDDEN: &str = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";

#[test]
fn nothing_is_run_and_the_knob_is_named() {
    outer(
        "forbidden::nothing_is_run_and_the_knob_is_named",
        async |outer| {
            let ran = outer.path("home/ran");
            let attempt = |flags: &'static [&'static str]| {
                let program = outer
                    .as_nobody("unshare")
                    .args(["--user", "--map-root-user", "sh", "-c", FORBIDDEN, "sh"])
                    .arg(outer.path("bin/sluicegate"))
                    .arg("run")
                    .args(flags)
                    .args(["--", "touch"])
                    .arg(&ran);
                program.run()
            };
            let done = attempt(&[]).await;
            assert_eq!(done.code, Some(123), "{}", done.stderr);
            for part in [
                "user.max_user_namespaces is 0",
                "sysctl -w",
                "--unconfined",
                "Nothing was run",
            ] {
                assert!(done.stderr.contains(part), "{}", done.stderr);
            }
            assert!(!ran.exists());
            let done = attempt(&["--unconfined"]).await;
            assert_eq!(done.code, Some(0), "{}", done.stderr);
            assert!(done.stderr.contains("WARNING"), "{}", done.stderr);
            assert!(ran.exists());
            outer.left_nothing().await;
        },
    );
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
