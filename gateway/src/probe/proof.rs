//! From the states of checks to proofs of relay and proxy. Pure.

use std::collections::BTreeMap;

use sluicegate_policy::Proof;

use super::{
    check::Check,
    track::{State, Track},
};
use crate::session::HostService;

/// Every check that is made, by its place in the order in which one depends on another.
pub(super) type Tracks = BTreeMap<Check, Track>;

/// Can this gateway not reach its own public URL?
pub(super) fn is_cut_off(tracks: &Tracks) -> bool {
    let reach = tracks.get(&Check::Reach).and_then(Track::state);
    matches!(reach, Some((State::Fails { .. }, _)))
}

/// Is the relay proved to whoever depends on these `services`? Where this gateway cannot reach its own public URL, relay
/// clients that are connected show that others can. What is found of the certificate and the rest stands whoever comes;
/// what was never found, because it could not be reached, takes nothing then.
pub(super) fn relay(
    tracks: &Tracks,
    services: impl Fn(&HostService) -> bool,
    connected: bool,
) -> Proof {
    let shown = connected && is_cut_off(tracks);
    let unseen = |check: &Check| tracks.get(check).is_some_and(Track::is_unasked);
    let by_clients = |check: &Check| match check {
        Check::Reach => true,
        Check::Certificate | Check::Http2 | Check::Token => unseen(check),
        _ => false,
    };
    let proof = of(tracks, |check| match check {
        Check::Service(service) => services(service),
        check => check.of_relay() && !(shown && by_clients(check)),
    });
    let quic = tracks.get(&Check::Quic).and_then(Track::state);
    match (proof, quic) {
        (Proof::Proved, Some((State::Fails { reason, setting }, since))) => Proof::Impaired {
            reason: reason.clone(),
            since: *since,
            setting: setting.clone(),
        },
        (proof, _) => proof,
    }
}

/// Is the proxy proved?
pub(super) fn proxy(tracks: &Tracks) -> Proof {
    of(tracks, Check::of_proxy)
}

/// The first of the checks that fails is the reason: what depends on it was not looked at.
fn of(tracks: &Tracks, counts: impl Fn(&Check) -> bool) -> Proof {
    let mut unknown = false;
    for (check, track) in tracks.iter().filter(|(check, _)| counts(check)) {
        match track.state() {
            Some((State::Works, _)) => {}
            Some((State::Fails { reason, setting }, since)) => {
                let mut why = (reason.clone(), *since, setting.clone());
                if let Check::Service(_) = check {
                    others(tracks, check, &counts, &mut why);
                }
                let (reason, since, setting) = why;
                return Proof::Unproved {
                    reason,
                    since,
                    setting,
                };
            }
            // Without a name to ask for, the resolver proves nothing and takes nothing.
            None if *check == Check::Resolver && track.is_unasked() => {}
            None => unknown = true,
        }
    }
    if unknown || tracks.is_empty() {
        Proof::Unknown
    } else if tracks.contains_key(&Check::Reach) {
        Proof::Proved
    } else {
        // Whatever else is well: nothing was looked at that would show it.
        Proof::Unproved {
            reason:
                "there is no way in for sandboxes: no public or plain listener, and no publicUrl"
                    .to_owned(),
            since: 0,
            setting: "listeners".to_owned(),
        }
    }
}

/// Services fail each by itself: all of them that count are told.
fn others(
    tracks: &Tracks,
    first: &Check,
    counts: &impl Fn(&Check) -> bool,
    why: &mut (String, u64, String),
) {
    for (check, track) in tracks.iter().filter(|(check, _)| counts(check)) {
        let (Check::Service(_), Some((State::Fails { reason, setting }, since))) =
            (check, track.state())
        else {
            continue;
        };
        if check != first {
            why.0.push_str(&format!("; {reason}"));
            why.1 = why.1.min(*since);
            why.2.push_str(&format!(", {setting}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{check::Finding, testing, track::Last};
    use super::*;

    /// For whoever depends on every service.
    fn relay(tracks: &Tracks, connected: bool) -> Proof {
        super::relay(tracks, |_| true, connected)
    }

    fn host_service(name: &str) -> Check {
        let name = sluicegate_policy::ServiceName::parse(name).ok();
        Check::Service(testing::service(
            &name.unwrap_or_else(|| unreachable!("a service name")),
        ))
    }

    fn tracks(findings: &[(Check, Option<bool>)]) -> Tracks {
        let mut tracks = Tracks::new();
        for (check, works) in findings {
            let track = tracks.entry(check.clone()).or_default();
            for at in 1..=3 {
                let finding = match works {
                    Some(true) => Finding::Pass,
                    Some(false) => Finding::fail(format!("{check} fails"), "publicUrl"),
                    None => Finding::Unknown("not looked at".into()),
                };
                track.observe(Last {
                    finding,
                    at,
                    took: 0,
                });
            }
        }
        tracks
    }

    fn lost(reason: &str) -> Proof {
        Proof::Unproved {
            reason: reason.into(),
            since: 1,
            setting: "publicUrl".into(),
        }
    }

    #[test]
    fn the_first_failing_check_is_the_reason_and_the_rest_is_not_lost() {
        use Check::*;
        let all = tracks(&[
            (Reach, Some(true)),
            (Certificate, Some(true)),
            (Http2, Some(true)),
            (Token, Some(true)),
            (Refuses, Some(true)),
            (Carries, Some(true)),
        ]);
        assert_eq!(
            (relay(&all, false), proxy(&all)),
            (Proof::Proved, Proof::Proved)
        );
        let expired = tracks(&[
            (Reach, Some(true)),
            (Certificate, Some(false)),
            (Http2, None),
            (Token, None),
            (Refuses, None),
        ]);
        let why = lost("certificate fails");
        assert_eq!(
            (relay(&expired, false), proxy(&expired)),
            (why.clone(), why)
        );
        let leaky = tracks(&[
            (Reach, Some(true)),
            (Certificate, Some(true)),
            (Http2, Some(true)),
            (Token, Some(true)),
            (Refuses, Some(false)),
        ]);
        assert_eq!(
            (relay(&leaky, false), proxy(&leaky)),
            (Proof::Proved, lost("proxy.refuses fails"))
        );
        assert_eq!(relay(&Tracks::new(), false), Proof::Unknown);
    }

    #[test]
    fn a_resolver_with_nothing_to_ask_for_proves_nothing_and_takes_nothing() {
        use Check::*;
        let with = |found: Option<bool>| proxy(&tracks(&[(Reach, Some(true)), (Resolver, found)]));
        assert_eq!(with(Some(true)), Proof::Proved);
        assert_eq!(with(None), Proof::Proved);
        assert_eq!(with(Some(false)), lost("resolver fails"));
        let mut pending = tracks(&[(Reach, Some(true))]);
        pending.insert(Resolver, Track::default());
        assert_eq!(proxy(&pending), Proof::Unknown, "not looked at yet");
    }

    /// A gateway that only takes captured connections has no URL to be probed by: that proves neither.
    #[test]
    fn where_nobody_can_come_in_nothing_is_proved() {
        let services = [(host_service("cache"), Some(true))];
        for checks in [&[][..], &services[..]] {
            let mut all = tracks(checks);
            all.insert(Check::Resolver, Track::unasked("no name", 1));
            for proof in [relay(&all, false), relay(&all, true), proxy(&all)] {
                assert!(
                    matches!(&proof, Proof::Unproved { setting, .. } if setting == "listeners"),
                    "{proof:?}"
                );
            }
        }
    }

    #[test]
    fn quic_that_fails_impairs_the_relay_and_takes_nothing() {
        use Check::*;
        let road = [
            (Reach, Some(true)),
            (Http2, Some(true)),
            (Token, Some(true)),
        ];
        let with = |quic, token| {
            let mut all = road.to_vec();
            all.push((Quic, quic));
            all.push((Token, token));
            relay(&tracks(&all), false)
        };
        let impaired = Proof::Impaired {
            reason: "quic fails".into(),
            since: 1,
            setting: "publicUrl".into(),
        };
        assert_eq!(with(Some(true), Some(true)), Proof::Proved);
        assert_eq!(with(None, Some(true)), Proof::Proved);
        assert_eq!(with(Some(false), Some(true)), impaired);
        assert!(matches!(
            relay(&tracks(&[(Quic, Some(false)), (Token, Some(false))]), false),
            Proof::Unproved { reason, .. } if reason == "token fails"
        ));
    }

    /// What clients show is that there is a way in; nothing that was found at its end.
    #[test]
    fn connected_clients_take_nothing_back_that_was_found() {
        use Check::*;
        let road = [
            (Reach, Some(true)),
            (Certificate, Some(true)),
            (Http2, Some(true)),
            (Token, Some(true)),
        ];
        for broken in [Certificate, Http2, Token] {
            let mut all = road.to_vec();
            all.push((broken.clone(), Some(false)));
            let mut all = tracks(&all);
            let why = lost(&format!("{broken} fails"));
            assert!(matches!(relay(&all, true), Proof::Unproved { reason, .. }
                if reason == format!("{broken} fails")));
            // Nor where it cannot be reached since.
            all.extend(tracks(&[(Reach, Some(false))]));
            all.extend(tracks(&[(broken.clone(), Some(false))]));
            assert_eq!(relay(&all, true), why);
            assert_eq!(relay(&all, false), lost("reach fails"));
        }
        // What never could be looked at is not lost, and what is being looked at is not known yet.
        let hairpin = [
            (Reach, Some(false)),
            (Certificate, None),
            (Http2, None),
            (Token, None),
        ];
        let mut all = tracks(&hairpin);
        assert_eq!(relay(&all, true), Proof::Proved);
        all.insert(Token, Track::default());
        assert_eq!(relay(&all, true), Proof::Unknown);
        // They replace no check that was not made.
        let unmade = [(Reach, None), (Certificate, None)];
        assert_eq!(relay(&tracks(&unmade), true), Proof::Unknown);
    }

    #[test]
    fn connected_clients_prove_the_road_and_not_the_services() {
        use Check::*;
        let service = host_service("cache");
        let hairpin = tracks(&[(Reach, Some(false)), (service.clone(), Some(true))]);
        assert_eq!(relay(&hairpin, false), lost("reach fails"));
        assert_eq!(relay(&hairpin, true), Proof::Proved);
        assert_eq!(proxy(&hairpin), lost("reach fails"));
        let other = host_service("db");
        let both = tracks(&[(service.clone(), Some(false)), (other, Some(false))]);
        assert_eq!(
            relay(&both, true),
            Proof::Unproved {
                reason: "service:cache fails; service:db fails".into(),
                since: 1,
                setting: "publicUrl, publicUrl".into(),
            }
        );
        let down = tracks(&[(Reach, Some(false)), (service, Some(false))]);
        assert_eq!(relay(&down, true), lost("service:cache fails"));
    }

    #[test]
    fn a_service_counts_for_those_who_depend_on_it_and_for_nobody_else() {
        use Check::*;
        let all = tracks(&[
            (Reach, Some(true)),
            (host_service("cache"), Some(false)),
            (host_service("db"), Some(true)),
            (host_service("queue"), None),
        ]);
        let of = |names: &[&str]| {
            let depends = |service: &HostService| names.contains(&service.name.as_str());
            super::relay(&all, depends, false)
        };
        assert_eq!(of(&[]), Proof::Proved);
        assert_eq!(of(&["db"]), Proof::Proved);
        assert_eq!(of(&["cache", "db"]), lost("service:cache fails"));
        assert_eq!(of(&["queue"]), Proof::Unknown);
    }
}
