//! Where hosts dial what a sandbox exposes: a place for each listener of the grant, from the start of a generation to its
//! end, whether the sandbox is connected or not.
//!
//! Sockets are bound here, under the registry's own lock, so that an answer that shows a place is true; they listen, and what comes
//! in on them is served, by `relay`, to which each is handed as an [`Offer`] ([`Door`]). A port that was chosen is the generation's until it
//! ends: the registry keeps it in the record, and another is never chosen in its stead, since whoever has it by then would
//! be sent what the host means for its sandbox.

mod door;
mod kept;

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

use sha2::{Digest, Sha256};
use sluicegate_policy::{Dial, DialPorts, Expose, Grant, ServiceName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Session, SessionKey};
pub use door::{Door, Listening};

/// Longest path of a unix socket on Linux, `sun_path` less its closing NUL (unix(7)).
const UNIX_PATH: usize = 107;
/// Most octets of a label in a name (RFC 1035 §2.3.4).
const LABEL: usize = 63;

/// Characters that stand for a session.
const SESSION: usize = 16;

/// Where places can be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DialConfig {
    /// Directory of the unix sockets; emptied at the start. Absent: no socket can be had.
    pub directory: Option<PathBuf>,
    /// Names on the private listener end in this, and it listens on this port. Absent: there is none.
    pub private: Option<(Arc<str>, u16)>,
}

/// The places of one generation, as the admin API shows them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DialTargets {
    /// `unix://…`, `tcp://…`, `tls://…` by name.
    pub targets: BTreeMap<String, String>,
    /// Why there is none, by name.
    pub errors: BTreeMap<String, String>,
}

/// A living generation, for its places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Living<'a> {
    pub(super) session: &'a Arc<Session>,
    pub(super) grant: &'a Grant,
    /// Ports chosen for its listeners before, by name.
    pub(super) ports: &'a BTreeMap<String, u16>,
}

/// What has come of it.
#[derive(Debug)]
pub(super) struct Settled {
    /// Ports chosen for its listeners, by name: the record's from now on.
    pub(super) ports: BTreeMap<String, u16>,
    /// Listeners that have no place since now, and why.
    pub(super) missing: Vec<(String, String)>,
    /// Listeners that had none, and have one again.
    pub(super) found: Vec<String>,
}

/// A bound socket, to be served until it is taken away.
#[derive(Debug)]
pub struct Offer {
    /// Whose sandbox is dialled.
    pub session: Arc<Session>,
    /// Which of its listeners.
    pub name: ServiceName,
    /// The socket, to listen while the sandbox is there.
    pub door: Arc<Door>,
    /// It is taken away.
    pub closed: CancellationToken,
}

/// One listener's place.
#[derive(Debug)]
struct Place {
    expose: Expose,
    target: String,
    /// To be removed with it.
    file: Option<PathBuf>,
    /// A loopback port.
    port: Option<u16>,
    /// Its socket, which goes with it, whoever holds a handle still. Absent on the private listener.
    door: Option<Arc<Door>>,
    closed: CancellationToken,
}

#[derive(Debug)]
struct Open {
    session: Arc<Session>,
    places: BTreeMap<ServiceName, Place>,
}

/// All places. One writer at a time: the registry's.
#[derive(Debug)]
pub struct Dials {
    config: DialConfig,
    open: Mutex<HashMap<SessionKey, Open>>,
    /// Loopback ports listened on: never a target of any session.
    ports: DialPorts,
    /// Ports of generations that cannot be served now: bound, and never listening.
    kept: Mutex<HashMap<SessionKey, Vec<Door>>>,
    missing: AtomicUsize,
    /// Names on the private listener, without the domain.
    names: Mutex<HashMap<String, (Arc<Session>, ServiceName)>>,
    offers: mpsc::UnboundedSender<Offer>,
    taken: Mutex<Option<mpsc::UnboundedReceiver<Offer>>>,
}

impl Dials {
    /// Begin with none. What a process before this one left in the directory is removed.
    pub(super) fn new(config: DialConfig) -> Self {
        if let Some(directory) = &config.directory
            && let Err(error) = fs::remove_dir_all(directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %directory.display(), %error, "sockets left behind cannot be removed");
        }
        let (offers, taken) = mpsc::unbounded_channel();
        Self {
            config,
            open: Mutex::default(),
            ports: DialPorts::default(),
            kept: Mutex::default(),
            missing: AtomicUsize::default(),
            names: Mutex::default(),
            offers,
            taken: Mutex::new(Some(taken)),
        }
    }

    /// What is to be served, once; who asks again gets nothing.
    pub fn take_offers(&self) -> Option<mpsc::UnboundedReceiver<Offer>> {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The loopback ports of these places, as they are at any moment.
    pub fn ports(&self) -> &DialPorts {
        &self.ports
    }

    /// Which listener a name on the private listener means.
    pub fn named(&self, name: &str) -> Option<(Arc<Session>, ServiceName)> {
        let (domain, _) = self.config.private.as_ref()?;
        let label = name.strip_suffix(&**domain)?.strip_suffix('.')?;
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(label).cloned()
    }

    /// The places of this generation are what its grant says now; of no generation, none. A place that is
    /// where it was stays as it is, on other terms too, and so do the connections that wait on it.
    pub(super) fn settle(&self, key: &SessionKey, living: Option<Living<'_>>) -> Option<Settled> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Let go of only when what is wanted has been bound.
        let mut held = self.kept().remove(key).unwrap_or_default();
        let mut before = open.remove(key);
        let Some(Living {
            session,
            grant,
            ports,
        }) = living
        else {
            self.close(before.into_iter().flat_map(|open| open.places));
            self.leave(key);
            return None;
        };
        if before
            .as_ref()
            .is_some_and(|open| !Arc::ptr_eq(&open.session, session))
        {
            self.close(before.take().into_iter().flat_map(|open| open.places));
            self.leave(key);
        }
        let mut old = before.map(|open| open.places).unwrap_or_default();
        let (mut kept, mut wanted) = (BTreeMap::new(), Vec::new());
        for (name, expose) in grant.exposed() {
            match old.remove(name) {
                Some(mut place) if place.expose.differs_in(expose).is_none() => {
                    // Its terms are read from the grant by whoever serves it. Closed, it would refuse who dials what the answer shows.
                    place.expose = expose.clone();
                    kept.insert(name.clone(), place);
                }
                changed => {
                    // Closed first: the same path or port may be wanted again.
                    self.close(changed.map(|place| (name.clone(), place)));
                    wanted.push((name, expose));
                }
            }
        }
        self.close(old);
        let said = session.dials();
        let mut settled = Settled {
            // One that cannot be had now is still the generation's.
            ports: chosen(grant, ports),
            missing: Vec::new(),
            found: Vec::new(),
        };
        let mut errors = BTreeMap::new();
        for (name, expose) in wanted {
            let port = settled.ports.get(name.as_str()).copied();
            match self.bind(session, name, expose, port, &mut held) {
                Ok(place) => {
                    if let (Some(port), None) = (place.port, expose.port) {
                        settled.ports.insert(name.to_string(), port);
                    }
                    if said.errors.contains_key(name.as_str()) {
                        settled.found.push(name.to_string());
                    }
                    kept.insert(name.clone(), place);
                }
                Err(error) => {
                    // Tried again and again, said once.
                    if said.errors.get(name.as_str()) != Some(&error) {
                        tracing::error!(session = %key.id, listener = %name, %error, "an exposed listener has no dial target");
                        settled.missing.push((name.to_string(), error.clone()));
                    }
                    errors.insert(name.to_string(), error);
                }
            }
        }
        show(session, &kept, errors);
        if !kept.is_empty() {
            let places = kept;
            let session = session.clone();
            open.insert(key.clone(), Open { session, places });
        }
        Some(settled)
    }

    /// Ports that could not be stored beside these are given up: they would be others after a restart.
    pub(super) fn give_up(&self, key: &SessionKey, stored: &BTreeMap<String, u16>, why: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(one) = open.get_mut(key) else { return };
        let unstored = |name: &ServiceName, place: &Place| {
            let chosen = place.port.filter(|_| place.expose.port.is_none());
            chosen.is_some_and(|port| stored.get(name.as_str()) != Some(&port))
        };
        let (gone, kept) = std::mem::take(&mut one.places)
            .into_iter()
            .partition(|(name, place)| unstored(name, place));
        let gone: BTreeMap<ServiceName, Place> = gone;
        one.places = kept;
        let mut errors = one.session.dials().errors.clone();
        errors.extend(gone.keys().map(|name| (name.to_string(), why.to_owned())));
        show(&one.session, &one.places, errors);
        self.close(gone);
    }

    /// The directory of the session's sockets goes with the generation, and not before: who has hidden or mounted it as a whole would see
    /// another one that stands there, or none.
    fn leave(&self, key: &SessionKey) {
        if let Some(directory) = &self.config.directory {
            // There is none where nothing was exposed by a unix socket.
            let _ = fs::remove_dir(directory.join(label(key)));
        }
    }

    fn close(&self, places: impl IntoIterator<Item = (ServiceName, Place)>) {
        for (_, place) in places {
            place.closed.cancel();
            if let Some(door) = &place.door {
                // Whoever serves it lets go a moment later, and until then nobody could listen there again.
                door.give_up();
            }
            if let Some(port) = place.port {
                self.ports.remove(port);
            }
            if let Some(file) = &place.file {
                // Gone already is as good.
                let _ = fs::remove_file(file);
            }
            if place.expose.dial == Dial::Tls {
                let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                names.retain(|label, _| !is_target(&place.target, label));
            }
        }
    }

    fn bind(
        &self,
        session: &Arc<Session>,
        name: &ServiceName,
        expose: &Expose,
        port: Option<u16>,
        held: &mut Vec<Door>,
    ) -> Result<Place, String> {
        let closed = CancellationToken::new();
        let (mut file, mut own) = (None, None);
        let (target, door) = match expose.dial {
            Dial::Unix => {
                let directory = self.config.directory.as_ref();
                let directory = directory.ok_or("there is no directory for its socket")?;
                let path = socket_path(directory, &label(session.key()), name);
                let door = bind_unix(&path, expose.peer_uid);
                let door = door.map_err(|e| format!("{}: {e}", path.display()))?;
                let target = format!("unix://{}", path.display());
                file = Some(path);
                (target, Some(door))
            }
            Dial::Tcp => {
                let port = expose.port.or(port);
                let asked = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
                // Closed and bound again, it could be somebody else's in between.
                let kept = held.iter().position(|door| door.is_at(asked));
                let bound = match kept {
                    Some(index) => Ok((held.swap_remove(index), asked)),
                    None => Door::tcp(asked),
                };
                let (door, address) = bound.map_err(|error| match port {
                    // Never another one: who was told of this one would dial whoever has it.
                    Some(_) => not_yet(asked, &error),
                    None => format!("{asked}: {error}"),
                })?;
                // Known as ours before it listens.
                self.ports.add(address.port());
                own = Some(address.port());
                (format!("tcp://{address}"), Some(door))
            }
            Dial::Tls => {
                let (domain, port) = self.config.private.as_ref().ok_or(NO_PRIVATE)?;
                let label = tls_label(&label(session.key()), name);
                let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                names.insert(label.clone(), (session.clone(), name.clone()));
                (format!("tls://{label}.{domain}:{port}"), None)
            }
        };
        let door = door.map(Arc::new);
        if let Some(door) = &door {
            // Nobody takes offers where nothing is served, as in tests of the registry alone.
            let _ = self.offers.send(Offer {
                session: session.clone(),
                name: name.clone(),
                door: door.clone(),
                closed: closed.clone(),
            });
        }
        Ok(Place {
            expose: expose.clone(),
            target,
            file,
            port: own,
            door,
            closed,
        })
    }
}

/// What is said of a place that somebody else has.
fn not_yet(place: SocketAddr, error: &io::Error) -> String {
    format!("{place}: {error}; it is this generation's, and tried again")
}

/// Of these ports, those of listeners that still want one of the gateway's choice.
fn chosen(grant: &Grant, ports: &BTreeMap<String, u16>) -> BTreeMap<String, u16> {
    let wanting = grant
        .exposed()
        .filter(|(_, expose)| expose.dial == Dial::Tcp && expose.port.is_none());
    wanting
        .filter_map(|(name, _)| Some((name.to_string(), *ports.get(name.as_str())?)))
        .collect()
}

fn show(
    session: &Session,
    places: &BTreeMap<ServiceName, Place>,
    errors: BTreeMap<String, String>,
) {
    let doors = places
        .iter()
        .filter_map(|(name, place)| Some((name.clone(), place.door.clone()?)));
    session.show_doors(doors.collect());
    let targets = places
        .iter()
        .map(|(name, place)| (name.to_string(), place.target.clone()));
    session.show_dials(DialTargets {
        targets: targets.collect(),
        errors,
    });
}

const NO_PRIVATE: &str = "the gateway has no listener of kind private";

impl DialConfig {
    /// Can this place be had at all?
    ///
    /// # Errors
    /// Why not, and what would change it.
    pub fn admits(&self, name: &ServiceName, dial: Dial) -> Result<(), (String, &'static str)> {
        // All labels of sessions are as long as this one.
        let label = "0".repeat(SESSION);
        match dial {
            Dial::Tcp => Ok(()),
            Dial::Tls if self.private.is_none() => Err((
                NO_PRIVATE.into(),
                "the operator would have to add one, with its clientCa",
            )),
            Dial::Tls => {
                let length = tls_label(&label, name).len();
                if length > LABEL {
                    let what = format!("its TLS name would have a label of {length} octets");
                    return Err((what, "use a shorter name"));
                }
                Ok(())
            }
            Dial::Unix => {
                let directory = self.directory.as_deref().unwrap_or(Path::new("/"));
                let length = socket_path(directory, &label, name).as_os_str().len();
                if length > UNIX_PATH {
                    let what = format!(
                        "its socket's path would have {length} octets, and Linux takes {UNIX_PATH}"
                    );
                    return Err((what, "use a shorter name, or dial: tcp"));
                }
                Ok(())
            }
        }
    }
}

/// A session in 16 characters: names of namespaces, providers and sessions are too long for a socket's path, and hold
/// characters that no label has. 80 bits of a hash are not met by accident.
fn label(key: &SessionKey) -> String {
    let mut hash = Sha256::new();
    for part in [&key.namespace, &key.provider, &key.id] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let text = data_encoding::BASE32_NOPAD.encode(&hash.finalize());
    text.chars()
        .take(SESSION)
        .collect::<String>()
        .to_lowercase()
}

fn socket_path(directory: &Path, label: &str, name: &ServiceName) -> PathBuf {
    directory.join(label).join(format!("{name}.sock"))
}

/// One label, so that a wildcard certificate covers it (RFC 9525 §6.3).
fn tls_label(label: &str, name: &ServiceName) -> String {
    format!("{name}--{label}")
}

fn is_target(target: &str, label: &str) -> bool {
    let rest = target
        .strip_prefix("tls://")
        .and_then(|rest| rest.strip_prefix(label));
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// In a directory that is ours alone.
fn bind_unix(path: &Path, also: Option<u32>) -> io::Result<Door> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    Door::unix(path, also)
}

#[cfg(test)]
mod tests;
