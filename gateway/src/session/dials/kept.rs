//! Ports of generations that cannot go on now: theirs, though nobody is admitted there.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    sync::{MutexGuard, PoisonError, atomic::Ordering},
};

use super::{DialTargets, Dials, Door, Settled, not_yet};
use crate::session::{Session, SessionKey};

impl Dials {
    /// A generation whose grant does not hold now keeps the ports it was given, and is not dialled. Those it has are left as they are, and
    /// one that somebody else has is asked for again each time.
    pub(in crate::session) fn keep(
        &self,
        session: &Session,
        ports: &BTreeMap<String, u16>,
    ) -> Settled {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = self.kept();
        let key = session.key();
        let own = |port: u16| {
            let open = open
                .get(key)
                .into_iter()
                .flat_map(|open| open.places.values());
            open.filter_map(|place| place.port).any(|own| own == port)
        };
        let doors = kept.entry(key.clone()).or_default();
        let said = session.dials();
        let mut dials = DialTargets::clone(&said);
        let mut settled = Settled {
            ports: ports.clone(),
            missing: Vec::new(),
            found: Vec::new(),
        };
        for (name, port) in ports {
            let asked = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            if own(*port) || doors.iter().any(|door| door.is_at(asked)) {
                continue;
            }
            match Door::tcp(asked) {
                Ok((door, _)) => {
                    doors.push(door);
                    if dials.errors.remove(name).is_some() {
                        settled.found.push(name.clone());
                    }
                }
                Err(error) => {
                    let error = not_yet(asked, &error);
                    if said.errors.get(name) != Some(&error) {
                        tracing::error!(session = %key.id, listener = %name, %error, "the port of a dial target is somebody else's while its session cannot go on");
                        settled.missing.push((name.clone(), error.clone()));
                    }
                    dials.errors.insert(name.clone(), error);
                }
            }
        }
        if dials != *said {
            session.show_dials(dials);
        }
        settled
    }

    /// How many listeners have no dial target though they should, by the last sweep.
    pub(in crate::session) fn missing(&self) -> usize {
        self.missing.load(Ordering::Relaxed)
    }

    /// So many have none.
    pub(in crate::session) fn note_missing(&self, count: usize) {
        self.missing.store(count, Ordering::Relaxed);
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, HashMap<SessionKey, Vec<Door>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
