//! What stands in a sandbox and what its processes are to do, of what was asked for and of what this machine is.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{
    confinement::{Confinement, IsolateError, Network, step},
    control::{Hidden, Plan, Wanted},
    environment::{self, Environment, Place},
    forbidden::Knobs,
    hidden, trust,
};
use crate::listen::Address;

/// Where the proxy is, in a namespace that has nothing else.
const PROXY: u16 = 3128;
/// Where captured connections arrive.
const CAPTURE: u16 = 3127;
/// What is the sandbox's own stands there.
const INSIDE: &str = "/run/sluicegate-run";
const DNS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::LOCALHOST];

/// A listener, what serves it, and where it stands.
pub(super) struct Standing {
    pub(super) what: What,
    pub(super) wanted: Wanted,
}

impl Standing {
    pub(super) fn is_ipv6(&self) -> bool {
        matches!(self.wanted, Wanted::Tcp(SocketAddr::V6(_)))
    }
}

/// What serves a listener.
pub(super) enum What {
    Proxy,
    Capture,
    NamesUdp,
    NamesTcp,
    Service(String),
}

/// What stands in the sandbox, and the rest of the plan.
pub(super) fn plan(
    confinement: &Confinement,
    outside: &Path,
) -> Result<(Vec<Standing>, Plan), IsolateError> {
    // A path that no command of an ordinary user can lead elsewhere while its own is set up: the directories above
    // `outside` may be the user's, to rename.
    let of_all = outside.parent().unwrap_or(outside);
    let (private, directory) = if Path::new("/run").is_dir() {
        (Path::new(INSIDE), Path::new(INSIDE))
    } else {
        (of_all, outside)
    };
    let mut standing = Vec::new();
    let mut put = |what, wanted| standing.push(Standing { what, wanted });
    if confinement.network != Network::None {
        put(
            What::Proxy,
            Wanted::Tcp((Ipv4Addr::LOCALHOST, PROXY).into()),
        );
    }
    let transparent = confinement.network == Network::Transparent;
    if transparent {
        for address in DNS {
            put(What::NamesUdp, Wanted::Udp((address, 53).into()));
            put(What::NamesTcp, Wanted::Tcp((address, 53).into()));
        }
        put(
            What::Capture,
            Wanted::Tcp((Ipv4Addr::LOCALHOST, CAPTURE).into()),
        );
        put(
            What::Capture,
            Wanted::Tcp((Ipv6Addr::LOCALHOST, CAPTURE).into()),
        );
    }
    for (place, service) in confinement.services.iter().enumerate() {
        let wanted = match service.address {
            Some(address) => Wanted::Tcp(address),
            None => Wanted::Unix(directory.join(socket_name(&service.name, place))),
        };
        put(What::Service(service.name.clone()), wanted);
    }
    let mut writable = Vec::new();
    for path in &confinement.writable {
        let refused = |error| IsolateError::Path(path.clone(), error);
        writable.push(fs::canonicalize(path).map_err(refused)?);
    }
    // What is hidden leaves room for these.
    let mut used = writable.clone();
    for device in &confinement.devices {
        let refused = |error| IsolateError::Path(device.clone(), error);
        let real = fs::canonicalize(device).map_err(refused)?;
        if real
            .parent()
            .is_none_or(|parent| !parent.starts_with("/dev"))
        {
            return Err(refused(io::Error::other("not a device: it is not in /dev")));
        }
        used.push(real);
    }
    let hide = [&confinement.hide[..], &[of_all.to_owned()]].concat();
    let hidden = hidden::find(&hide, &used, |name| std::env::var_os(name));
    let mut hidden = hidden.map_err(step("what to hide"))?;
    for (path, real) in confinement.writable.iter().zip(&writable) {
        if let Some(over) = covering(real, &hidden) {
            let all = match over == real {
                true => String::new(),
                false => format!(" with all of {}", over.display()),
            };
            let why =
                format!("it is hidden from the command{all}: what is written there would be lost");
            return Err(IsolateError::Path(path.clone(), io::Error::other(why)));
        }
    }
    // Its place is taken by a file system of the sandbox's own.
    let mut files = files(transparent);
    files.extend(trust::kept(&hidden, |name| std::env::var(name).ok()));
    hidden.retain(|one| match one {
        Hidden::Directory(path) | Hidden::File(path) => !path.starts_with(private),
    });
    let plan = Plan {
        knobs: Knobs::read(),
        private: private.to_owned(),
        directory: directory.to_owned(),
        capture: transparent.then_some(CAPTURE),
        listeners: standing.iter().map(|one| one.wanted.clone()).collect(),
        files,
        hidden,
        read_only: confinement.read_only,
        writable,
        environment: Vec::new(),
        descriptors: confinement.descriptors,
    };
    Ok((standing, plan))
}

/// What hides a path: itself, or a directory that it is in.
fn covering<'h>(path: &Path, hidden: &'h [Hidden]) -> Option<&'h Path> {
    hidden.iter().find_map(|one| match one {
        Hidden::Directory(over) => hidden::covers(over, path).then_some(over.as_path()),
        Hidden::File(over) => (path == over).then_some(over.as_path()),
    })
}

/// `cache:main` → `cache_main.sock`. Two that would be alike are told apart by their place.
pub(super) fn socket_name(service: &str, place: usize) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if service.chars().all(plain) {
        return format!("{service}.sock");
    }
    let safe = |c| if plain(c) { c } else { '_' };
    let safe: String = service.chars().map(safe).collect();
    format!("{safe}.{place}.sock")
}

/// The resolver's files: our name server, and no names but this machine's own.
fn files(transparent: bool) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    let hosts = format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.0.1 {host}\n"
    );
    if let Ok(path) = fs::canonicalize("/etc/hosts") {
        files.push((path, hosts));
    }
    let conf = if transparent {
        "nameserver 127.0.0.53\noptions edns0 timeout:5 attempts:2\n"
    } else {
        "# There are no names here.\nnameserver 127.0.0.53\noptions timeout:1 attempts:1\n"
    };
    if let Ok(path) = fs::canonicalize("/etc/resolv.conf") {
        files.push((path, conf.to_owned()));
    }
    files
}

/// The command's variables.
pub(super) fn variables(confinement: &Confinement, listeners: &[Standing]) -> Environment {
    let proxy = listeners
        .iter()
        .find_map(|one| match (&one.what, &one.wanted) {
            (What::Proxy, Wanted::Tcp(address)) => Some(*address),
            _ => None,
        });
    let services = listeners.iter().filter_map(|one| {
        let What::Service(service) = &one.what else {
            return None;
        };
        let address = match &one.wanted {
            Wanted::Unix(path) => Address::Unix(path.clone()),
            Wanted::Tcp(address) | Wanted::Udp(address) => Address::Tcp(*address),
        };
        Some(Place {
            service: service.clone(),
            address,
        })
    });
    let services: Vec<_> = services.collect();
    environment::of(std::env::vars_os(), proxy, &services, &confinement.env)
}
