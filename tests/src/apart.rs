//! A network of the test's own: routes, rules and addresses that no other test and nobody outside sees.

use std::process::Stdio;

use crate::program::Program;

/// Says to the test's second run that it is the one inside.
const INSIDE: &str = "SLUICEGATE_TEST_INSIDE";

/// Runs `test`, the body of the test function `name`, in a network and a mount namespace made for it: the test's own program is
/// run again in there, with this one test. It needs root, as `tests/run` has in CI.
pub fn inside(name: &str, test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    if std::env::var(INSIDE).is_ok_and(|inside| inside == name) {
        return runtime.block_on(async {
            // Names of namespaces are files: these are seen by nobody else either.
            sh("mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip link set lo up").await;
            test.await;
        });
    }
    let status = std::process::Command::new("unshare")
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, name)
        .stdin(Stdio::null())
        .status();
    let status = status.expect("unshare (util-linux) runs");
    assert!(
        status.success(),
        "{name} failed in its namespace: see above"
    );
}

/// Runs a shell's lines; they must succeed.
pub async fn sh(script: &str) -> String {
    let shell = Program::new("sh").args(["-euc", script]);
    shell.run().await.succeeded()
}

/// A machine of its own behind this one: a namespace, and a link to it.
#[derive(Debug)]
pub struct Machine {
    name: String,
}

impl Machine {
    /// A machine at `10.77.N.2` and `fd77:N::2`, this one being its router at `.1` and `::1` on the interface `NAME0`.
    pub async fn behind_us(name: &str, number: u8) -> Self {
        let (n, link) = (number, format!("{name}0"));
        sh(&format!(
            "ip netns add {name}
             ip link add {link} type veth peer name eth0 netns {name}
             ip addr add 10.77.{n}.1/24 dev {link}
             ip addr add fd77:{n}::1/64 dev {link} nodad
             ip link set {link} up
             ip -n {name} link set lo up
             ip -n {name} addr add 10.77.{n}.2/24 dev eth0
             ip -n {name} addr add fd77:{n}::2/64 dev eth0 nodad
             ip -n {name} link set eth0 up
             ip -n {name} route add default via 10.77.{n}.1
             ip -n {name} route add default via fd77:{n}::1"
        ))
        .await;
        Self {
            name: name.to_owned(),
        }
    }

    /// A program on that machine.
    pub fn run(&self, program: &str) -> Program {
        Program::new("ip").args(["netns", "exec", &self.name, program])
    }

    /// Lines of a shell on that machine, their output.
    pub async fn sh(&self, script: &str) -> String {
        self.run("sh")
            .args(["-euc", script])
            .run()
            .await
            .succeeded()
    }
}
