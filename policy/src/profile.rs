//! What a runtime advertises, what this deployment can really give it, and what fits there. Pure: proofs are inputs.

use crate::Grant;

/// How a runtime's sandboxes reach host services.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostServiceAccess {
    /// Not at all.
    None,
    /// Through the relay.
    Relay,
    /// On their own.
    Direct,
}

/// How finely a runtime's egress can be bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressMode {
    /// Not at all.
    None,
    /// By address range.
    Cidr,
    /// By host name.
    Hostname,
}

/// One profile, advertised or effective.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Can it host executable providers?
    pub can_host_plugins: bool,
    /// How its sandboxes reach host services.
    pub host_service_access: HostServiceAccess,
    /// How finely its egress can be bounded.
    pub egress_mode: EgressMode,
}

/// Who enforces host names where a runtime advertises `hostname`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HostnameEgress {
    /// Our proxy, which must be proved.
    #[default]
    Proxy,
    /// The runtime itself.
    Runtime,
}

/// What keeps a sandbox from going round the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Confinement {
    /// Nothing.
    #[default]
    None,
    /// The runtime lets a sandbox reach the gateway only.
    GatewayOnly,
}

/// What the probes know of one path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proof {
    /// It works.
    Proved,
    /// It works, though not in every way it is meant to: nothing is lost, and something can be mended.
    Impaired {
        /// What does not, in one sentence without its full stop.
        reason: String,
        /// Since when, in seconds of Unix time.
        since: u64,
        /// The setting that mends it.
        setting: String,
    },
    /// Nobody knows yet. Unknown is not lost: see [`settled`].
    Unknown,
    /// It does not.
    Unproved {
        /// Why, in one sentence without its full stop.
        reason: String,
        /// Since when, in seconds of Unix time.
        since: u64,
        /// The setting that mends it, e.g. `publicUrl`.
        setting: String,
    },
}

/// Everything the effective profile depends on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Circumstances {
    /// Where the provider's own settings stand, e.g. `runtime.providers.local`.
    pub settings: String,
    /// What the runtime says of itself.
    pub advertised: Profile,
    /// Who enforces host names.
    pub hostname_egress: HostnameEgress,
    /// What confines a sandbox.
    pub confinement: Confinement,
    /// Is the relay proved?
    pub relay: Proof,
    /// Is the proxy proved?
    pub proxy: Proof,
}

/// Something a deployment cannot give, or gives with less to fall back on, and what would mend it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shortfall {
    /// The field of the profile that falls short.
    pub field: &'static str,
    /// Why.
    pub reason: String,
    /// Since when, in seconds of Unix time; absent where it follows from the configuration alone, whose age is not known here.
    pub since: Option<u64>,
    /// The setting that mends it; absent where none does.
    pub setting: Option<String>,
}

/// What the deployment can really give, with a shortfall for each field below the best, or impaired.
#[must_use]
pub fn effective(of: &Circumstances) -> (Profile, Vec<Shortfall>) {
    let mut shortfalls = Vec::new();
    if !of.advertised.can_host_plugins {
        shortfalls.push(Shortfall {
            field: "canHostPlugins",
            reason: "the runtime does not advertise it".to_owned(),
            since: None,
            setting: Some(format!("{}.canHostPlugins", of.settings)),
        });
    }
    let profile = Profile {
        can_host_plugins: of.advertised.can_host_plugins,
        host_service_access: host_services(of, &mut shortfalls),
        egress_mode: egress(of, &mut shortfalls),
    };
    (profile, shortfalls)
}

/// [`effective`], where what is still unknown makes no difference to it; `None` where it does.
#[must_use]
pub fn settled(of: &Circumstances) -> Option<(Profile, Vec<Shortfall>)> {
    let (best, worst) = extremes(of);
    (best == worst).then(|| effective(of))
}

/// What the profile becomes if everything unknown turns out well, and if nothing does.
fn extremes(of: &Circumstances) -> (Profile, Profile) {
    let assume = |better: Proof| {
        let known = |proof: &Proof| match proof {
            Proof::Unknown => better.clone(),
            known => known.clone(),
        };
        effective(&Circumstances {
            relay: known(&of.relay),
            proxy: known(&of.proxy),
            ..of.clone()
        })
        .0
    };
    let lost = Proof::Unproved {
        reason: String::new(),
        since: 0,
        setting: String::new(),
    };
    (assume(Proof::Proved), assume(lost))
}

fn host_services(of: &Circumstances, shortfalls: &mut Vec<Shortfall>) -> HostServiceAccess {
    match (of.advertised.host_service_access, &of.relay) {
        (HostServiceAccess::Direct, _) => HostServiceAccess::Direct,
        (_, Proof::Proved) => HostServiceAccess::Relay,
        (_, impaired @ Proof::Impaired { .. }) => {
            shortfalls.extend(shortfall("hostServiceAccess", impaired));
            HostServiceAccess::Relay
        }
        (_, unproved) => {
            shortfalls.extend(shortfall("hostServiceAccess", unproved));
            HostServiceAccess::None
        }
    }
}

fn egress(of: &Circumstances, shortfalls: &mut Vec<Shortfall>) -> EgressMode {
    let hostname = of.advertised.egress_mode == EgressMode::Hostname;
    if hostname && of.hostname_egress == HostnameEgress::Runtime {
        return EgressMode::Hostname;
    }
    // A proxy that can be gone round preserves nothing.
    if !hostname && of.confinement == Confinement::None {
        shortfalls.push(Shortfall {
            field: "egressMode",
            reason: "nothing keeps a sandbox of this runtime from going round the proxy".to_owned(),
            since: None,
            setting: Some(format!("{}.confinement: gateway-only", of.settings)),
        });
        return of.advertised.egress_mode;
    }
    shortfalls.extend(shortfall("egressMode", &of.proxy));
    if matches!(of.proxy, Proof::Proved | Proof::Impaired { .. }) {
        return EgressMode::Hostname;
    }
    if hostname {
        EgressMode::None
    } else {
        of.advertised.egress_mode
    }
}

fn shortfall(field: &'static str, proof: &Proof) -> Option<Shortfall> {
    match proof {
        Proof::Proved => None,
        Proof::Unknown => Some(Shortfall {
            field,
            reason: "not proved yet".to_owned(),
            since: None,
            setting: None,
        }),
        Proof::Impaired {
            reason,
            since,
            setting,
        }
        | Proof::Unproved {
            reason,
            since,
            setting,
        } => Some(Shortfall {
            field,
            reason: reason.clone(),
            // 0 = it is a matter of configuration.
            since: Some(*since).filter(|since| *since > 0),
            setting: Some(setting.clone()),
        }),
    }
}

/// What a workload needs of a runtime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workload {
    /// It brings a provider that is to be executed there.
    pub executable: bool,
    /// It names host services.
    pub host_services: bool,
    /// Its `allowedHosts` is non-empty, or its default is deny.
    pub hostname_egress: bool,
}

impl Workload {
    /// What this grant needs.
    #[must_use]
    pub fn of(grant: &Grant) -> Self {
        Self {
            executable: true,
            host_services: grant.services().next().is_some(),
            hostname_egress: grant.needs_hostname_egress(),
        }
    }
}

/// Why a workload does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Misplacement {
    /// The runtime hosts no executable providers.
    #[error("cannot host executable providers in a host-reachable session")]
    Plugins,
    /// The workload names host services, and there is no way to them.
    #[error("cannot provide host service access required by this provider")]
    HostServices,
    /// The workload bounds its egress by name, and nothing here can.
    #[error("cannot preserve hostname-based egress required by this provider")]
    HostnameEgress,
}

/// Does the workload fit a runtime with this effective profile? The first thing missing is told.
pub fn placement(effective: &Profile, workload: &Workload) -> Result<(), Misplacement> {
    if workload.executable && !effective.can_host_plugins {
        return Err(Misplacement::Plugins);
    }
    if workload.host_services && effective.host_service_access == HostServiceAccess::None {
        return Err(Misplacement::HostServices);
    }
    if workload.hostname_egress && effective.egress_mode != EgressMode::Hostname {
        return Err(Misplacement::HostnameEgress);
    }
    Ok(())
}

/// [`placement`] while something may be unknown: `None` where the answer depends on it.
#[must_use]
pub fn settled_placement(
    of: &Circumstances,
    workload: &Workload,
) -> Option<Result<(), Misplacement>> {
    let (best, worst) = extremes(of);
    let answer = placement(&best, workload);
    (answer == placement(&worst, workload)).then_some(answer)
}

#[cfg(test)]
mod tests;
