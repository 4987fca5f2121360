//! Every refusal there is, and the test that provokes it. A new one does not compile until it stands here.

#![allow(clippy::expect_used)]

use std::path::Path;

use sluicegate_policy::Denial;

/// What stands behind a refusal.
enum Shown {
    /// A test: file from the repository's root, and function.
    By(&'static str, &'static str),
    /// Nothing that comes from outside provokes it.
    Never(&'static str),
}
use Shown::{By, Never};

const CAPTURED: &str = "tests/tests/captured.rs";
const CHAINED: &str = "tests/tests/chained.rs";
const CONNECT: &str = "tests/tests/connect.rs";
const FAULTS: &str = "tests/tests/forward_faults.rs";
const H2: &str = "gateway/src/front/h2/tests.rs";
const LIFECYCLE: &str = "tests/tests/lifecycle.rs";
const LIMITS: &str = "tests/tests/conformance/limits.rs";
const RECORDS: &str = "tests/tests/conformance/tls/records.rs";
const REVERSE: &str = "gateway/src/relay/tests/reverse.rs";
const RULES: &str = "policy/src/decide/tests.rs";
const UPSTREAM: &str = "tests/tests/upstream.rs";

fn shown(denial: Denial) -> Shown {
    match denial {
        Denial::MalformedRequest => By(
            "gateway/src/auth/proxy_authorization.rs",
            "v103_two_fields_are_malformed_even_if_alike",
        ),
        Denial::MalformedTarget => By(H2, "every_kind_of_request_has_its_answer"),
        Denial::HeaderTooLarge => By(
            "tests/tests/conformance/smuggling/fields.rs",
            "v069_too_much_head",
        ),
        Denial::HeadTimeout => By(LIMITS, "v115_slow_heads"),
        Denial::UnsupportedProtocol => By(H2, "every_kind_of_request_has_its_answer"),
        Denial::HostMismatch => By(H2, "every_kind_of_request_has_its_answer"),
        Denial::CredentialMissing => By(H2, "every_kind_of_request_has_its_answer"),
        Denial::CredentialInvalid => By(
            "gateway/src/auth/identify/tests.rs",
            "v106_unknown_forged_expired_and_revoked_are_one_answer",
        ),
        Denial::KeyNotProved => By(
            "gateway/src/relay/tests/quic.rs",
            "a_bound_token_is_good_with_its_key_on_the_keys_own_connection",
        ),
        Denial::SourceNotAllowed => By(
            "tests/tests/conformance/identity/credentials.rs",
            "v101_another_source",
        ),
        Denial::SourceUnknown => By(CAPTURED, "whose_it_is_must_be_certain"),
        Denial::SourceAmbiguous => By(CAPTURED, "whose_it_is_must_be_certain"),
        Denial::SessionPaused => By(
            "gateway/src/relay/tests/authority.rs",
            "pause_and_policy_act_on_exactly_what_they_name",
        ),
        Denial::SessionRevoked => By(
            LIFECYCLE,
            "revoking_cuts_tunnels_within_a_second_and_ends_the_credential",
        ),
        Denial::SessionExpired => By(
            "gateway/src/session/sweep/tests.rs",
            "each_clock_expires_its_session_with_its_name",
        ),
        Denial::HostDenied => By(
            "tests/tests/conformance/hosts/names.rs",
            "v002_one_trailing_dot",
        ),
        Denial::HostNotAllowed => By(CONNECT, "denied_host_is_a_structured_403_and_no_dns_query"),
        Denial::PortNotAllowed => By("tests/tests/conformance/ports.rs", "v021_other_ports"),
        Denial::AddressNotAllowed => By(
            "tests/tests/conformance/addresses.rs",
            "v030_public_literals_without_a_rule",
        ),
        Denial::SpecialAddress => By(
            CONNECT,
            "private_answers_for_an_allowed_name_are_not_dialled",
        ),
        Denial::MetadataAddress => By(
            "tests/tests/conformance/addresses.rs",
            "v025_metadata_despite_an_exception",
        ),
        Denial::OwnListener => By("tests/tests/conformance/ports.rs", "v022_own_listeners"),
        Denial::MethodNotAllowed => By(
            RULES,
            "attributes_come_from_the_most_specific_rule_that_has_them",
        ),
        Denial::PathNotAllowed => By("policy/src/rule/tests.rs", "methods_and_paths"),
        Denial::PolicyChanged => By(
            "tests/tests/conformance/identity/changes.rs",
            "v108_a_tighter_policy_cuts_exactly_what_it_forbids",
        ),
        Denial::TlsRequired => By("tests/tests/conformance/tls/other.rs", "v091_not_tls"),
        Denial::TlsMalformed => By(RECORDS, "v080_lengths"),
        Denial::SniMissing => By("tests/tests/conformance/tls/names.rs", "v074_no_name"),
        Denial::SniMismatch => By(RECORDS, "v078_many_records"),
        Denial::EchDenied => By(
            "tests/tests/conformance/tls/extensions.rs",
            "v084_ech_with_the_targets_outer_name",
        ),
        Denial::FirstBytesTimeout => By(RECORDS, "v081_drip"),
        Denial::DnsNotFound | Denial::DnsFailed | Denial::DnsTimeout => By(
            CONNECT,
            "dead_upstreams_are_told_apart_and_the_body_keeps_the_details_to_itself",
        ),
        Denial::ConnectRefused => By(FAULTS, "dead_upstreams_are_502_or_504_with_a_reason"),
        Denial::ConnectUnreachable | Denial::ConnectTimeout | Denial::UpstreamTimeout => {
            By(FAULTS, "an_upstream_that_cannot_be_had_in_time_or_at_all")
        }
        Denial::UpstreamProxyRefused | Denial::UpstreamProxyFailed => {
            By(CHAINED, "a_refusal_is_an_answer_and_never_a_detour")
        }
        Denial::UpstreamReset => By(FAULTS, "dead_upstreams_are_502_or_504_with_a_reason"),
        Denial::UpstreamProtocol => By(UPSTREAM, "an_answer_framed_in_two_ways_is_not_passed_on"),
        Denial::IdleTimeout => By(
            "tests/tests/tunnel.rs",
            "an_idle_tunnel_is_closed_and_a_slow_head_too",
        ),
        Denial::TooManyTunnels | Denial::ByteQuota => By(LIMITS, "v120_quotas_at_the_edge"),
        Denial::TooManyToDestination => By(LIMITS, "one_destination"),
        Denial::TooManyOpens => By(LIMITS, "v119_connect_flood"),
        Denial::TooManyPending => By(
            "tests/tests/connections.rs",
            "opens_under_way_are_bounded_for_each_session_by_itself",
        ),
        Denial::TooManyConnections => By(
            "tests/tests/relay_faults/full.rs",
            "a_session_has_so_many_connections_and_no_more",
        ),
        Denial::ConnectionLimit => Never("over the limit a connection is reset before it can ask"),
        Denial::ServiceNotAllowed => By(
            "tests/tests/relay.rs",
            "a_service_outside_the_grant_is_refused",
        ),
        Denial::ServiceMethodNotAllowed => By(
            "tests/tests/clients_relay.rs",
            "a_method_outside_the_services_prefix_is_refused",
        ),
        Denial::ServiceHostNotAllowed | Denial::ServiceOriginNotAllowed => By(
            "gateway/src/relay/http/tests.rs",
            "what_is_not_allowed_is_answered_and_the_next_request_is_judged_by_itself",
        ),
        Denial::ListenerNotAllowed => By(
            REVERSE,
            "what_the_grant_or_the_token_does_not_name_is_not_offered",
        ),
        Denial::ListenerNotConnected => By(
            "gateway/src/relay/tests/reverse/taken.rs",
            "a_dial_that_nobody_takes_fails_and_says_so",
        ),
        Denial::ListenerRefused => By(
            REVERSE,
            "a_local_listener_that_is_down_resets_the_dial_with_its_reason",
        ),
        Denial::AlreadyOpened => By("gateway/src/relay/opens/tests.rs", "an_open_is_taken_once"),
        Denial::TooManyAccepts => By(REVERSE, "enough_offers_are_enough"),
        Denial::ServiceUnavailable => By(
            "gateway/src/relay/tests/authority.rs",
            "refusals_say_why_and_the_neighbours_notice_nothing",
        ),
        Denial::LoopDetected => By("tests/tests/conformance/form/passing.rs", "v057_loops"),
        Denial::NotFound => By(H2, "every_kind_of_request_has_its_answer"),
        Denial::Draining => By(LIFECYCLE, "drain_forces_what_does_not_end_by_the_deadline"),
        Denial::StoreUnavailable => By(
            "gateway/src/auth/identify/tests.rs",
            "v112_a_store_that_cannot_be_read_is_503_at_once",
        ),
        Denial::Internal => Never("it would be a fault of the gateway's own"),
    }
}

#[test]
fn every_refusal_is_provoked_by_a_test() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for denial in Denial::ALL {
        match shown(*denial) {
            By(file, function) => {
                let source = std::fs::read_to_string(root.join(file)).expect(file);
                let function = format!("fn {function}(");
                assert!(source.contains(&function), "{file}: no {function}");
                let words = [
                    denial.reason().to_owned(),
                    format!("{denial:?}"),
                    denial.status().to_string(),
                ];
                assert!(
                    words.iter().any(|word| source.contains(word)),
                    "{file} does not speak of {denial:?}"
                );
            }
            Never(why) => assert!(!why.is_empty(), "{denial:?}"),
        }
    }
}
