//! Unix sockets an operator lists, and services at sockets that no list has.

use crate::{Ceiling, ServiceDocument, ServiceName, ServiceUrl, text::Faults};
use std::{collections::BTreeMap, path::Path};

/// Whoever may open one of these has the host, or everything that runs on it.
const MIGHTY: [&str; 9] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/libvirt/libvirt-sock",
    "/run/snapd.socket",
];

pub(super) fn lint(ceiling: &Ceiling, faults: &mut Faults) {
    let list = ceiling.listed_sockets();
    for (at, written) in list.iter().enumerate() {
        let entry = &written.value;
        let wider = list.iter().enumerate().find(|(other, wider)| {
            let again = wider.value == *entry;
            *other != at && wider.value.covers(entry) && (!again || *other < at)
        });
        if let Some((_, wider)) = wider {
            let message = format!("\"{entry}\" adds nothing: \"{}\" covers it", wider.value);
            faults.warn(&written.place, message, Some("leave one out".to_owned()));
        }
        // `/var/run` is `/run`, and so is what is written for the one.
        let held = MIGHTY.iter().find(|path| {
            let old = format!("/var{path}");
            entry.holds(Path::new(path)) || entry.holds(Path::new(&old))
        });
        if let Some(path) = held {
            let message = format!(
                "\"{entry}\" holds {path}: a session that opens it may do to this host what it likes"
            );
            let hint = "list the sockets that are meant, or a directory of their own";
            faults.warn(&written.place, message, Some(hint.to_owned()));
        }
    }
}

/// Services of the catalogue that no session of these ceilings' providers can have.
pub fn lint_services<'c>(
    services: &BTreeMap<ServiceName, ServiceDocument>,
    ceilings: impl Iterator<Item = &'c Ceiling> + Clone,
    faults: &mut Faults,
) {
    for (name, service) in services {
        let Some(ServiceUrl::Unix(path)) = &service.url else {
            continue;
        };
        if ceilings.clone().all(|ceiling| !ceiling.holds_socket(path)) {
            let path = path.display();
            let message = format!(
                "no session can have \"{name}\": no provider's ceiling.sockets holds {path}"
            );
            let hint = format!("add \"{path}\" to a provider's ceiling.sockets");
            faults.warn(&service.place.0, message, Some(hint));
        }
    }
}
