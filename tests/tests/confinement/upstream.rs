//! `sluicegate run` where the network lets nothing out but a proxy. The addresses that are judged here are nobody's in this namespace, and a packet to
//! one of them would be seen: whatever arrives has gone by the proxy.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::tasks::{free_port, listening};
use e2e::{Forwarder, Program};

use super::kernel::mount;
use super::outer::{open_to_all, outer};
use super::sockets::is_refused;

/// What the allowed name leads to, as far as the gateway knows.
const ELSEWHERE: &str = "api.allowed.test=9.9.9.9";

/// As in offices: it wants a password, and has names of its own.
#[test]
fn a_real_proxy_with_a_password_is_the_way_out() {
    outer(
        "upstream::a_real_proxy_with_a_password_is_the_way_out",
        async |outer| {
            let hosts = outer.text("hosts");
            fs::write(&hosts, "127.0.0.1 localhost api.allowed.test\n").unwrap();
            mount(&["--bind", &hosts, "/etc/hosts"]).await;
            let address = SocketAddr::from(([127, 0, 0, 1], free_port().await));
            let config = outer.path("tinyproxy.conf");
            let text = format!(
                "Port {}\nListen 127.0.0.1\nMaxClients 50\nLogLevel Connect\nBasicAuth agent s3cret\n",
                address.port()
            );
            fs::write(&config, text).unwrap();
            let proxy = Program::new("/usr/bin/tinyproxy")
                .args(["-d", "-c"])
                .arg(&config)
                .start(&outer.path("tinyproxy.log"));
            listening("tinyproxy", address).await;
            let write = "umask 077; echo agent:s3cret >home/credential";
            let written = outer.as_nobody("sh").args(["-c", write]).run().await;
            written.succeeded();
            let (url, credential) = (format!("http://{address}"), outer.text("home/credential"));
            let flags = [
                "--resolve",
                ELSEWHERE,
                "--upstream-proxy",
                &url,
                "--upstream-proxy-ask",
                "name",
                "--upstream-proxy-credential-file",
                &credential,
            ];
            for way in ["", "--noproxy '*'"] {
                let script = format!(
                    "cat home/credential; curl -sS --fail-with-body --max-time 30 {way} https://{}/echo",
                    outer.api()
                );
                let done = outer.run(&flags, &["sh", "-c", &script]).run().await;
                let said = done.succeeded();
                assert!(
                    said.contains("\"GET\"") && !said.contains("s3cret"),
                    "{said}"
                );
            }
            let asked = format!("CONNECT {}", outer.api());
            let said = proxy.said();
            assert!(said.matches(&asked).count() >= 2, "{said}");
        },
    );
}

/// As containers are given single files: a mount goes on showing what was replaced outside, and nothing can be mounted over that.
#[test]
fn nothing_is_run_where_a_password_that_is_a_mount_was_replaced_outside() {
    outer(
        "upstream::nothing_is_run_where_a_password_that_is_a_mount_was_replaced_outside",
        async |outer| {
            mount(&["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"]).await;
            let (source, alone) = (Path::new("/mnt/source"), Path::new("/mnt/alone"));
            for directory in [source, alone] {
                fs::create_dir(directory).unwrap();
                open_to_all(directory);
            }
            fs::set_permissions(source, fs::Permissions::from_mode(0o777)).unwrap();
            let write = "umask 077; for name in beside alone; do\n\
                echo agent:s3cret >/mnt/source/new; mv /mnt/source/new /mnt/source/$name; done";
            let written = || outer.as_nobody("sh").args(["-ec", write]).run();
            written().await.succeeded();
            for (name, path) in [
                ("beside", "/mnt/password"),
                ("alone", "/mnt/alone/password"),
            ] {
                fs::write(path, "").unwrap();
                mount(&["--bind", &format!("/mnt/source/{name}"), path]).await;
            }
            let run = |path: &str, flags: &[&str]| {
                let mut all = vec!["--upstream-proxy", "http://127.0.0.1:9"];
                all.extend(["--upstream-proxy-credential-file", path]);
                all.extend(flags);
                outer.run(
                    &all,
                    &["sh", "-c", "cat \"$0\" 2>&1 | grep s3cret; echo ran", path],
                )
            };
            let ways: [&[&str]; 2] = [&[], &["--ro"]];
            for flags in ways {
                let done = run("/mnt/password", flags).run().await;
                assert_eq!(done.succeeded(), "ran\n", "{flags:?}");
            }
            written().await.succeeded();
            let outside = outer.as_nobody("cat").arg("/mnt/password").run().await;
            assert_eq!(outside.succeeded(), "agent:s3cret\n");
            for flags in ways {
                is_refused(run("/mnt/password", flags), "/mnt/password").await;
                // A directory with nothing else in it is hidden as a whole.
                let done = run("/mnt/alone/password", flags).run().await;
                assert_eq!(done.succeeded(), "ran\n", "{flags:?}");
            }
        },
    );
}

#[test]
fn nothing_goes_beside_the_proxy_and_no_variable_names_one() {
    outer(
        "upstream::nothing_goes_beside_the_proxy_and_no_variable_names_one",
        async |outer| {
            let proxy = Forwarder::start().await;
            let url = format!("http://{}", proxy.address);
            let target = format!("https://{}/echo", outer.api());
            let curl = [
                "curl",
                "-sS",
                "--fail-with-body",
                "--max-time",
                "30",
                &target,
            ];
            // A variable is not followed, and loopback is this machine's and not the proxy's.
            let here: [&[&str]; 2] = [&[], &["--upstream-proxy", &url]];
            for flags in here {
                let program = outer.run(flags, &curl).env("HTTPS_PROXY", &url);
                assert!(program.run().await.succeeded().contains("\"GET\""));
                assert!(proxy.asked().is_empty(), "{flags:?}");
            }
            let flags = ["--resolve", ELSEWHERE, "--upstream-proxy", &url];
            let done = outer.run(&flags, &curl).run().await;
            assert!(done.succeeded().contains("\"GET\""));
            let asked = format!("9.9.9.9:{}", outer.https.port());
            assert_eq!(proxy.asked(), [asked]);
            // It says no; and then there is none. That no packet went to the address is looked at in the end.
            proxy.says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            let gone = format!("http://127.0.0.1:{}", free_port().await);
            let cases = [
                (&url, "upstream_proxy_refused"),
                (&gone, "upstream_proxy_failed"),
            ];
            for (url, reason) in cases {
                let flags = ["--resolve", ELSEWHERE, "--upstream-proxy", url];
                let done = outer.run(&flags, &curl).run().await;
                assert_ne!(done.code, Some(0), "{reason}");
                let records = outer.records();
                let told = records.iter().any(|one| one.text("reason") == reason);
                assert!(told, "{reason}: {records:?}");
            }
        },
    );
}

/// Nothing is run with less than what was asked for: the log neither.
#[test]
fn what_is_named_and_cannot_be_used_is_usage() {
    outer(
        "upstream::what_is_named_and_cannot_be_used_is_usage",
        async |outer| {
            let (open, ran) = (outer.text("open"), outer.text("home/ran"));
            fs::write(&open, "agent:s3cret\n").unwrap();
            let proxy = ["--upstream-proxy", "https://127.0.0.1:1"];
            let directory = format!("{}/", outer.text("home"));
            let cases: [(&[&str], &str); 7] = [
                (&["--log", "/no/such/log"], "--log /no/such/log"),
                (&["--log", &directory], &directory),
                (&["--upstream-proxy", "ftp://x"], "ftp://x"),
                (&["--upstream-proxy-ask", "name"], "--upstream-proxy"),
                (&["--upstream-proxy-credential-file", "none"], "none"),
                (&["--upstream-proxy-credential-file", &open], &open),
                (&["--upstream-proxy-ca-file", "none.pem"], "none.pem"),
            ];
            for (flags, named) in cases {
                let own = flags.contains(&"--upstream-proxy") || flags.contains(&"name");
                let base: &[&str] = if own { &[] } else { &proxy };
                let done = outer
                    .as_nobody(&outer.text("bin/sluicegate"))
                    .arg("run")
                    .args(base)
                    .args(flags)
                    .args(["--", "touch", &ran])
                    .run()
                    .await;
                assert_eq!(done.code, Some(2), "{flags:?}: {}", done.stderr);
                assert!(done.stderr.contains(named), "{flags:?}: {}", done.stderr);
                assert!(!fs::exists(&ran).unwrap(), "{flags:?}");
            }
        },
    );
}
