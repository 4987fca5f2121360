//! The gateway's own bounds, and those of one owner.
use super::read::{self, keep};
use sluicegate_policy::text::{Faults, Node};
use std::time::Duration;

/// Deadlines and bounds of every connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitsConfig {
    /// A request's head must have arrived by then.
    pub head_timeout: Duration,
    /// A tunnel's first bytes, where they are judged, must have arrived by then.
    pub first_bytes_timeout: Duration,
    /// The upstream must have accepted the connection by then.
    pub dial_timeout: Duration,
    /// A tunnel in which nothing moves either way is cut; `None` = never.
    pub idle_timeout: Option<Duration>,
    /// The upstream's head of response must have arrived by then; `None` = never.
    pub response_timeout: Option<Duration>,
    /// Downstream connections open at once, all listeners for sandboxes together; the private one has as many of its own.
    pub connections: u32,
    /// Of these, how many of one source (an IPv4 address, an IPv6 /64); `None` = no bound of its own.
    pub connections_per_source: Option<u32>,
    /// Opens of one session whose dial has not ended.
    pub pending_opens: u32,
    /// Connections at once that carry relay streams of one session.
    pub relay_connections: u32,
    /// After a signal, open tunnels have this long before they are cut.
    pub drain_timeout: Duration,
    /// Largest head of a request, in bytes.
    pub max_head_bytes: u32,
}

impl LimitsConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut limits = Self::default();
        let mut fields = node.fields(faults);
        for (key, slot) in [
            ("headTimeout", &mut limits.head_timeout),
            ("firstBytesTimeout", &mut limits.first_bytes_timeout),
            ("dialTimeout", &mut limits.dial_timeout),
        ] {
            keep(
                slot,
                fields
                    .take(key)
                    .and_then(|node| read::positive(node, faults)),
            );
        }
        for (key, slot) in [
            ("idleTimeout", &mut limits.idle_timeout),
            ("responseTimeout", &mut limits.response_timeout),
        ] {
            keep(
                slot,
                fields
                    .take(key)
                    .and_then(|node| read::or_none(node, faults)),
            );
        }
        keep(
            &mut limits.connections,
            fields
                .take("connections")
                .and_then(|node| read::count(node, 1, faults)),
        );
        limits.connections_per_source = fields
            .take("connectionsPerSource")
            .and_then(|node| read::count(node, 0, faults))
            .filter(|most| *most > 0);
        keep(
            &mut limits.pending_opens,
            fields
                .take("pendingOpens")
                .and_then(|node| read::count(node, 1, faults)),
        );
        keep(
            &mut limits.relay_connections,
            fields
                .take("relayConnections")
                .and_then(|node| read::count(node, 1, faults)),
        );
        keep(
            &mut limits.drain_timeout,
            fields
                .take("drainTimeout")
                .and_then(|node| node.duration(faults)),
        );
        keep(
            &mut limits.max_head_bytes,
            fields
                .take("maxHeadBytes")
                .and_then(|node| head_bytes(node, faults)),
        );
        fields.finish(faults);
        limits
    }
}

/// Between 1 KiB, which real clients need, and 1 MiB, which each connection may then cost.
fn head_bytes(node: &Node, faults: &mut Faults) -> Option<u32> {
    let bytes = node.bytes(faults)?;
    match u32::try_from(bytes) {
        Ok(bytes) if (1 << 10..=1 << 20).contains(&bytes) => Some(bytes),
        _ => node.expected("1KiB to 1MiB", faults),
    }
}

/// Bounds of one namespace, all its sessions together, and of each owner within it; absent = none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaConfig {
    /// Sessions that are not stopped.
    pub sessions: Option<u32>,
    /// Sessions that there is a record of, stopped ones too, one more for each 16 KiB of what one asks for.
    pub records: Option<u32>,
    /// Bytes of their logs.
    pub logs: Option<u64>,
    /// Tunnels and streams open at once.
    pub tunnels: Option<u32>,
    /// Opens per second.
    pub opens_per_second: Option<u32>,
    /// Bytes both ways together, over the life of each generation.
    pub bytes: Option<u64>,
    /// Bytes per second, each way.
    pub bandwidth: Option<u64>,
    /// Bounds of one owner within a namespace.
    pub owner: OwnerQuotaConfig,
}

/// Bounds of one owner within a namespace; absent = none beyond the namespace's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnerQuotaConfig {
    /// Sessions that are not stopped.
    pub sessions: Option<u32>,
    /// Sessions that there is a record of, stopped ones too, one more for each 16 KiB of what one asks for.
    pub records: Option<u32>,
    /// Bytes of their logs.
    pub logs: Option<u64>,
    /// Tunnels and streams open at once.
    pub tunnels: Option<u32>,
    /// Opens per second.
    pub opens_per_second: Option<u32>,
    /// Bytes both ways together.
    pub bytes: Option<u64>,
    /// Bytes per second, each way.
    pub bandwidth: Option<u64>,
}

impl OwnerQuotaConfig {
    fn read(node: &Node, faults: &mut Faults) -> Self {
        let QuotaConfig {
            sessions,
            records,
            logs,
            tunnels,
            opens_per_second,
            bytes,
            bandwidth,
            owner: _,
        } = QuotaConfig::read_bounds(node, None, faults);
        Self {
            sessions,
            records,
            logs,
            tunnels,
            opens_per_second,
            bytes,
            bandwidth,
        }
    }
}

impl QuotaConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        Self::read_bounds(node, Some(OwnerQuotaConfig::read), faults)
    }

    /// `owner` is a key only at the top.
    fn read_bounds(
        node: &Node,
        owner: Option<fn(&Node, &mut Faults) -> OwnerQuotaConfig>,
        faults: &mut Faults,
    ) -> Self {
        let mut quotas = Self::default();
        let mut fields = node.fields(faults);
        for (key, slot) in [
            ("sessions", &mut quotas.sessions),
            ("records", &mut quotas.records),
            ("tunnels", &mut quotas.tunnels),
            ("opensPerSecond", &mut quotas.opens_per_second),
        ] {
            *slot = fields
                .take(key)
                .and_then(|node| read::count(node, 0, faults));
        }
        for (key, slot) in [
            ("logs", &mut quotas.logs),
            ("bytes", &mut quotas.bytes),
            ("bandwidth", &mut quotas.bandwidth),
        ] {
            *slot = fields.take(key).and_then(|node| node.bytes(faults));
        }
        if let Some(owner) = owner
            && let Some(node) = fields.take("owner")
        {
            quotas.owner = owner(node, faults);
        }
        fields.finish(faults);
        quotas
    }
}
