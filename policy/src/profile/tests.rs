#![allow(clippy::unwrap_used)]
use super::*;

fn unproved() -> Proof {
    Proof::Unproved {
        reason: "the certificate is not trusted".to_owned(),
        since: 7,
        setting: "publicUrl".to_owned(),
    }
}

fn of(access: HostServiceAccess, mode: EgressMode) -> Circumstances {
    Circumstances {
        settings: "runtime.providers.p".to_owned(),
        advertised: Profile {
            can_host_plugins: true,
            host_service_access: access,
            egress_mode: mode,
        },
        hostname_egress: HostnameEgress::Proxy,
        confinement: Confinement::None,
        relay: unproved(),
        proxy: unproved(),
    }
}

#[test]
fn host_service_access_needs_the_relay_unless_direct() {
    use HostServiceAccess::{Direct, None, Relay};
    for (advertised, proof, expected) in [
        (Direct, unproved(), Direct),
        (Direct, Proof::Proved, Direct),
        (None, Proof::Proved, Relay),
        (Relay, Proof::Proved, Relay),
        (None, unproved(), None),
        (Relay, unproved(), None),
    ] {
        let circumstances = Circumstances {
            relay: proof,
            ..of(advertised, EgressMode::Cidr)
        };
        let (profile, shortfalls) = effective(&circumstances);
        assert_eq!(profile.host_service_access, expected);
        let told = shortfalls
            .iter()
            .find(|one| one.field == "hostServiceAccess");
        assert_eq!(
            told.and_then(|one| one.since),
            (expected == None).then_some(7)
        );
    }
}

#[test]
fn egress_mode_needs_a_proxy_that_cannot_be_gone_round() {
    use {Confinement as C, EgressMode as E, HostnameEgress as H};
    for (advertised, hostname, confinement, proof, expected, setting) in [
        (
            E::Hostname,
            H::Runtime,
            C::None,
            unproved(),
            E::Hostname,
            None,
        ),
        (
            E::Hostname,
            H::Proxy,
            C::None,
            Proof::Proved,
            E::Hostname,
            None,
        ),
        (
            E::Hostname,
            H::Proxy,
            C::None,
            unproved(),
            E::None,
            Some("publicUrl"),
        ),
        (
            E::Cidr,
            H::Proxy,
            C::GatewayOnly,
            Proof::Proved,
            E::Hostname,
            None,
        ),
        (
            E::None,
            H::Proxy,
            C::GatewayOnly,
            Proof::Proved,
            E::Hostname,
            None,
        ),
        (
            E::Cidr,
            H::Proxy,
            C::GatewayOnly,
            unproved(),
            E::Cidr,
            Some("publicUrl"),
        ),
        (
            E::None,
            H::Proxy,
            C::GatewayOnly,
            unproved(),
            E::None,
            Some("publicUrl"),
        ),
        (
            E::Cidr,
            H::Proxy,
            C::None,
            Proof::Proved,
            E::Cidr,
            Some("runtime.providers.p.confinement: gateway-only"),
        ),
        (
            E::None,
            H::Runtime,
            C::None,
            Proof::Proved,
            E::None,
            Some("runtime.providers.p.confinement: gateway-only"),
        ),
    ] {
        let circumstances = Circumstances {
            hostname_egress: hostname,
            confinement,
            proxy: proof,
            ..of(HostServiceAccess::Direct, advertised)
        };
        let (profile, shortfalls) = effective(&circumstances);
        assert_eq!(profile.egress_mode, expected, "{circumstances:?}");
        let told = shortfalls.iter().find(|one| one.field == "egressMode");
        assert_eq!(
            told.and_then(|one| one.setting.as_deref()),
            setting,
            "{circumstances:?}"
        );
    }
}

#[test]
fn placement_tells_the_first_thing_missing() {
    use {EgressMode as E, HostServiceAccess as A};
    let profile = |can_host_plugins, host_service_access, egress_mode| Profile {
        can_host_plugins,
        host_service_access,
        egress_mode,
    };
    for (profile, host_services, hostname_egress, expected) in [
        (
            profile(false, A::Direct, E::Hostname),
            false,
            false,
            Some(Misplacement::Plugins),
        ),
        (
            profile(true, A::None, E::None),
            true,
            true,
            Some(Misplacement::HostServices),
        ),
        (
            profile(true, A::Relay, E::Cidr),
            true,
            true,
            Some(Misplacement::HostnameEgress),
        ),
        (profile(true, A::None, E::None), false, false, None),
        (profile(true, A::Relay, E::Hostname), true, true, None),
        (profile(true, A::Direct, E::None), true, false, None),
    ] {
        let workload = Workload {
            executable: true,
            host_services,
            hostname_egress,
        };
        assert_eq!(placement(&profile, &workload).err(), expected);
    }
    // Contract: the exact sentences of the placement check.
    assert_eq!(
        [
            Misplacement::Plugins,
            Misplacement::HostServices,
            Misplacement::HostnameEgress
        ]
        .map(|one| one.to_string()),
        [
            "cannot host executable providers in a host-reachable session",
            "cannot provide host service access required by this provider",
            "cannot preserve hostname-based egress required by this provider",
        ]
    );
}

#[test]
fn unknown_is_not_lost_and_matters_only_where_the_answer_depends_on_it() {
    use EgressMode as E;
    use HostServiceAccess as A;
    let unknown = |access, mode| Circumstances {
        relay: Proof::Unknown,
        proxy: Proof::Unknown,
        ..of(access, mode)
    };
    assert_eq!(settled(&unknown(A::Relay, E::Cidr)), None);
    assert_eq!(settled(&unknown(A::Direct, E::Hostname)), None);
    // Direct needs no relay, and cidr without confinement never rises.
    let (profile, _) = settled(&unknown(A::Direct, E::Cidr)).unwrap();
    assert_eq!(
        (profile.host_service_access, profile.egress_mode),
        (A::Direct, E::Cidr)
    );
    let services = Workload {
        executable: true,
        host_services: true,
        hostname_egress: false,
    };
    assert_eq!(
        settled_placement(&unknown(A::Relay, E::Cidr), &services),
        None
    );
    assert_eq!(
        settled_placement(&unknown(A::Direct, E::Cidr), &services),
        Some(Ok(()))
    );
    let names = Workload {
        hostname_egress: true,
        ..services
    };
    // Lost for a reason that no proof changes.
    assert_eq!(
        settled_placement(
            &Circumstances {
                relay: Proof::Proved,
                ..unknown(A::Relay, E::Cidr)
            },
            &names
        ),
        Some(Err(Misplacement::HostnameEgress))
    );
}

#[test]
fn a_workload_without_executables_needs_no_host_for_them() {
    let profile = Profile {
        can_host_plugins: false,
        host_service_access: HostServiceAccess::None,
        egress_mode: EgressMode::None,
    };
    let nothing = Workload {
        executable: false,
        host_services: false,
        hostname_egress: false,
    };
    assert_eq!(placement(&profile, &nothing), Ok(()));
}

#[test]
fn every_shortfall_names_the_setting_that_mends_it() {
    let mut circumstances = of(HostServiceAccess::None, EgressMode::Cidr);
    circumstances.advertised.can_host_plugins = false;
    let (_, shortfalls) = effective(&circumstances);
    let settings: Vec<_> = shortfalls
        .iter()
        .map(|one| (one.field, one.setting.as_deref()))
        .collect();
    assert_eq!(
        settings,
        [
            ("canHostPlugins", Some("runtime.providers.p.canHostPlugins")),
            ("hostServiceAccess", Some("publicUrl")),
            (
                "egressMode",
                Some("runtime.providers.p.confinement: gateway-only")
            ),
        ]
    );
}
