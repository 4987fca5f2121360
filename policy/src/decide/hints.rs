//! Whoever does what the hints say gets there: each is an instruction that can be followed, and the last one leads through.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use crate::{
    Grant, HintFor, Host, Origin, Refusal,
    testing::{ceiling, compile, document, target},
    text,
};
use proptest::prelude::*;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Every list a hint may name, as written.
#[derive(Clone, Debug, Default)]
struct Lists {
    allowed: Option<Vec<String>>,
    denied: Vec<String>,
    addresses: Vec<String>,
    ceiling_allowed: Option<Vec<String>>,
    ceiling_denied: Vec<String>,
    ceiling_addresses: Vec<String>,
    rules: Vec<Written>,
    mode: &'static str,
}

/// One entry of `rules`: its host, and what it says by key.
#[derive(Clone, Debug)]
struct Written {
    host: String,
    says: BTreeMap<String, String>,
}

impl Lists {
    fn compile(&self) -> Result<Arc<Grant>, String> {
        let optional = |list: &Option<Vec<String>>| {
            let list = list.as_ref();
            list.map_or_else(String::new, |list| format!("allowedHosts: {list:?}, "))
        };
        let rules = self.rules.iter().map(|rule| {
            let says = rule
                .says
                .iter()
                .map(|(key, value)| format!(", {key}: {value}"));
            format!("{{host: {:?}{}}}", rule.host, says.collect::<String>())
        });
        compile(
            &format!(
                "egress: {{{}deniedHosts: {:?}, allowedAddresses: {:?}, rules: [{}], mode: {}}}",
                optional(&self.allowed),
                self.denied,
                self.addresses,
                rules.collect::<Vec<_>>().join(", "),
                self.mode
            ),
            &format!(
                "{{{}deniedHosts: {:?}, addresses: {:?}}}",
                optional(&self.ceiling_allowed),
                self.ceiling_denied,
                self.ceiling_addresses
            ),
        )
    }

    /// Do what the hint says, to the letter.
    fn follow(&mut self, hint: &str) {
        let mut followed = false;
        for part in hint.split("add \"").skip(1) {
            let (entry, rest) = part.split_once("\" to ").unwrap();
            let list = rest.split([';', ' ']).next().unwrap();
            let list = if rest.starts_with("the provider's ") {
                rest.split(' ').nth(2).unwrap().trim_end_matches(';')
            } else {
                list
            };
            let entry = entry.to_owned();
            match list {
                "egress.allowedHosts" => self.allowed.get_or_insert_default().push(entry),
                "egress.allowedAddresses" => self.addresses.push(entry),
                "ceiling.addresses" => self.ceiling_addresses.push(entry),
                "ceiling.allowedHosts" => {
                    // Where there was no bound, what sessions have stays within it.
                    let own = self.allowed.clone().unwrap_or_default();
                    self.ceiling_allowed.get_or_insert(own).push(entry);
                }
                list if list.starts_with("egress.rules[") => {
                    assert!(rest.ends_with(": ech.publicNames"), "{hint}");
                    let names = self.rules[place(list)].says.get_mut("ech").unwrap();
                    *names = names.replace("]}", &format!(", {entry}]}}"));
                }
                other => panic!("{hint}: {other}"),
            }
            followed = true;
        }
        for part in hint.split("write ").skip(1) {
            let (attribute, rest) = part.split_once(" in egress.").unwrap();
            let (key, value) = attribute.split_once(": ").unwrap();
            let says = &mut self.rules[place(rest)].says;
            says.insert(key.to_owned(), value.to_owned());
            followed = true;
        }
        for part in hint.split("add {host: \"").skip(1) {
            let (rule, _) = part.split_once("} to egress.rules").unwrap();
            let (host, attributes) = rule.split_once("\", ").unwrap();
            let pairs = attributes
                .split(", ")
                .map(|one| one.split_once(": ").unwrap());
            let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
            self.rules.push(Written {
                host: host.to_owned(),
                says: pairs.collect(),
            });
            followed = true;
        }
        if hint.contains(" always wins; ") {
            let (list, rest) = hint
                .strip_prefix("egress.")
                .unwrap()
                .split_once('[')
                .unwrap();
            let index: usize = rest.split(']').next().unwrap().parse().unwrap();
            match list {
                "deniedHosts" => self.denied.remove(index),
                "ceiling.deniedHosts" => self.ceiling_denied.remove(index),
                other => panic!("{hint}: {other}"),
            };
            followed = true;
        }
        assert!(followed, "nothing to follow: {hint}");
    }
}

/// The index in `rules[0] …`.
fn place(rule: &str) -> usize {
    let (_, rest) = rule.split_once("rules[").unwrap();
    rest.split(']').next().unwrap().parse().unwrap()
}

fn judged(
    grant: &Arc<Grant>,
    asked: &str,
    answers: &[IpAddr],
    admission: &Admission,
    began: Option<&FirstBytes>,
) -> Result<(), Refusal> {
    let asked = target(asked);
    let permit = decide(grant, &asked)?;
    let literal = match asked.host() {
        Host::Ip(address) => Some([*address]),
        Host::Name(_) => None,
    };
    let answers = literal
        .as_ref()
        .map_or(answers, |literal| literal.as_slice());
    admit(grant, &permit, answers, admission)?;
    let judged = began.map_or(Ok(()), |began| permit.judge_began(began));
    judged.map_err(|denial| permit.refuse(denial, began))
}

fn admission() -> Admission {
    Admission {
        own: Arc::new(OwnAddresses {
            interfaces: vec!["203.0.114.9".parse::<IpAddr>().unwrap()].into(),
            ..OwnAddresses::default()
        }),
        nat64: vec![crate::Nat64Prefix::new("2001:4860:64::".parse().unwrap(), 96).unwrap()].into(),
        ..Admission::default()
    }
}

const ADDRESSES: [&str; 12] = [
    "93.184.215.14",
    "10.1.2.3",
    "127.0.0.1",
    "169.254.169.254",
    "203.0.114.9",
    "::1",
    "::ffff:10.1.2.3",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a01:203",
    "2001:4860:64::a01:203",
    "fd00::5",
    "2606:4700::1111",
];

fn asked() -> impl Strategy<Value = String> {
    let literal = prop::sample::select(ADDRESSES.to_vec()).prop_map(|address| {
        if address.contains(':') {
            format!("[{address}]")
        } else {
            address.to_owned()
        }
    });
    let host = prop_oneof![
        2 => prop::sample::select(vec!["a.test", "b.a.test", "metadata.google.internal"]).prop_map(str::to_owned),
        1 => literal,
    ];
    (host, prop::sample::select(vec![80, 443, 22]))
        .prop_map(|(host, port)| format!("{host}:{port}"))
}

fn some(entries: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let one = prop::sample::select(entries).prop_map(str::to_owned);
    prop::collection::vec(one, 0..3)
}

fn lists() -> impl Strategy<Value = Lists> {
    (
        prop::option::of(some(&[
            "a.test",
            "*.a.test:*",
            "93.184.215.14",
            "10.1.2.3:22",
        ])),
        some(&["b.a.test", "10.0.0.0/8", "*.internal", "a.test:22"]),
        some(&["10.1.2.3", "127.0.0.0/8"]),
        prop::option::of(some(&[
            "a.test:*",
            "*.a.test:*",
            "93.184.215.14:*",
            "a.test:443",
            "b.a.test:80",
        ])),
        some(&["a.test:443", "169.254.0.0/16"]),
        some(&["10.0.0.0/8", "127.0.0.0/8", "2001:4860:64::/96"]),
        rules(),
        prop::sample::select(vec!["enforce", "report"]),
    )
        .prop_map(
            |(
                allowed,
                denied,
                addresses,
                ceiling_allowed,
                ceiling_denied,
                ceiling_addresses,
                rules,
                mode,
            )| Lists {
                allowed,
                denied,
                addresses,
                ceiling_allowed,
                ceiling_denied,
                ceiling_addresses,
                rules,
                mode,
            },
        )
}

/// One rule for the names that are asked for, and one for one of their ports.
fn rules() -> impl Strategy<Value = Vec<Written>> {
    let one = |hosts: &'static [&'static str]| {
        let says = |values: &'static [&'static str]| prop::option::of(prop::sample::select(values));
        let tls = says(&["require", "auto", "opaque"]);
        let ech = says(&["outer", "deny", "{publicNames: [c.test]}"]);
        let http = prop::option::weighted(0.3, Just("{methods: [GET]}"));
        (prop::sample::select(hosts), tls, ech, http).prop_map(|(host, tls, ech, http)| {
            let says = [("tls", tls), ("ech", ech), ("http", http)];
            let said = says
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)));
            Written {
                host: host.to_owned(),
                says: said
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            }
        })
    };
    let wide = prop::option::of(one(&["a.test", "*.a.test"]));
    let narrow = prop::option::of(one(&["a.test:80", "a.test:443", "b.a.test:22"]));
    (wide, narrow).prop_map(|(wide, narrow)| wide.into_iter().chain(narrow).collect())
}

fn began() -> impl Strategy<Value = FirstBytes> {
    let sni = prop::option::of(prop::sample::select(vec![
        "a.test", "b.a.test", "c.test", "10.1.2.3", "[::1]", "-",
    ]));
    let hello = (sni, any::<bool>(), any::<bool>()).prop_map(|(sni, ech, ech_draft)| {
        FirstBytes::Tls(Hello {
            sni: sni.map(Into::into),
            ech,
            ech_draft,
        })
    });
    prop_oneof![1 => Just(FirstBytes::Other), 4 => hello]
}

proptest! {
    #[test]
    fn following_them_leads_through(
        mut lists in lists(),
        asked in asked(),
        answers in prop::collection::vec(prop::sample::select(ADDRESSES.to_vec()), 1..3),
        began in began(),
    ) {
        let answers: Vec<IpAddr> = answers.iter().map(|answer| answer.parse().unwrap()).collect();
        // What the ceiling does not hold cannot be loaded to begin with.
        let Ok(mut grant) = lists.compile() else { return Ok(()) };
        let mut followed = Vec::new();
        while let Err(refusal) = judged(&grant, &asked, &answers, &admission(), Some(&began)) {
            let hint = refusal.hint.as_ref().unwrap_or_else(|| panic!("{refusal:?}")).to_string();
            prop_assert!(!followed.contains(&hint), "{} led nowhere: {:?}", hint, lists);
            lists.follow(&hint);
            let compiled = lists.compile();
            prop_assert!(compiled.is_ok(), "{}: {:?} {:?}", hint, compiled.err(), lists);
            grant = compiled.unwrap();
            followed.push(hint);
        }
    }
}

#[test]
fn each_kind_says_what_to_do() {
    let grant =
        |allowed: &str, ceiling: &str| compile(&format!("egress: {{{allowed}}}"), ceiling).unwrap();
    let hint = |grant: &Arc<Grant>, asked: &str, answers: &[&str]| {
        let answers: Vec<IpAddr> = answers
            .iter()
            .map(|answer| answer.parse().unwrap())
            .collect();
        let refusal = judged(grant, asked, &answers, &admission(), None).unwrap_err();
        refusal.hint.unwrap().to_string()
    };
    let bare = grant("allowedHosts: [a.test]", "{}");
    for (asked, answers, told) in [
        (
            "b.test:443",
            &[][..],
            "add \"b.test\" to egress.allowedHosts",
        ),
        (
            "169.254.169.254:80",
            &[],
            "169.254.169.254 is a metadata address: only the operator can allow that: add \"169.254.169.254\" to the \
             provider's ceiling.addresses; then add \"169.254.169.254\" to egress.allowedHosts",
        ),
        (
            "[::ffff:127.0.0.1]:80",
            &[],
            "127.0.0.1 is loopback (RFC 1122 §3.2.1.3): only the operator can allow that: add \"127.0.0.1\" to the \
             provider's ceiling.addresses; then add \"127.0.0.1\" to egress.allowedHosts",
        ),
        (
            "a.test:443",
            &["fd00::5"],
            "fd00::5 is unique local (RFC 4193): only the operator can allow that: add \"fd00::5\" to the provider's \
             ceiling.addresses; then add \"fd00::5\" to egress.allowedAddresses",
        ),
    ] {
        assert_eq!(hint(&bare, asked, answers), told, "{asked}");
    }
    // A ceiling may hold one port of the web alone.
    for (ceiling, told) in [
        (
            "{allowedHosts: ['b.test:443']}",
            "add \"b.test:443\" to egress.allowedHosts",
        ),
        (
            "{allowedHosts: ['b.test:443', 'b.test:80']}",
            "add \"b.test\" to egress.allowedHosts",
        ),
    ] {
        let narrow = grant("allowedHosts: []", ceiling);
        assert_eq!(hint(&narrow, "b.test:443", &[]), told, "{ceiling}");
    }
    let held = grant(
        "allowedHosts: [a.test], deniedHosts: [10.9.0.0/16]",
        "{addresses: [10.0.0.0/8], deniedHosts: [10.8.0.0/16]}",
    );
    for (answer, told) in [
        (
            "10.1.2.3",
            "10.1.2.3 is private use (RFC 1918): add \"10.1.2.3\" to egress.allowedAddresses",
        ),
        (
            "10.9.1.1",
            "egress.deniedHosts[0] \"10.9.0.0/16\" always wins; remove it to allow 10.9.1.1:443",
        ),
        (
            "10.8.1.1",
            "egress.ceiling.deniedHosts[0] \"10.8.0.0/16\" always wins; only the operator can remove it to allow \
             10.8.1.1:443",
        ),
    ] {
        assert_eq!(hint(&held, "a.test:443", &[answer]), told);
    }
}

#[test]
fn a_request_is_told_what_would_let_it_through() {
    let grant = compile(
        "egress: {allowedHosts: ['a.test:80'], rules: [{host: 'a.test:80', http: {methods: [GET], pathPrefixes: [/v1]}}]}",
        "{}",
    )
    .unwrap();
    let permit = decide(&grant, &target("a.test:80")).unwrap();
    let long = format!("/v2/{}", "x".repeat(200));
    for (method, path, told) in [
        (
            "PUT",
            "/v1/x",
            "add \"PUT\" to egress.rules[0] \"a.test:80\": http.methods",
        ),
        (
            "GET",
            "/v2/x?y=1",
            "add \"/v2/x\" to egress.rules[0] \"a.test:80\": http.pathPrefixes",
        ),
        (
            "GET",
            "/v2/%20",
            "add \"/v2\" to egress.rules[0] \"a.test:80\": http.pathPrefixes",
        ),
        (
            "GET",
            &long,
            "add \"/v2\" to egress.rules[0] \"a.test:80\": http.pathPrefixes",
        ),
        (
            "GET",
            "/",
            "add \"/\" to egress.rules[0] \"a.test:80\": http.pathPrefixes; it covers every path",
        ),
        (
            "GET",
            "/%41",
            "add \"/\" to egress.rules[0] \"a.test:80\": http.pathPrefixes; it covers every path",
        ),
        (
            "get",
            "/v1",
            "methods are case-sensitive (RFC 9110 §9.1): send it in capitals",
        ),
        (
            "put",
            "/v1",
            "add \"PUT\" to egress.rules[0] \"a.test:80\": http.methods",
        ),
        (
            "GET",
            "/v1/../admin",
            "no prefix covers a path that two parsers could read differently: send it plain",
        ),
    ] {
        let refusal = permit.judge_http(method, path).unwrap_err();
        assert_eq!(refusal.hint.unwrap().to_string(), told, "{path}");
    }
}

/// Of what the operator wrote, what a capability brings, and what the session asks for.
#[test]
fn each_says_who_can_follow_it() {
    let operator = document(
        "egress: {allowedHosts: ['a.test:*', 'c.test:*'], deniedHosts: [b.test], rules: [{host: a.test, tls: require}]}",
    );
    let session = document(
        "egress: {allowedHosts: ['d.test:*'], deniedHosts: [e.test], rules: [{host: 'd.test:80', tls: require}, {host: 'd.test:81', http: {methods: [GET]}}, {host: c.test, ech: deny}]}",
    );
    let mut faults = text::Faults::default();
    let ceiling = ceiling("{addresses: [10.0.0.0/8], deniedHosts: [f.test]}");
    let laid = operator.lay(&session, Origin::Session);
    let grant = Arc::new(laid.compile(&ceiling, &mut faults).unwrap());
    let other = Some(FirstBytes::Other);
    let encrypted = Some(FirstBytes::Tls(Hello {
        sni: Some("c.test".into()),
        ech: true,
        ech_draft: false,
    }));
    let public = ["93.184.215.14"];
    for (asked, answer, began, whose) in [
        ("x.test:443", public, &None, HintFor::Session),
        ("b.test:443", public, &None, HintFor::Operator),
        ("e.test:443", public, &None, HintFor::Session),
        ("f.test:443", public, &None, HintFor::Operator),
        ("127.0.0.1:80", public, &None, HintFor::Operator),
        ("c.test:80", ["10.1.2.3"], &None, HintFor::Session),
        ("c.test:80", ["127.0.0.1"], &None, HintFor::Operator),
        // Of first bytes: the rule that is in the way, or a default,
        ("a.test:80", public, &other, HintFor::Operator),
        ("d.test:80", public, &other, HintFor::Session),
        ("c.test:443", public, &other, HintFor::Session),
        ("d.test:81", public, &other, HintFor::Session),
        ("c.test:80", public, &encrypted, HintFor::Session),
        // and where nothing is said yet of what would have to be.
        ("a.test:80", public, &encrypted, HintFor::Session),
    ] {
        let answers = answer.map(|answer| answer.parse().unwrap());
        let refusal = judged(&grant, asked, &answers, &admission(), began.as_ref()).unwrap_err();
        let hint = refusal.hint.unwrap();
        assert_eq!(hint.whose(), Some(whose), "{asked}: {hint}");
    }
    let permit = decide(&grant, &target("d.test:81")).unwrap();
    for (method, whose) in [("PUT", HintFor::Session), ("get", HintFor::Client)] {
        let hint = permit.judge_http(method, "/").unwrap_err().hint.unwrap();
        assert_eq!(hint.whose(), Some(whose), "{method}");
    }
    assert_eq!(crate::Hint::OWN_LISTENER.whose(), None);
}
