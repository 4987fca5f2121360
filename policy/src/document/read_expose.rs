//! Listeners the sandbox may expose, read.

use super::{ExposeDocument, model::Ignored};
use crate::{
    Dial, ServiceName,
    text::{Faults, Node, Place},
};
use std::{collections::BTreeMap, time::Duration};

/// Listeners of one session at most: each is a socket on the host, and there are many sessions.
const MAX_EXPOSED: usize = 32;
/// A dial that waits longer than this would rather have an answer.
const MAX_PATIENCE: Duration = Duration::from_secs(60);
const DIALS: &[(&str, Dial)] = &[("unix", Dial::Unix), ("tcp", Dial::Tcp), ("tls", Dial::Tls)];

/// `{NAME: unix | tcp | tls | {dial, …}}`, or a list of names, which are dialled by unix sockets.
pub(super) fn read_expose(
    node: &Node,
    faults: &mut Faults,
) -> BTreeMap<ServiceName, ExposeDocument> {
    let mut listeners = BTreeMap::new();
    if node.is_list() {
        for item in node.list(faults) {
            let Some(text) = item.string(faults) else {
                continue;
            };
            let listener = ExposeDocument {
                place: Ignored(item.place().clone()),
                ..ExposeDocument::default()
            };
            add(&mut listeners, text, item.place(), listener, faults);
        }
    } else {
        for (key, value) in node.entries(faults) {
            let listener = ExposeDocument::read(value, faults);
            add(&mut listeners, key, &value.key_place(), listener, faults);
        }
    }
    if listeners.len() > MAX_EXPOSED {
        faults.error(
            node.place(),
            format!("more than {MAX_EXPOSED} exposed listeners"),
        );
    }
    listeners
}

fn add(
    listeners: &mut BTreeMap<ServiceName, ExposeDocument>,
    text: &str,
    place: &Place,
    listener: ExposeDocument,
    faults: &mut Faults,
) {
    // The name is a file's on the host, or a label in a TLS name: no binding, and nothing above it.
    match ServiceName::parse(text) {
        Ok(name) if name.binding().is_none() => {
            if listener.dial == Dial::Tls && !is_label(text) {
                faults.error_hint(
                    place,
                    format!("{text:?} cannot be dialled by tls"),
                    "letters, digits and inner hyphens only: it becomes a label of a TLS name",
                );
            }
            if listeners.insert(name, listener).is_some() {
                faults.error(place, format!("{text:?} is written twice"));
            }
        }
        _ => faults.error_hint(
            place,
            format!("{text:?} is not a listener's name"),
            "lower-case letters, digits, . _ - and at most 63 of them",
        ),
    }
}

/// RFC 1123 §2.1.
fn is_label(text: &str) -> bool {
    !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl ExposeDocument {
    /// Read one listener: where it is dialled, or a mapping.
    pub fn read(node: &Node, faults: &mut Faults) -> Self {
        let place = Ignored(node.place().clone());
        if !node.is_map() {
            let dial = node.choice(DIALS, faults).unwrap_or_default();
            return Self {
                dial,
                place,
                ..Self::default()
            };
        }
        let mut fields = node.fields(faults);
        let dial = fields
            .take("dial")
            .and_then(|node| node.choice(DIALS, faults))
            .unwrap_or_default();
        let port_node = fields.take("port");
        let port = port_node.and_then(|node| {
            let port = node.integer(1..=u64::from(u16::MAX), faults)?;
            u16::try_from(port).ok()
        });
        let uid_node = fields.take("peerUid");
        let peer_uid = uid_node.and_then(|node| {
            let uid = node.integer(0..=u64::from(u32::MAX), faults)?;
            u32::try_from(uid).ok()
        });
        let patience = fields.take("patience").and_then(|node| {
            let patience = node.duration(faults)?;
            if patience > MAX_PATIENCE {
                faults.error(node.place(), format!("longer than {MAX_PATIENCE:?}"));
            }
            Some(patience)
        });
        let mut span = |key| fields.take(key).and_then(|node| node.duration(faults));
        let (half_close_timeout, idle_timeout) = (span("halfCloseTimeout"), span("idleTimeout"));
        fields.finish(faults);
        if let (Some(node), true) = (port_node, dial != Dial::Tcp) {
            faults.error(&node.key_place(), "port is for dial: tcp");
        }
        if let (Some(node), true) = (uid_node, dial != Dial::Unix) {
            faults.error(&node.key_place(), "peerUid is known of unix sockets only");
        }
        Self {
            dial,
            port,
            peer_uid,
            patience,
            half_close_timeout,
            idle_timeout,
            place,
        }
    }

    /// Where it was written, for faults found later.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place.0
    }
}
