//! What a runtime advertises, and what this deployment gives the sessions it creates.
use super::{
    CeilingConfig, capability,
    defaults::{self, CONFINEMENT, HOSTNAME_EGRESS},
    read::{self, keep},
};
use sluicegate_policy::{
    Confinement, EgressMode, GrantDocument, HostServiceAccess, HostnameEgress, Profile,
    text::{Faults, Fields, Node},
};
use std::time::Duration;

/// What becomes of a session whose time is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnExpiry {
    /// Its generation is revoked; the session can be started again.
    Reset,
    /// It is paused.
    Pause,
    /// It ends for good.
    Stop,
}

/// What becomes of the open tunnels of a session that is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnPause {
    /// They are closed.
    Close,
    /// They are held still.
    Hold,
}

/// Life of a provider's sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionConfig {
    /// Life of one generation, unless it is kept alive; `None` = `max_lifetime`.
    pub ttl: Option<Duration>,
    /// A generation without tunnel or request for this long expires; `None` = never.
    pub idle_timeout: Option<Duration>,
    /// No generation lives longer, kept alive or not.
    pub max_lifetime: Duration,
    /// Life of the token `sluicegate-relay` is given, which it exchanges in time; `None` = as long as the generation.
    pub token_ttl: Option<Duration>,
    /// What expiry does.
    pub on_expiry: OnExpiry,
    /// What pausing does to open tunnels.
    pub on_pause: OnPause,
    /// How many sessions of one scope live at once; `None` = any number.
    pub scopes: Option<ScopesConfig>,
}

/// The bound of one scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScopesConfig {
    /// Generations that live at once; further starts wait.
    pub concurrency: u32,
    /// Starts that wait at most; further ones are refused.
    pub queue: u32,
}

/// One runtime provider.
#[derive(Clone, PartialEq, Debug)]
pub struct ProviderConfig {
    /// The runtime's driver, for people and control planes; nothing here depends on it.
    pub driver: Option<String>,
    /// The provider of sessions that name none.
    pub default: bool,
    /// What the runtime says of itself.
    pub advertised: Profile,
    /// Who keeps egress to host names.
    pub hostname_egress: HostnameEgress,
    /// What its sandboxes can reach around the gateway.
    pub confinement: Confinement,
    /// Egress, services and limits every session of this provider begins with.
    pub grant: GrantDocument,
    /// What no session of this provider may exceed.
    pub ceiling: CeilingConfig,
    /// Life of its sessions.
    pub session: SessionConfig,
}

impl ProviderConfig {
    /// The built-in provider `local`: sandboxes on this machine, loopback and nothing else beyond public addresses.
    #[must_use]
    pub fn local() -> Self {
        Self {
            driver: None,
            default: true,
            advertised: Profile {
                can_host_plugins: true,
                host_service_access: HostServiceAccess::Relay,
                egress_mode: EgressMode::Hostname,
            },
            hostname_egress: HOSTNAME_EGRESS,
            confinement: CONFINEMENT,
            grant: GrantDocument::default(),
            ceiling: CeilingConfig::local(),
            session: SessionConfig::default(),
        }
    }

    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut fields = node.fields(faults);
        let driver = fields
            .take("driver")
            .and_then(|node| node.string(faults))
            .map(str::to_owned);
        let default = fields
            .take("default")
            .and_then(|node| node.boolean(faults))
            .unwrap_or(false);
        let advertised = advertised(&mut fields, faults);
        let mut hostname_egress = HOSTNAME_EGRESS;
        let keepers = [
            ("proxy", HostnameEgress::Proxy),
            ("runtime", HostnameEgress::Runtime),
        ];
        keep(
            &mut hostname_egress,
            fields
                .take("hostnameEgress")
                .and_then(|node| node.choice(&keepers, faults)),
        );
        let mut confinement = CONFINEMENT;
        let kinds = [
            ("none", Confinement::None),
            ("gateway-only", Confinement::GatewayOnly),
        ];
        keep(
            &mut confinement,
            fields
                .take("confinement")
                .and_then(|node| node.choice(&kinds, faults)),
        );
        let (grant, ceiling) = capability::read_bounded_grant(node, &mut fields, faults);
        let session = fields
            .take("session")
            .map(|node| SessionConfig::read(node, faults))
            .unwrap_or_default();
        fields.finish(faults);
        Self {
            driver,
            default,
            advertised,
            hostname_egress,
            confinement,
            grant,
            ceiling,
            session,
        }
    }
}

/// The three advertised keys stand under `advertised` or directly on the provider, each once.
fn advertised(fields: &mut Fields<'_>, faults: &mut Faults) -> Profile {
    let mut advertised = defaults::ADVERTISED;
    let mut nested = fields.take("advertised").map(|node| node.fields(faults));
    for key in ["canHostPlugins", "hostServiceAccess", "egressMode"] {
        let direct = fields.take(key);
        let below = nested.as_mut().and_then(|fields| fields.take(key));
        if let (Some(node), Some(_)) = (direct, below) {
            faults.error(
                &node.key_place(),
                format!("{key} stands under advertised too"),
            );
        }
        let Some(node) = direct.or(below) else {
            continue;
        };
        read_advertised(key, node, &mut advertised, faults);
    }
    if let Some(nested) = nested {
        nested.finish(faults);
    }
    advertised
}

fn read_advertised(key: &str, node: &Node, advertised: &mut Profile, faults: &mut Faults) {
    match key {
        "canHostPlugins" => keep(&mut advertised.can_host_plugins, node.boolean(faults)),
        "hostServiceAccess" => {
            let ways = [
                ("none", HostServiceAccess::None),
                ("relay", HostServiceAccess::Relay),
                ("direct", HostServiceAccess::Direct),
            ];
            keep(
                &mut advertised.host_service_access,
                node.choice(&ways, faults),
            );
        }
        _ => {
            let modes = [
                ("none", EgressMode::None),
                ("cidr", EgressMode::Cidr),
                ("hostname", EgressMode::Hostname),
            ];
            keep(&mut advertised.egress_mode, node.choice(&modes, faults));
        }
    }
}

impl ScopesConfig {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = node.fields(faults);
        let concurrency = fields
            .require("concurrency", faults)
            .and_then(|node| read::count(node, 1, faults));
        let queue = fields
            .take("queue")
            .and_then(|node| read::count(node, 0, faults));
        fields.finish(faults);
        Some(Self {
            concurrency: concurrency?,
            queue: queue.unwrap_or(defaults::SCOPE_QUEUE),
        })
    }
}

impl SessionConfig {
    fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut session = Self::default();
        let mut fields = node.fields(faults);
        let ttl_node = fields.take("ttl");
        session.ttl = ttl_node.and_then(|node| read::positive(node, faults));
        let idle = fields
            .take("idleTimeout")
            .and_then(|node| read::or_none(node, faults));
        keep(&mut session.idle_timeout, idle);
        let longest = fields
            .take("maxLifetime")
            .and_then(|node| read::positive(node, faults));
        keep(&mut session.max_lifetime, longest);
        session.token_ttl = fields
            .take("tokenTtl")
            .and_then(|node| read::positive(node, faults));
        let expiries = [
            ("reset", OnExpiry::Reset),
            ("pause", OnExpiry::Pause),
            ("stop", OnExpiry::Stop),
        ];
        keep(
            &mut session.on_expiry,
            fields
                .take("onExpiry")
                .and_then(|node| node.choice(&expiries, faults)),
        );
        let pauses = [("close", OnPause::Close), ("hold", OnPause::Hold)];
        keep(
            &mut session.on_pause,
            fields
                .take("onPause")
                .and_then(|node| node.choice(&pauses, faults)),
        );
        session.scopes = fields
            .take("scopes")
            .and_then(|node| ScopesConfig::read(node, faults));
        fields.finish(faults);
        if let (Some(node), Some(ttl)) = (ttl_node, session.ttl)
            && ttl > session.max_lifetime
        {
            faults.error(node.place(), "ttl is above maxLifetime");
        }
        session
    }
}
