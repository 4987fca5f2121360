//! Prometheus metrics with closed label sets: host and session names stand in records only.

use std::sync::OnceLock;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{
    handles::{ConnectionGuard, Connections, OfKind, WaitingGuard},
    histogram::OpenSeconds,
    kept::Kept,
    labels::{
        BytesLabels, EndLabels, Kind, KindLabels, ListenerLabels, OutcomeLabels, OverLimitLabels,
        PathLabels, ProbeLabels, TransportLabel, Way,
    },
};
use crate::outcome::Outcome;

/// Every metric of the gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ended: Kept<EndLabels, Counter>,
    open: Family<KindLabels, Gauge>,
    bytes: Family<BytesLabels, Counter>,
    open_seconds: Family<KindLabels, OpenSeconds>,
    kinds: [OnceLock<OfKind>; 3],
    connections: Kept<ListenerLabels, Gauge>,
    accepted: Kept<ListenerLabels, Counter>,
    over_limit: Kept<OverLimitLabels, Counter>,
    h2_floods: Counter,
    records_dropped: Gauge,
    sessions: Gauge,
    waiting: Gauge,
    dials_missing: Gauge,
    pending: Gauge,
    ready: Gauge,
    probes: Family<ProbeLabels, Counter>,
    proved: Family<PathLabels, Gauge>,
    profile_changes: Counter,
    webhooks: Family<OutcomeLabels, Counter>,
    store: Family<OutcomeLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sluicegate");
        let ended = Family::default();
        registry.register(
            "ended",
            "Tunnels, requests and streams ended, by outcome and reason",
            ended.clone(),
        );
        let open = Family::default();
        registry.register(
            "open",
            "Tunnels, requests and streams open now",
            open.clone(),
        );
        let bytes = Family::default();
        registry.register_with_unit(
            "transferred",
            "Payload carried, up = towards the upstream",
            Unit::Bytes,
            bytes.clone(),
        );
        let open_seconds = Family::default();
        registry.register_with_unit(
            "open_duration",
            "From the request's head to an open upstream",
            Unit::Seconds,
            open_seconds.clone(),
        );
        let connections = Family::default();
        registry.register(
            "connections",
            "Downstream connections open now",
            connections.clone(),
        );
        let accepted = Family::default();
        registry.register(
            "accepted",
            "Downstream connections accepted",
            accepted.clone(),
        );
        let over_limit = Family::default();
        registry.register(
            "connections_over_limit",
            "Connections reset at once for want of a place: of all, or of their source",
            over_limit.clone(),
        );
        let h2_floods = Counter::default();
        registry.register(
            "h2_floods",
            "HTTP/2 connections ended for too many frames that carry nothing",
            h2_floods.clone(),
        );
        let records_dropped = Gauge::default();
        registry.register(
            "access_records_dropped",
            "Access records that could not be written",
            records_dropped.clone(),
        );
        let sessions = Gauge::default();
        registry.register(
            "sessions",
            "Sessions with a live generation",
            sessions.clone(),
        );
        let waiting = Gauge::default();
        registry.register(
            "accept_streams_waiting",
            "Accept streams of sandboxes that wait for a dial of their host",
            waiting.clone(),
        );
        let dials_missing = Gauge::default();
        registry.register(
            "dial_targets_missing",
            "Listeners of sandboxes that have no dial target though they should: it is tried again",
            dials_missing.clone(),
        );
        let pending = Gauge::default();
        registry.register(
            "opens_pending",
            "Tunnels, requests and streams whose dial has not ended",
            pending.clone(),
        );
        let ready = Gauge::default();
        registry.register("ready", "1 while new work is accepted", ready.clone());
        let probes = Family::default();
        registry.register(
            "probe_checks",
            "Checks made of the gateway by itself, by outcome",
            probes.clone(),
        );
        let proved = Family::default();
        registry.register(
            "proved",
            "1 while probes prove the path (relay, proxy), 0 while they do not; absent while unknown",
            proved.clone(),
        );
        let profile_changes = Counter::default();
        registry.register(
            "profile_changes",
            "Changes of a provider's effective profile",
            profile_changes.clone(),
        );
        let webhooks = Family::default();
        registry.register(
            "webhook_deliveries",
            "Attempts to deliver events to webhooks: delivered, failed, and given_up once for an event; events missed, as they were no longer stored when their turn came",
            webhooks.clone(),
        );
        let store = Family::default();
        registry.register(
            "store_verifications",
            "The store verified whole: whole, or failed where it is damaged or cannot be read",
            store.clone(),
        );
        Self {
            registry,
            ended: Kept::new(ended),
            open,
            bytes,
            open_seconds,
            kinds: Default::default(),
            connections: Kept::new(connections),
            accepted: Kept::new(accepted),
            over_limit: Kept::new(over_limit),
            h2_floods,
            records_dropped,
            sessions,
            waiting,
            dials_missing,
            pending,
            ready,
            probes,
            proved,
            profile_changes,
            webhooks,
            store,
        }
    }
}

impl Metrics {
    /// OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The metrics of one kind.
    pub(super) fn of(&self, kind: Kind) -> &OfKind {
        let [tunnels, requests, streams] = &self.kinds;
        let of_kind = match kind {
            Kind::tunnel => tunnels,
            Kind::request => requests,
            Kind::stream => streams,
        };
        of_kind.get_or_init(|| {
            let bytes = |direction| {
                let labels = BytesLabels { kind, direction };
                self.bytes.get_or_create(&labels).clone()
            };
            let labels = KindLabels { kind };
            OfKind {
                open: self.open.get_or_create(&labels).clone(),
                up: bytes(Way::up),
                down: bytes(Way::down),
                open_seconds: self.open_seconds.get_or_create(&labels).clone(),
                completed: Default::default(),
            }
        })
    }

    /// One more has ended so.
    pub(super) fn ended(&self, labels: &EndLabels) {
        let in_order = labels.outcome == Outcome::Completed && labels.reason.is_empty();
        let kept = self.of(labels.kind).completed.get(labels.front as usize);
        match kept.filter(|_| in_order) {
            Some(kept) => kept.get_or_init(|| self.ended.of(labels)).inc(),
            None => self.ended.of(labels).inc(),
        };
    }

    /// A connection came in on a listener of this kind; the guard's drop takes it off the gauge.
    pub fn connection(&self, listener: &'static str, transport: TransportLabel) -> ConnectionGuard {
        self.connections(listener, transport).begin()
    }

    /// The connections on listeners of this kind, for whoever accepts many. They are shown from now on, so that who has none yet
    /// does not ask.
    pub fn connections(&self, listener: &'static str, transport: TransportLabel) -> Connections {
        let labels = ListenerLabels {
            listener,
            transport,
        };
        Connections {
            accepted: self.accepted.of(&labels),
            open: self.connections.of(&labels),
        }
    }

    /// A connection was reset at once: the gateway, or its source, is at its limit.
    pub fn connection_refused(&self, listener: &'static str, limit: &'static str) {
        self.over_limit
            .of(&OverLimitLabels { listener, limit })
            .inc();
    }

    /// An HTTP/2 connection was ended: its frames were about itself.
    pub fn h2_flood(&self) {
        self.h2_floods.inc();
    }

    /// Sessions with a live generation.
    pub fn sessions(&self, live: usize) {
        self.sessions.set(i64::try_from(live).unwrap_or(i64::MAX));
    }

    /// Listeners whose dial target cannot be had now.
    pub fn dial_targets_missing(&self, count: usize) {
        self.dials_missing
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A check was made.
    pub fn probe(&self, check: &'static str, outcome: &'static str) {
        self.probes
            .get_or_create(&ProbeLabels { check, outcome })
            .inc();
    }

    /// What is known of a path; what is unknown changes nothing.
    pub fn proved(&self, path: &'static str, proved: bool) {
        self.proved
            .get_or_create(&PathLabels { path })
            .set(i64::from(proved));
    }

    /// A provider's effective profile is another than before.
    pub fn profile_changed(&self) {
        self.profile_changes.inc();
    }

    /// What became of an attempt to deliver an event.
    pub fn webhook(&self, outcome: &'static str) {
        self.webhooks
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// So many events were no longer stored when their turn came.
    pub fn webhook_missed(&self, events: u64) {
        let outcome = "missed";
        self.webhooks
            .get_or_create(&OutcomeLabels { outcome })
            .inc_by(events);
    }

    /// What was found when the store was verified whole.
    pub fn store_verified(&self, whole: bool) {
        let outcome = if whole { "whole" } else { "failed" };
        self.store.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// An accept stream waits; the guard's drop takes it off the gauge.
    pub fn waiting(&self) -> WaitingGuard {
        self.waiting.inc();
        WaitingGuard(self.waiting.clone())
    }

    /// A dial begins; the guard's drop takes it off the gauge.
    pub fn pending(&self) -> WaitingGuard {
        self.pending.inc();
        WaitingGuard(self.pending.clone())
    }

    /// Is new work accepted?
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    pub(super) fn records_dropped(&self, dropped: u64) {
        self.records_dropped
            .set(i64::try_from(dropped).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{handles::FRONTS, labels::Front},
        *,
    };

    #[test]
    fn an_end_is_shown_from_the_first_on_whichever_way_it_is_counted() {
        let metrics = Metrics::default();
        let fronts = [(Front::connect, "connect"), (Front::origin, "origin")];
        let ends = [
            (Outcome::Completed, "", "completed"),
            (Outcome::Completed, "grpc_status", "completed"),
            (Outcome::Cut, "idle_timeout", "cut"),
        ];
        let kind = Kind::tunnel;
        for (front, named) in fronts {
            for (outcome, reason, said) in ends {
                let series = format!(
                    "sluicegate_ended_total{{kind=\"tunnel\",front=\"{named}\",outcome=\"{said}\",reason=\"{reason}\"}} "
                );
                assert!(!metrics.render().contains(&series), "{series}");
                for count in 1..=3 {
                    metrics.ended(&EndLabels {
                        kind,
                        front,
                        outcome,
                        reason,
                    });
                    let line = format!("{series}{count}\n");
                    assert!(metrics.render().contains(&line), "{line}");
                }
            }
        }
    }

    #[test]
    fn the_last_front_has_its_place_too() {
        assert_eq!(Front::origin as usize + 1, FRONTS);
    }

    #[test]
    fn connections_are_one_count_however_they_are_begun() {
        let metrics = Metrics::default();
        let labels = "{listener=\"plain\",transport=\"tcp\"}";
        let plain = || metrics.connections("plain", TransportLabel::tcp);
        let first = plain();
        let begun = (
            first.begin(),
            plain().begin(),
            metrics.connection("plain", TransportLabel::tcp),
        );
        let shown = |accepted: u64, open: u64| {
            let text = metrics.render();
            for line in [
                format!("sluicegate_accepted_total{labels} {accepted}\n"),
                format!("sluicegate_connections{labels} {open}\n"),
            ] {
                assert!(text.contains(&line), "{line}");
            }
        };
        shown(3, 3);
        drop(begun);
        shown(3, 0);
    }
}
