//! What may this session reach? Names, addresses, rules, grants and the one function that decides.
//!
//! Pure: no IO, no clock, no randomness, no async. The time is a parameter wherever it matters.

mod address;
mod decide;
mod denial;
mod document;
mod entry;
mod expose;
mod grant;
mod hint;
mod host;
mod import;
mod lint;
mod matcher;
mod path;
mod profile;
mod rule;
mod service;
mod socket;
mod suggest;
mod target;
mod term;
#[cfg(test)]
mod testing;
pub mod text;

pub use address::{AddressClass, Nat64Prefix, canonical_net, classify};
pub use decide::{
    AddressPermit, Admission, CallsPermit, DialPorts, Explanation, FirstBytes, Hello, Interfaces,
    ListenerPermit, MixedAnswers, OwnAddresses, ServicePermit, StreamPermit, Supposed,
    TargetPermit, admit, admit_one, decide, decide_at, decide_listener, decide_name,
    decide_service, decide_stream, explain, explain_supposing,
};
pub use denial::{Blame, Denial, Refusal};
pub use document::{
    Author, Ceiling, EgressDocument, ExposeDocument, GrantDocument, LimitsDocument, ServiceDocument,
};
pub use expose::{Dial, Expose};
pub use grant::{Grant, Limits, ProxyProtocol, Service, ServiceHttp, Within};
pub use hint::{Hint, HintFor};
pub use host::{HostError, HostName, HostPattern};
pub use import::{Choices, Imported, System, import, import_gestalt_claims};
pub use lint::{
    SourceLint, lint, lint_below, lint_blocks, lint_ceiling, lint_services, lint_source,
};
pub use profile::{
    Circumstances, Confinement, EgressMode, HostServiceAccess, HostnameEgress, Misplacement,
    Profile, Proof, Shortfall, Workload, effective, placement, settled, settled_placement,
};
pub use rule::{Action, EchRule, HttpRule, Mode, Origin, RuleId, TlsRule};
pub use service::{
    Direction, Health, MethodPrefix, ServiceBound, ServiceName, ServiceNameError, ServiceUrl,
};
pub use socket::SocketEntry;
pub use suggest::{PlainUse, TunnelUse, suggest};
pub use target::{Host, Target, TargetError};
pub use term::Term;
