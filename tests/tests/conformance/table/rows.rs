//! The rows, in order. The document is written from here; what a row claims, its test must have done.

use super::{Entry, Front, Standing};

macro_rules! entry {
    ($number:literal $says:literal held $section:ident :: $test:ident [$($front:ident)*] $note:literal) => {
        Entry {
            number: $number,
            says: $says,
            standing: Standing::Held,
            test: Some((concat!(stringify!($section), "::", stringify!($test)), crate::$section::$test)),
            fronts: &[$(Front::$front),*],
            note: $note,
        }
    };
    ($number:literal $says:literal $standing:ident $note:literal) => {
        Entry {
            number: $number,
            says: $says,
            standing: Standing::$standing,
            test: None,
            fronts: &[],
            note: $note,
        }
    };
}

macro_rules! rows {
    ($({ $($row:tt)* })*) => {
        /// Every row, once.
        pub(crate) static ROWS: &[Entry] = &[$(entry!($($row)*)),*];
    };
}

rows! {
    { 1 "upper case in a host name is the same name" held hosts::v001_upper_case [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 2 "one trailing dot is the same name, for deny rules too" held hosts::v002_one_trailing_dot [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 3 "empty labels" held hosts::v003_empty_labels [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 4 "a name in brackets" held hosts::v004_a_name_in_brackets [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 5 "userinfo in CONNECT" held hosts::v005_userinfo_in_connect [Connect ConnectKept Http2 Http3] "" }
    { 6 "userinfo in absolute-form" held hosts::v006_userinfo_in_absolute_form [Absolute Http2 Http3] "" }
    { 7 "a port inside the name" held hosts::v007_a_port_inside_the_name [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 8 "control bytes, blanks and bytes above 0x7f in a host" held hosts::v008_control_and_high_bytes [Connect ConnectKept Absolute Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 9 "percent-encoding in a host is never decoded" held hosts::v009_percent_is_never_decoded [Connect ConnectKept Absolute Http3 ConnectTcp Socks Transparent Sni Names] "a template's variables are decoded once (row 139): what they decode to is what is asked here" }
    { 10 "other full stops: malformed on the wire, normalised in configuration" held hosts::v010_other_full_stops [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 11 "look-alike letters and invisible characters" held hosts::v011_letters_that_look_alike [Connect ConnectKept Absolute Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 12 "invalid, non-round-tripping or needless A-labels" held hosts::v012_bad_a_labels [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 13 "labels over 63, names over 253 bytes, an empty host" held hosts::v013_lengths [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 14 "underscores in names asked for are legal" held hosts::v014_underscores [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 15 "delimiters in the authority" held hosts::v015_delimiters_in_the_authority [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "in absolute-form `/`, `?` and the like end the authority; what is left of it is judged, and refused" }
    { 16 "names that only contain or extend an allowed one" held hosts::v016_names_around_the_allowed_one [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 17 "a wildcard excludes its apex, and covers any depth below" held hosts::v017_a_wildcard_and_its_apex [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 18 "patterns too broad are refused at load; private-section and unlisted suffixes are warned of" held hosts::v018_broad_patterns_at_load [Configuration] "" }
    { 19 "a numeric last label" held hosts::v019_numeric_last_label [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni Names] "" }
    { 20 "spelling of the port" held ports::v020_port_spelling [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 21 "other ports of an allowed host" held ports::v021_other_ports [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent] "" }
    { 22 "the gateway's own listeners" held ports::v022_own_listeners [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "by whatever address an interface or a route brings: `own_addresses`. Residual risk: what netfilter on the gateway's own host turns back to it (DNAT or REDIRECT in OUTPUT) is not seen ([threat model](threat-model.md#addresses-of-the-gateways-host))" }
    { 23 "other spellings of IPv4 addresses are never resolved" held addresses::v023_other_spellings_of_addresses [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 24 "special-purpose IPv4, as literal and as answer" held addresses::v024_special_ipv4 [Connect ConnectKept Absolute Answer Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 25 "metadata services, despite an exception that covers them" held addresses::v025_metadata_despite_an_exception [Connect ConnectKept Absolute Answer Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 26 "special-purpose IPv6, as literal and as answer" held addresses::v026_special_ipv6 [Connect ConnectKept Absolute Answer Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 27 "IPv4 embedded in IPv6, in every form" held addresses::v027_embedded_ipv4 [Connect ConnectKept Absolute Answer Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 28 "NAT64 of a public address for an allowed name passes" Elsewhere "`policy/src/decide/tests.rs`: `v024_to_v028_answers_of_an_allowed_name`. On the wire it would mean dialling the internet" }
    { 29 "scoped and malformed IPv6 literals" held addresses::v029_scoped_literals [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 30 "public literals without a rule" held addresses::v030_public_literals_without_a_rule [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 31 "this host's own address" held addresses::v031_the_hosts_own_address [Connect ConnectKept Absolute Answer Http2 Http3 ConnectTcp Socks Transparent Sni] "one that came later, or by a route, whatever it is sent from: `own_addresses`. Residual risk: as 22" }
    { 32 "rebinding: one resolution per open, pinned; the next open is judged anew" held dns::v032_rebinding [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 33 "mixed answers: refused, or filtered where configured" held dns::v033_mixed_answers [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 34 "CNAME: final addresses are judged, the chain recorded" held dns::v034_aliases [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 35 "CNAME loops, chains over eight links, CNAME only" held dns::v035_alias_loops [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 36 "NXDOMAIN, SERVFAIL and silence are told apart" held dns::v036_failures_are_told_apart [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 37 "a thousand records (truncated, asked again over TCP): capped, once all are judged" held dns::v037_a_thousand_records [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 38 "a denied name causes no query" held dns::v038_a_denied_name_is_never_asked_for [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent] "" }
    { 39 "no search domains, no hosts file" held dns::v039_no_search_domains_no_hosts_file [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Transparent Sni] "" }
    { 40 "HTTPS and SVCB answers from our DNS" Elsewhere "`tests/tests/confinement/names.rs`: `v040_https_and_svcb_have_no_answer`" }
    { 41 "broken IPv6: Happy Eyeballs inside the judged set" held dns::v041_broken_ipv6 [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 42 "TXT, NULL, ANY and high-entropy labels" Elsewhere "`tests/tests/confinement/names.rs`: `v042_data_in_questions_goes_nowhere`, `a_flood_of_names_is_budgeted`" }
    { 43 "a hello in the segment of its CONNECT" held tls::v043_hello_in_the_segment_of_the_connect [Connect ConnectKept Http2 Http3 ConnectTcp Socks] "" }
    { 44 "nothing is read behind a refused CONNECT" held form::v044_nothing_is_read_behind_a_refused_connect [Connect ConnectKept] "" }
    { 45 "CONNECT with content" held form::v045_connect_with_content [Connect ConnectKept] "" }
    { 46 "CONNECT with another form of target" held form::v046_connect_with_another_form_of_target [Connect ConnectKept] "" }
    { 47 "CONNECT whose Host names another host" held form::v047_connect_and_its_host [Connect ConnectKept Http2 Http3] "" }
    { 48 "absolute-form whose Host names another host; Host is rebuilt" held form::v048_absolute_form_and_its_host [Absolute Http2 Http3 Transparent Sni] "" }
    { 49 "exactly one plain Host" held form::v049_one_plain_host [Connect ConnectKept Absolute Transparent Sni] "" }
    { 50 "https in absolute-form is not downgraded" held form::v050_https_in_absolute_form [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 51 "other forms, schemes and versions; origin form is 404" held form::v051_other_forms_and_versions [Connect Absolute] "" }
    { 52 "h2 CONNECT with scheme or path: stream error" held h2::v052_connect_with_scheme_and_path [Http2 Http3] "" }
    { 53 "h2 authority differing from host, absent or twice" held h2::v053_authority_and_host [Http2 Http3] "" }
    { 54 "extended CONNECT for other protocols is 501" held h2::v054_other_protocols [Http2 Http3] "" }
    { 55 "CONNECT or absolute-form inside a tunnel" held form::v055_connect_inside_a_tunnel [Connect ConnectKept Http2 Http3 ConnectTcp Socks] "where the tunnel carries TLS the inner request cannot be seen: interception is not built yet" }
    { 56 "steering fields are stripped" held form::v056_steering_fields [Connect Absolute Http2 Http3 Transparent Sni] "" }
    { 57 "a loop is 502 proxy_loop_detected" held form::v057_loops [Absolute Http2 Http3 Transparent Sni] "" }
    { 58 "100-continue with a denied target: the final status first" held form::v058_expect_and_a_denied_target [Absolute Http2 Http3 Transparent Sni] "" }
    { 59 "an unsolicited 101, or 200 to an upgrade, opens nothing" held form::v059_upgrades_nobody_agreed_on [Absolute Transparent Sni] "" }
    { 60 "Upgrade: h2c is stripped" held form::v060_h2c [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "by prior knowledge inside a tunnel it is cut, unless the rule is opaque" }
    { 61 "Content-Length with Transfer-Encoding" held smuggling::v061_length_and_coding [Connect Absolute Transparent Sni] "" }
    { 62 "spelling of Transfer-Encoding" held smuggling::v062_spelling_of_the_coding [Connect Absolute Transparent Sni] "" }
    { 63 "spelling of Content-Length" held smuggling::v063_spelling_of_the_length [Connect Absolute Transparent Sni] "over HTTP/2 and HTTP/3: `h2_proxy`, `h3_proxy`" }
    { 64 "folding, bare LF and CR, names and values" held smuggling::v064_field_lines [Connect Absolute Transparent Sni] "" }
    { 65 "chunk faults: what is upstream already is never whole" held smuggling::v065_chunks [Connect Absolute Transparent Sni] "" }
    { 66 "trailers that frame, route or authenticate are dropped" held smuggling::v066_trailers [Connect Absolute Transparent Sni] "" }
    { 67 "Connection may not strip what is the message's own" held smuggling::v067_what_connection_may_not_strip [Connect Absolute Transparent Sni] "" }
    { 68 "underscore twins are dropped" held smuggling::v068_twins [Connect Absolute Http2 Http3 Transparent Sni] "" }
    { 69 "heads over 64 KiB or 100 fields: 431" held smuggling::v069_too_much_head [Connect Absolute Transparent Sni] "over HTTP/2 and HTTP/3: `h2_proxy`, `h3_proxy`" }
    { 70 "GET with content is framed" held smuggling::v070_get_with_content [Connect Absolute Transparent Sni] "" }
    { 71 "pipelined requests are judged one by one" held smuggling::v071_pipelined [Absolute Transparent Sni] "" }
    { 72 "the credential never goes up and is never logged" held smuggling::v072_credentials_stay_here [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent] "" }
    { 73 "SNI of another name" held tls::v073_another_name [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "on transparent and SNI another name is another target, denied before anybody is asked for it" }
    { 74 "no SNI" held tls::v074_no_name [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "on transparent a hello without a name is for the address that was dialled" }
    { 75 "spelling of the SNI" held tls::v075_spelling_of_the_name [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 76 "two names, empty lists, trailing bytes" held tls::v076_more_than_one_name [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 77 "a hello of one byte per segment" held tls::v077_one_byte_per_segment [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 78 "a hello over many records, split inside the name" held tls::v078_many_records [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 79 "records that do not belong between fragments" held tls::v079_records_that_do_not_belong [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 80 "lengths: too long, never whole, large but sound" held tls::v080_lengths [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 81 "a drip is cut at the deadline" held tls::v081_drip [Connect Http2 Http3 ConnectTcp Transparent Sni] "" }
    { 82 "SSLv2 and legacy record versions" held tls::v082_versions [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 83 "GREASE and unknown extensions" held tls::v083_unknown_extensions [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 84 "ECH with the target as outer name" held tls::v084_ech_with_the_targets_outer_name [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 85 "ECH with a public name" held tls::v085_ech_with_a_public_name [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "on transparent and SNI nobody has asked for the target: the public name is one itself, and denied" }
    { 86 "real ECH whose outer name is allowed, on a shared front" Residual "real ECH and GREASE look the same on the wire. A client that has the front's keys from elsewhere reaches another site of that front. `ech: deny` closes it, and shuts out browsers that send GREASE" }
    { 87 "a second hello after HelloRetryRequest" held tls::v087_second_hello [Connect Http2 Http3 ConnectTcp Transparent Sni] "" }
    { 88 "early data behind an unjudged hello" held tls::v088_early_data [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 89 "a resumption ticket under another name" held tls::v089_resumption_under_another_name [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 90 "TLS 1.2 renegotiation with another name" Residual "it happens encrypted and cannot be seen without interception; servers that serve several sites so are rare, and most refuse renegotiation" }
    { 91 "other protocols under require, auto and opaque" held tls::v091_not_tls [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 92 "a server that speaks first" held tls::v092_server_speaks_first [Connect Http2 Http3 ConnectTcp Transparent Sni] "" }
    { 93 "PostgreSQL SSLRequest and STARTTLS" held tls::v093_tls_after_a_request_for_it [Connect ConnectKept Http2 Http3 ConnectTcp Socks Transparent Sni] "under `auto` what follows the request is opaque: TLS begun later in a connection is not judged" }
    { 94 "fronting: allowed SNI, another Host inside" Residual "the inner request is encrypted; without interception, which is not built yet, the gateway cannot see it" }
    { 95 "h2 coalescing inside TLS" Residual "as 94" }
    { 96 "Alt-Svc is stripped when inspected" NotBuilt "interception" }
    { 97 "QUIC, DTLS, DoT and DoH without a rule" held tls::v097_resolvers_and_other_ports [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent] "no UDP egress exists" }
    { 98 "upstream certificates under inspection" NotBuilt "interception" }
    { 99 "interception leaves" NotBuilt "interception" }
    { 100 "credentials that are none" held identity::v100_credentials_that_are_none [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks] "" }
    { 101 "a credential from another source" held identity::v101_another_source [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "under another key than its `cnf`, or none: `what_is_bound_to_a_key_is_of_use_to_its_holder_alone` in `tests/tests/relay_client/withdrawn.rs`; by a QUIC client that goes elsewhere, or says so: `a_client_is_where_its_handshake_was` in `tests/tests/h3_proxy/tunnels.rs`" }
    { 102 "tokens in URL, query and cookie are ignored" held identity::v102_tokens_where_they_do_not_belong [Connect ConnectKept Absolute Http2 Http3 ConnectTcp] "" }
    { 103 "two credentials" held form::v103_two_credentials [Connect ConnectKept Absolute Http2 Http3 ConnectTcp] "" }
    { 104 "identity is judged request by request" held identity::v104_identity_is_each_requests_own [ConnectKept Absolute Http3] "" }
    { 105 "upstream connections are never shared between sessions" held identity::v105_upstream_connections_are_one_sessions [Absolute Http2 Http3 Transparent] "" }
    { 106 "unknown and revoked credentials look alike" held identity::v106_unknown_and_revoked_look_alike [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks] "same answer; timing is not measured here" }
    { 107 "revoked in mid-tunnel: cut within a second" held identity::v107_revoked_in_mid_tunnel [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "what is no tunnel is cut in the middle of its answer" }
    { 108 "a tighter policy cuts exactly what it forbids" held identity::v108_a_tighter_policy_cuts_exactly_what_it_forbids [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent] "by a reload of `dns` and `upstreamProxy`: `tests/tests/reload.rs`" }
    { 109 "empty is not absent, null is neither" held identity::v109_empty_is_not_absent [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 110 "an unreadable policy changes nothing" held identity::v110_an_unreadable_policy_changes_nothing [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 111 "a CONNECT racing a change is judged by one generation" held identity::v111_one_generation_judges [Connect Absolute Http2 Http3 ConnectTcp Transparent] "" }
    { 112 "control plane unreachable or stale" Elsewhere "`gateway/src/auth/identify/tests.rs`: `v112_a_store_that_cannot_be_read_is_503_at_once`; a replicated store is not built yet" }
    { 113 "a killed gateway lets nothing out" held identity::v113_a_dead_gateway_lets_nothing_out [Connect Absolute] "inside a sandbox of `run`: `tests/tests/confinement/relay.rs`" }
    { 114 "audit sink full" held identity::v114_a_full_audit_sink_drops_and_counts [Connect Absolute] "records are dropped and counted, traffic goes on; blocking instead is not offered (`docs/adr/0016-records-never-stop-traffic.md`)" }
    { 115 "slow headers" held limits::v115_slow_heads [Connect Absolute] "" }
    { 116 "idle tunnels" held limits::v116_idle_tunnels [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "an answer that stops in the middle is no better" }
    { 117 "half-close either way" held limits::v117_half_close [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent] "of requests: a client that has ended its side has its answer, and an upstream's end is the answer's" }
    { 118 "a storm of resets" held limits::v118_reset_storm [Connect Absolute] "" }
    { 119 "a flood of opens is 429, neighbours unaffected" held limits::v119_connect_flood [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "of refused targets too; latency of the neighbours is measured by the benches, not here" }
    { 120 "quotas at the edge" held limits::v120_quotas_at_the_edge [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "tunnels, tunnels to one destination, bytes; bandwidth also of many short tunnels and of a very slow one" }
    { 121 "out of file descriptors: refuse, recover" held limits::v121_out_of_descriptors [Connect Absolute Http3] "" }
    { 122 "bytes that would forge a record" held limits::v122_bytes_that_would_forge_a_record [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent] "" }
    { 123 "metric labels are bounded" held limits::v123_labels_are_bounded [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent] "" }
    { 124 "drain on SIGTERM" held limits::v124_drain [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent] "answers in the middle go on like tunnels" }
    { 125 "hot restart" NotBuilt "a restart closes the listeners first" }
    { 126 "a service or port that was not declared" Elsewhere "`tests/tests/relay.rs`: `a_service_outside_the_grant_is_refused`" }
    { 127 "socket paths that lead elsewhere" Elsewhere "`gateway/src/relay/tests/authority.rs`: `only_a_real_socket_is_a_unix_service`" }
    { 128 "a service at the gateway's own listeners" held identity::v128_the_gateway_is_no_service [Configuration] "by an address that came later, or by a route: `own_addresses`. Residual risk: as 22" }
    { 129 "foreign Host or Origin to an HTTP service" Elsewhere "`gateway/src/relay/http/tests.rs`: `what_is_not_allowed_is_answered_and_the_next_request_is_judged_by_itself`, for services with `http`: 403; `relay-client/src/status/guard.rs`: `v129_no_page_of_elsewhere_is_told`, for `up --status`: 421, 403" }
    { 130 "one session's relay used by another" Elsewhere "`gateway/src/relay/tests/authority.rs`: `one_session_cannot_open_what_another_has`, `a_place_where_hosts_dial_is_no_service`" }
    { 131 "aliases of the host through egress" held addresses::v131_aliases_of_the_host [Connect ConnectKept Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 132 "a service that comes back under another uid" Elsewhere "`gateway/src/relay/tests/authority.rs`: `only_a_real_socket_is_a_unix_service`: where `peerUid` is set, the peer of a unix service is read at every open; TCP services are not verified" }
    { 133 "redirects from a service" Elsewhere "`tests/tests/conformance/smuggling/fields.rs`: `v071_pipelined`: the gateway follows no redirect; a client that does asks anew, and each request is judged alone" }
    { 134 "names in SOCKS: malformed, or a literal where the text is one" held socks::v134_names [Socks] "" }
    { 135 "mapped addresses in SOCKS are judged as IPv4" held socks::v135_mapped_addresses [Socks] "" }
    { 136 "BIND and UDP ASSOCIATE: 0x07" held socks::v136_other_commands [Socks] "" }
    { 137 "SOCKS without authentication: 0xFF" held socks::v137_no_authentication [Socks] "" }
    { 138 "SOCKS4a and HTTP on the SOCKS port are closed without a word" held socks::v138_other_protocols [Socks] "" }
    { 139 "CONNECT-UDP templates" NotBuilt "CONNECT-UDP: asked for, it is 501 (row 54)" }
    { 140 "address policy with an upstream proxy: judged here, asked for by address" held chaining::v140_addresses_are_judged_here [Connect ConnectKept Absolute Answer Http2 Http3 ConnectTcp Socks Transparent Sni] "" }
    { 141 "an upstream proxy that refuses is 502 and its own reason; nobody dials instead" held chaining::v141_a_proxy_that_refuses [Connect Absolute Http2 Http3 ConnectTcp Socks Transparent Sni] "more answers, SOCKS, real proxies: `tests/tests/chained.rs`" }
    { 142 "the session's own NO_PROXY changes nothing" held identity::v142_no_proxy_changes_nothing [Connect ConnectKept Absolute Http2 Http3 ConnectTcp] "no input of the gateway carries it: a field of that name is only forwarded" }
    { 143 "PROXY headers: from an untrusted peer, twice, absent, too long" held form::v143_proxy_protocol_preambles [Connect Absolute Socks] "with HAProxy: `tests/tests/proxy_protocol.rs`" }
    { 144 "lists of Gestalt" Elsewhere "`policy/src/import/tests/gestalt.rs`: tests `v144_…`" }
    { 145 "Dreadnode: accepted" Elsewhere "`policy/src/import/tests/dreadnode.rs`: tests `v145_…`" }
    { 146 "Dreadnode: refused" Elsewhere "`policy/src/import/tests/dreadnode.rs`: tests `v146_…`" }
    { 147 "lists of just-bash" Elsewhere "`policy/src/import/tests/just_bash.rs`: tests `v147_…`" }
    { 148 "lists of Gondolin" Elsewhere "`policy/src/import/tests/gondolin.rs`: tests `v148_…`" }
    { 149 "lists of Smokescreen" Elsewhere "`policy/src/import/tests/smokescreen.rs`: tests `v149_…`" }
    { 150 "lists of Docker, Modal, E2B style lists" Elsewhere "`policy/src/import/tests/docker.rs`: tests `v150_…`" }
}
