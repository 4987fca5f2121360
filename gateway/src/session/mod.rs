//! Sessions: one sandbox's lease, durable across the ephemeral generations that back it.
//!
//! [`lifecycle`] is the pure table; [`Registry`] carries it out over the store; [`Index`] is what the data path looks
//! things up in; [`Session`] is one living generation with its [`Authority`] and [`Budget`]. Requests are read in
//! `request`, answers written in `view` and `bundle`. Who a credential is lives in `auth`; routes live in `admin`.

mod asked;
mod authority;
mod binding;
mod budget;
mod bundle;
mod changes;
mod config;
mod dials;
mod event;
mod index;
pub mod lifecycle;
mod own;
mod pace;
mod record;
mod registry;
mod request;
mod sweep;
#[cfg(test)]
pub(crate) mod testing;
mod usage;
mod view;

pub use asked::AskedGrant;
pub use authority::{Authority, Judged, PolicyGeneration, Session, SessionKey};
pub use binding::{Binding, BindingRequest, Capability};
pub use budget::{Budget, Calling, Carrier, Destination, Pending, Requests, Slot};
pub use bundle::{Bundle, BundleContext, CaFiles, PublicUrl};
pub use changes::{Bearer, Changes, Credential, Right};
pub use config::{ProviderConfig, Quota, RegistryConfig, Retention, Scopes};
pub use dials::{DialConfig, DialTargets, Dials, Door, Listening, Offer};
pub use event::{Actor, EVENT_TYPES, Event};
pub use index::{Index, Live, Remembers};
pub use own::OwnSession;
pub use pace::Way;
pub use record::{Observed, Record, Ticket};
pub use registry::{
    Behalf, Bind, DeadLetter, Granted, HostService, Issued, LogLine, LogRecord, Observation,
    OwnerKey, OwnerUse, Registry, RegistryError, Wanted,
};
pub use request::{CreateRequest, PatchRequest, TimesRequest, is_session_id, no_secrets};
