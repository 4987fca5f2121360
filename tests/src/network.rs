//! A network for one program, bad on purpose: a namespace behind a router of its own, which limits, drops and renumbers.
//!
//! ```text
//! program's namespace                 router's namespace                       ours
//! 192.168.7.2 ── in0 ═══ in1 ── 192.168.7.1 │ source NAT │ 10.x.y.2 ── out ═══ sg… ── 10.x.y.1
//! ```
//!
//! Making one takes root, `ip`, `tc` and `nft`. Unix sockets by path reach across: that is how a test talks to the program.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::link::Towards;
use crate::program::Program;

/// What was swallowed in one direction passes.
const FORGET_ONE_WAY: &str = "table ip one_way {}\ndelete table ip one_way\n";

/// Two namespaces and what joins them. They go when this is dropped.
pub struct Network {
    /// Our own address, as the program sees us.
    pub here: Ipv4Addr,
    sandbox: String,
    router: String,
    /// Our end towards the router.
    link: String,
    /// Third and fourth byte of the /29 that `here` is in.
    subnet: u32,
}

impl Network {
    /// Makes one, with nothing wrong with it.
    pub async fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // 2^20 subnets of /29: test processes that run at the same time have different ones.
        let subnet = (process.wrapping_mul(32).wrapping_add(number) % (1 << 20)) << 3;
        let network = Self {
            here: address(subnet, 1),
            sandbox: format!("sg{process}n{number}s"),
            router: format!("sg{process}n{number}r"),
            link: format!("sg{process}n{number}"),
            subnet,
        };
        let (link, here) = (network.link.as_str(), network.here);
        let (sandbox, router) = (network.sandbox.as_str(), network.router.as_str());
        ip(&["netns", "add", sandbox]).await;
        ip(&["netns", "add", router]).await;
        ip(&[
            "link", "add", link, "type", "veth", "peer", "name", "out", "netns", router,
        ])
        .await;
        ip(&[
            "-n", sandbox, "link", "add", "in0", "type", "veth", "peer", "name", "in1", "netns",
            router,
        ])
        .await;
        ip(&["address", "add", &format!("{here}/29"), "dev", link]).await;
        ip(&["link", "set", link, "up"]).await;
        let outside = address(subnet, 2).to_string();
        for (namespace, device, address) in [
            (router, "out", format!("{outside}/29")),
            (router, "in1", "192.168.7.1/24".to_owned()),
            (sandbox, "in0", "192.168.7.2/24".to_owned()),
            (sandbox, "lo", "127.0.0.2/8".to_owned()),
        ] {
            ip(&["-n", namespace, "address", "add", &address, "dev", device]).await;
            ip(&["-n", namespace, "link", "set", device, "up"]).await;
        }
        ip(&[
            "-n",
            sandbox,
            "route",
            "add",
            "default",
            "via",
            "192.168.7.1",
        ])
        .await;
        let forward = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        network.in_router(&forward).await;
        network.rules(&[], &outside).await;
        network
    }

    /// `program`, run in the namespace.
    pub fn inside(&self, program: &Path) -> Program {
        Program::new("ip")
            .args(["netns", "exec", &self.sandbox])
            .arg(program)
    }

    /// No more than this passes in either direction, as `tc` writes rates.
    pub async fn limit(&self, rate: &str) {
        for device in ["in1", "out"] {
            let queue = ["tc", "qdisc", "replace", "dev", device, "root", "tbf"];
            let bucket = ["rate", rate, "burst", "32kb", "latency", "100ms"];
            self.in_router(&[&queue[..], &bucket[..]].concat()).await;
        }
    }

    /// Every packet with this number (the 50th, the 100th …) is lost.
    pub async fn lose_every(&self, number: u32) {
        let rule = format!("numgen inc mod {number} {} drop", number - 1);
        self.rules(&[&rule], &address(self.subnet, 2).to_string())
            .await;
    }

    /// UDP goes nowhere, and nobody says so.
    pub async fn swallow_udp(&self) {
        let outside = address(self.subnet, 2).to_string();
        self.rules(&["meta l4proto udp drop"], &outside).await;
    }

    /// UDP goes nowhere in this direction, and nobody says so; in the other it passes, to where it passed before.
    pub async fn swallow_udp_towards(&self, towards: Towards) {
        let from = match towards {
            Towards::Gateway => "in1",
            Towards::Client => "out",
        };
        // Not among the other rules: with those go the addresses that were translated.
        self.load(&format!(
            "{FORGET_ONE_WAY}table ip one_way {{\n\
             chain pass {{ type filter hook forward priority filter; iifname \"{from}\" meta l4proto udp drop; }}\n}}\n"
        ))
        .await;
    }

    /// Nothing is lost any more.
    pub async fn heal(&self) {
        self.rules(&[], &address(self.subnet, 2).to_string()).await;
    }

    /// The program's own address becomes another, the router's outer one too, and the old ones are gone.
    pub async fn renumber(&self) {
        let outside = address(self.subnet, 3).to_string();
        let (router, sandbox) = (self.router.as_str(), self.sandbox.as_str());
        for (namespace, device, address) in [
            (router, "out", format!("{outside}/29")),
            (sandbox, "in0", "192.168.7.3/24".to_owned()),
        ] {
            ip(&["-n", namespace, "address", "flush", "dev", device]).await;
            ip(&["-n", namespace, "address", "add", &address, "dev", device]).await;
        }
        // It went with the address.
        let route = [
            "-n",
            sandbox,
            "route",
            "replace",
            "default",
            "via",
            "192.168.7.1",
        ];
        ip(&route).await;
        self.rules(&[], &outside).await;
    }

    /// The router's rules, all at once. What it has seen before is forgotten: addresses are translated anew.
    async fn rules(&self, forward: &[&str], outside: &str) {
        let text = format!(
            "{FORGET_ONE_WAY}table ip faults {{}}\ndelete table ip faults\ntable ip faults {{\n\
             chain out {{ type nat hook postrouting priority srcnat; oifname \"out\" snat to {outside}; }}\n\
             chain pass {{ type filter hook forward priority filter; {}; }}\n}}\n",
            forward.join("; ")
        );
        self.load(&text).await;
    }

    async fn load(&self, text: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let file = file.path().to_str().unwrap();
        self.in_router(&["nft", "-f", file]).await;
    }

    async fn in_router(&self, command: &[&str]) {
        ip(&[&["netns", "exec", &self.router], command].concat()).await;
    }
}

fn address(subnet: u32, number: u32) -> Ipv4Addr {
    let ten = u32::from(Ipv4Addr::new(10, 0, 0, 0));
    // 10.128.0.0/9: the lower half is where machines' own networks usually are.
    Ipv4Addr::from(ten + (1 << 23) + subnet + number)
}

async fn ip(arguments: &[&str]) {
    let done = Program::new("ip").args(arguments).run().await;
    let hint = "a network of its own takes root and iproute2, nftables (./tests/run)";
    assert_eq!(
        done.code,
        Some(0),
        "ip {arguments:?}: {}; {hint}",
        done.stderr
    );
}

impl Drop for Network {
    fn drop(&mut self) {
        // The pair of interfaces goes with the router.
        for namespace in [&self.sandbox, &self.router] {
            let removed = std::process::Command::new("ip")
                .args(["netns", "del", namespace])
                .stderr(Stdio::null())
                .status();
            if !removed.is_ok_and(|status| status.success()) && !std::thread::panicking() {
                eprintln!("the namespace {namespace} is still there");
            }
        }
    }
}
