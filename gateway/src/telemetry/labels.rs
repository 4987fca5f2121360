//! The words of records and metrics: closed sets.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

use crate::outcome::Outcome;

/// What is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's text")]
pub enum Kind {
    /// Bytes both ways to an egress target.
    tunnel,
    /// One HTTP request, to an egress target or on a relay stream.
    request,
    /// One relay stream to or from a host service.
    stream,
}

impl Kind {
    /// In records.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::tunnel => "tunnel",
            Self::request => "request",
            Self::stream => "stream",
        }
    }
}

/// How it came in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's text")]
pub enum Front {
    /// CONNECT.
    connect,
    /// Absolute-form.
    forward,
    /// connect-tcp.
    connect_tcp,
    /// SOCKS5.
    socks,
    /// Captured by the network.
    transparent,
    /// Sent here by the name it says.
    sni,
    /// A stream of the relay's own protocol.
    quic,
    /// gRPC.
    grpc,
    /// The name server of a sandbox, asking what it may answer.
    names,
    /// A host's dial to a listener of the sandbox.
    listener,
    /// Anything else in origin form.
    origin,
}

impl Front {
    /// In records.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::connect => "connect",
            Self::forward => "forward",
            Self::connect_tcp => "connect-tcp",
            Self::socks => "socks",
            Self::transparent => "transparent",
            Self::sni => "sni",
            Self::quic => "quic",
            Self::grpc => "grpc",
            Self::names => "names",
            Self::listener => "listener",
            Self::origin => "origin",
        }
    }
}

/// The version of HTTP it came by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// HTTP/1.1 and 1.0.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/3.
    Http3,
}

impl Protocol {
    /// In records.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
            Self::Http3 => "h3",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(super) struct EndLabels {
    pub(super) kind: Kind,
    pub(super) front: Front,
    pub(super) outcome: Outcome,
    pub(super) reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(super) struct KindLabels {
    pub(super) kind: Kind,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(super) struct BytesLabels {
    pub(super) kind: Kind,
    pub(super) direction: Way,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(super) struct ListenerLabels {
    pub(super) listener: &'static str,
    pub(super) transport: TransportLabel,
}

/// What a downstream connection came by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's text")]
pub enum TransportLabel {
    /// TCP, with or without TLS.
    tcp,
    /// The relay's own protocol on QUIC.
    quic,
    /// HTTP/3 on QUIC.
    h3,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(super) struct ProbeLabels {
    pub(super) check: &'static str,
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(super) struct PathLabels {
    pub(super) path: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(super) struct OverLimitLabels {
    pub(super) listener: &'static str,
    pub(super) limit: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
pub(super) enum Way {
    #[allow(non_camel_case_types, reason = "the label's text")]
    up,
    #[allow(non_camel_case_types, reason = "the label's text")]
    down,
}

impl prometheus_client::encoding::EncodeLabelValue for Outcome {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> std::fmt::Result {
        use std::fmt::Write;
        encoder.write_str(self.as_str())
    }
}
