//! What is on record, and how it is written.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use sluicegate_policy::{FirstBytes, RuleId};

use super::{
    super::{
        labels::{Front, Kind, Protocol},
        line::Line,
        whose::{Caller, SessionLabel},
    },
    Recorder,
};
use crate::outcome::{Outcome, Party};

/// Which record: eight hexadecimal digits of the process, and its number in at least eight. Made where it is said: a record holds the
/// number.
pub(crate) struct RequestId {
    digits: [u8; 24],
    length: u8,
}

impl RequestId {
    pub(super) fn new(prefix: u32, number: u64) -> Self {
        let mut id = Self {
            digits: [0; 24],
            length: 0,
        };
        let mut room = id.digits.as_mut_slice();
        // Never more than 24 digits.
        let _ = write!(room, "{prefix:08x}{number:08x}");
        let left = room.len();
        id.length = u8::try_from(id.digits.len() - left).unwrap_or_default();
        id
    }

    /// As it is written.
    pub(crate) fn as_str(&self) -> &str {
        let digits = self.digits.get(..usize::from(self.length));
        digits
            .and_then(|digits| str::from_utf8(digits).ok())
            .unwrap_or_default()
    }
}

/// Idle tunnels are many, and each has one.
pub(super) struct Record {
    pub(super) time: SystemTime,
    pub(super) number: u64,
    pub(super) kind: Kind,
    pub(super) front: Front,
    pub(super) protocol: Option<Protocol>,
    pub(super) downstream: Caller,
    pub(super) session: Option<SessionLabel>,
    pub(super) policy_generation: Option<u64>,
    pub(super) method: Option<Box<str>>,
    pub(super) target: Option<Box<str>>,
    pub(super) path: Option<Box<str>>,
    pub(super) also_read_as: Box<[(String, String)]>,
    pub(super) service: Option<Box<str>>,
    pub(super) address: Option<SocketAddr>,
    pub(super) answers: Box<[IpAddr]>,
    pub(super) rule: Option<RuleId>,
    pub(super) status: Option<u16>,
    pub(super) grpc_status: Option<u32>,
    pub(super) would_refuse: Option<&'static str>,
    pub(super) began: Option<FirstBytes>,
    pub(super) ech: bool,
    pub(super) detail: Option<Box<str>>,
    pub(super) open: Option<Duration>,
    pub(super) outcome: Outcome,
    pub(super) closed_by: Option<Party>,
}

impl Recorder {
    /// The record as it is written: one JSON object, no line end.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        let r = &*self.record;
        let (up, down) = self.counters.total();
        let mut line = Line::begin(bytes);
        line.time("time", r.time)
            .text("id", self.id().as_str())
            .text("kind", r.kind.as_str())
            .text("front", r.front.as_str())
            .maybe("protocol", r.protocol.map(Protocol::as_str));
        match r.downstream {
            Caller::Address(address) => line.address("downstream", address),
            Caller::User(_) => line.text("downstream", &r.downstream.to_string()),
        };
        if let Some(session) = &r.session {
            line.object("session", |line| {
                line.text("namespace", &session.namespace)
                    .text("provider", &session.provider)
                    .text("id", &session.id)
                    .number("generation", session.generation);
            });
        }
        if let Some(number) = r.policy_generation {
            line.number("policyGeneration", number);
        }
        line.maybe("method", r.method.as_deref())
            .maybe("target", r.target.as_deref())
            .maybe("path", r.path.as_deref());
        if !r.also_read_as.is_empty() {
            line.pairs("alsoReadAs", &r.also_read_as);
        }
        line.maybe("service", r.service.as_deref());
        if let Some(address) = r.address {
            line.address("address", address);
        }
        if !r.answers.is_empty() {
            line.addresses("answers", &r.answers);
        }
        line.maybe("rule", r.rule.as_ref().map(RuleId::as_str));
        if let Some(status) = r.status {
            line.number("status", status.into());
        }
        if let Some(code) = r.grpc_status {
            line.number("grpcStatus", code.into());
        }
        line.text("outcome", r.outcome.as_str())
            .maybe("reason", Some(self.reason).filter(|text| !text.is_empty()))
            .maybe("wouldRefuse", r.would_refuse);
        if let Some(began) = &r.began {
            line.object("began", |line| write_began(line, began));
        }
        if r.ech {
            line.flag("ech");
        }
        line.maybe("detail", r.detail.as_deref())
            .maybe("closedBy", r.closed_by.map(Party::as_str))
            .number("bytesUp", up)
            .number("bytesDown", down);
        if let Some(open) = r.open {
            line.millis("openMs", open);
        }
        line.millis("durationMs", self.start.elapsed());
        line.end();
    }
}

fn write_began(line: &mut Line<'_>, began: &FirstBytes) {
    match began {
        FirstBytes::Unseen => {
            line.text("as", "unseen");
        }
        FirstBytes::Other => {
            line.text("as", "other");
        }
        FirstBytes::Tls(hello) => {
            line.text("as", "tls").maybe("sni", hello.sni.as_deref());
            for (key, said) in [("ech", hello.ech), ("echDraft", hello.ech_draft)] {
                if said {
                    line.flag(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Record;

    #[test]
    fn an_idle_tunnels_record_is_small() {
        let size = size_of::<Record>();
        assert!(size <= 384, "{size}");
    }
}
