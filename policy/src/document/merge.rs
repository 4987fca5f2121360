//! Documents laid over each other: provider defaults, then capabilities, then the session's own.

use super::{EgressDocument, GrantDocument, LimitsDocument, ServiceDocument};
use crate::{Limits, Mode, Origin};

impl GrantDocument {
    /// [`Self::merge`], where `over` is somebody else's: what it says is told apart, and bound by what `self` says.
    #[must_use]
    pub fn lay(self, over: &Self, origin: Origin) -> Self {
        let mut over = over.clone();
        over.egress.attribute_to(origin);
        self.merge(&over)
    }

    /// Lay `over` on top of `self` (provider defaults, then capabilities, then the session's own): lists are joined,
    /// denies always win, absent stays absent, services by name (later wins), the smaller limit holds.
    #[must_use]
    pub fn merge(mut self, over: &Self) -> Self {
        for (name, service) in &over.services {
            let merged = match self.services.remove(name) {
                Some(below) => below.merge(service),
                None => service.clone(),
            };
            self.services.insert(name.clone(), merged);
        }
        // Each is whole where it is written: half of one with half of another is nobody's intention.
        self.expose.extend(over.expose.clone());
        Self {
            egress: self.egress.merge(&over.egress),
            services: self.services,
            expose: self.expose,
            limits: self.limits.merge(over.limits),
        }
    }
}

impl EgressDocument {
    /// Enforce (where nothing is written) or report.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
            .as_ref()
            .map(|mode| mode.value)
            .unwrap_or_default()
    }

    /// Whose word `mode: report` is, where that is the mode.
    pub(super) fn reports(&self) -> Option<Origin> {
        let report = self.mode.as_ref().filter(|mode| mode.value == Mode::Report);
        report.map(|mode| mode.origin)
    }

    fn attribute_to(&mut self, origin: Origin) {
        let lists = [self.allowed_hosts.as_mut(), Some(&mut self.denied_hosts)];
        for entry in lists.into_iter().flatten().flatten() {
            entry.origin = origin;
        }
        for rule in &mut self.rules {
            rule.origin = origin;
        }
        if let Some(mode) = &mut self.mode {
            mode.origin = origin;
        }
    }

    /// Lay `over` on top of `self`, both of one author; `defaultAction`, `mode` and the static answers of a name are the later one's.
    #[must_use]
    pub fn merge(mut self, over: &Self) -> Self {
        if let Some(list) = &over.allowed_hosts {
            join(self.allowed_hosts.get_or_insert_default(), list);
        }
        join(&mut self.denied_hosts, &over.denied_hosts);
        join(&mut self.allowed_addresses, &over.allowed_addresses);
        join(&mut self.rules, &over.rules);
        self.hosts.extend(over.hosts.clone());
        self.default_action = over.default_action.or(self.default_action);
        self.mode = match (self.mode, &over.mode) {
            // Said again, it takes away no more and no less than where it was said first.
            (Some(below), Some(over)) if below == *over => Some(below),
            (below, over) => over.clone().or(below),
        };
        self
    }
}

impl ServiceDocument {
    /// One that has a URL replaces the one below; one that has none adds to it.
    fn merge(self, over: &Self) -> Self {
        let over = over.clone();
        if over.url.is_some() {
            return over;
        }
        Self {
            url: self.url,
            health: over.health.or(self.health),
            half_close_timeout: over.half_close_timeout.or(self.half_close_timeout),
            idle_timeout: over.idle_timeout.or(self.idle_timeout),
            peer_uid: over.peer_uid.or(self.peer_uid),
            proxy_protocol: over.proxy_protocol.or(self.proxy_protocol),
            http: over.http.or(self.http),
            grpc_method_prefix: over.grpc_method_prefix.or(self.grpc_method_prefix),
            place: over.place,
        }
    }
}

impl LimitsDocument {
    fn merge(self, over: Self) -> Self {
        fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        let (a, b) = (self.limits, over.limits);
        Self {
            limits: Limits {
                tunnels: smaller(a.tunnels, b.tunnels),
                tunnels_per_destination: smaller(
                    a.tunnels_per_destination,
                    b.tunnels_per_destination,
                ),
                opens_per_second: smaller(a.opens_per_second, b.opens_per_second),
                bytes: smaller(a.bytes, b.bytes),
                bandwidth: smaller(a.bandwidth, b.bandwidth),
            },
        }
    }
}

/// Append what is not there yet. Large lists are not searched: an entry twice does no harm.
fn join<T: Clone + PartialEq>(list: &mut Vec<T>, more: &[T]) {
    const SEARCHED: usize = 1000;
    for item in more {
        if list.len() > SEARCHED || !list.contains(item) {
            list.push(item.clone());
        }
    }
}
