//! What would change a refusal: an instruction that leads on when it is followed, or the word that nothing does.

use crate::{
    AddressClass, Denial, Grant, Host, HttpRule, Origin, RuleId, Target,
    address::canonical,
    classify,
    entry::{Entry, Ports},
    matcher::Found,
    path,
};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Who can do what a hint says. Where it takes more than one of them, the one without whom nothing is changed: from the first to the last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HintFor {
    /// Whoever writes the configuration: a provider's ceiling and defaults, capabilities. Also the author of a policy that stands alone,
    /// where it is about what that says.
    Operator,
    /// Whoever has a say in the session's own grant: its owner, the control plane.
    Session,
    /// The program that asked, by asking otherwise.
    Client,
}

impl HintFor {
    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Session => "session",
            Self::Client => "client",
        }
    }

    /// Who can change what this author's document says.
    pub(crate) const fn of(origin: Origin) -> Self {
        match origin {
            Origin::Operator | Origin::Capability => Self::Operator,
            Origin::Session => Self::Session,
        }
    }
}

/// What would change a refusal. A sentence only when somebody reads it: most refusals nobody does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hint {
    /// An entry of `allowedHosts` for this target.
    Allow {
        /// What would be allowed.
        target: Target,
        /// The operator's ceiling holds its port, and not both of the web: the entry has to name it.
        port: bool,
    },
    /// That rule's removal from `deniedHosts`, the session's own or the ceiling's.
    Undeny {
        /// The rule that always wins.
        rule: RuleId,
        /// What would be allowed.
        target: Target,
    },
    /// An entry of the ceiling's `allowedHosts` for this target: the operator's to write.
    Raise(Target),
    /// An exception for an address that is refused for what it is.
    Except {
        /// The address, as it was asked for or answered.
        address: SocketAddr,
        /// What it is.
        class: AddressClass,
        /// Does the operator's ceiling hold it already?
        held: bool,
        /// Was it asked for itself, and not by a name? Then `allowedHosts` is where it is named.
        literal: bool,
    },
    /// A value in one of the lists that bound HTTP requests, e.g. `"PUT"` in `egress.rules[0] "a.test": http.methods`.
    Http {
        /// The list.
        list: Box<str>,
        /// What would have to stand there.
        value: Box<str>,
        /// Whose list it is, where that is known: what a host service is bounded by may stand in the configuration or in the grant.
        whose: Option<HintFor>,
    },
    /// What a rule for this host and port would have to say, or the client to do, for first bytes that are refused.
    Rule {
        /// The instruction.
        told: Box<str>,
        /// Who can write the rule.
        whose: HintFor,
    },
    /// A limit is reached.
    InUse {
        /// In use now.
        used: u64,
        /// The limit.
        most: u64,
        /// Of what.
        what: &'static str,
    },
    /// No rule changes it, and why; or what else does.
    Fixed {
        /// The word.
        told: &'static str,
        /// Who can do it; none where nobody can.
        whose: Option<HintFor>,
    },
}

impl Hint {
    /// Of one of the gateway's own listeners.
    pub(crate) const OWN_LISTENER: Self = Self::Fixed {
        told: "nothing allows this: the gateway is no target of its own",
        whose: None,
    };

    /// What the session's owner can do.
    pub(crate) const fn session(told: &'static str) -> Self {
        let whose = Some(HintFor::Session);
        Self::Fixed { told, whose }
    }

    /// What the program itself can do.
    pub(crate) const fn client(told: &'static str) -> Self {
        let whose = Some(HintFor::Client);
        Self::Fixed { told, whose }
    }

    /// Who can do it; `None` where nobody can, where it is no instruction (a limit that is reached), or where it is not known.
    #[must_use]
    pub fn whose(&self) -> Option<HintFor> {
        match self {
            Self::Allow { .. } | Self::Except { held: true, .. } => Some(HintFor::Session),
            Self::Raise(_) | Self::Except { held: false, .. } => Some(HintFor::Operator),
            Self::Undeny { rule, .. } => Some(HintFor::of(rule.origin())),
            Self::Rule { whose, .. } => Some(*whose),
            Self::Http { whose, .. } | Self::Fixed { whose, .. } => *whose,
            Self::InUse { .. } => None,
        }
    }

    /// What would allow a target that no entry of the session's allows: a special-purpose literal needs the operator too.
    pub(crate) fn allow(grant: &Grant, target: &Target) -> Self {
        Self::literal(grant, target).unwrap_or_else(|| Self::Allow {
            target: target.clone(),
            port: !holds_web(grant, target.host()),
        })
    }

    /// What would bring a target within the operator's ceiling.
    pub(crate) fn raise(grant: &Grant, target: &Target) -> Self {
        Self::literal(grant, target).unwrap_or_else(|| Self::Raise(target.clone()))
    }

    /// The exception a literal needs, where the ceiling does not hold it.
    fn literal(grant: &Grant, target: &Target) -> Option<Self> {
        let Host::Ip(address) = target.host() else {
            return None;
        };
        let class = classify(*address, &[]);
        let special = class != AddressClass::Global;
        let held = grant.egress.bound.holds(canonical(*address), class);
        (special && !held).then(|| Self::Except {
            address: SocketAddr::new(*address, target.port()),
            class,
            held,
            literal: true,
        })
    }

    /// The exception an address needs that was refused for its class.
    pub(crate) fn except(
        grant: &Grant,
        target: &Target,
        address: IpAddr,
        class: AddressClass,
    ) -> Self {
        Self::Except {
            address: SocketAddr::new(address, target.port()),
            class,
            held: grant.egress.bound.holds(address, class),
            literal: matches!(target.host(), Host::Ip(_)),
        }
    }
}

/// What would let a request through that a rule of `place` refused.
pub(crate) fn http(
    rule: &HttpRule,
    denial: Denial,
    (place, whose): (&str, Option<HintFor>),
    (method, path): (&str, &str),
) -> Hint {
    let capitals = method.to_ascii_uppercase();
    let add = |list: &str, value: &str| Hint::Http {
        list: format!("{place}: http.{list}").into(),
        value: value.into(),
        whose,
    };
    match denial {
        Denial::MethodNotAllowed if rule.methods.contains(&capitals) => {
            Hint::client("methods are case-sensitive (RFC 9110 §9.1): send it in capitals")
        }
        // What is not in capitals is no method of any rule: the next word is to send it so.
        Denial::MethodNotAllowed => add("methods", &capitals),
        _ => match path::narrowest(path) {
            Some(prefix) => add("pathPrefixes", prefix),
            None => Hint::client(
                "no prefix covers a path that two parsers could read differently: send it plain",
            ),
        },
    }
}

/// The narrowest entry for a host and port, as the reader of documents takes it.
pub(crate) fn entry(host: &Host, port: u16) -> Entry {
    match host {
        Host::Name(_) => Entry::for_target(host, port),
        Host::Ip(address) => Entry::for_target(&Host::Ip(canonical(*address)), port),
    }
}

/// The same, within the operator's ceiling.
pub(crate) fn held_entry(grant: &Grant, host: &Host, port: u16) -> Entry {
    narrowest(host, port, !holds_web(grant, host))
}

fn narrowest(host: &Host, port: u16, named: bool) -> Entry {
    let entry = entry(host, port);
    match entry.ports {
        Ports::Web if named => Entry {
            ports: Ports::One(port),
            ..entry
        },
        _ => entry,
    }
}

/// May a session name both ports of the web, as an entry without a port does?
fn holds_web(grant: &Grant, host: &Host) -> bool {
    let bound = &grant.egress.bound;
    let excepted = |address: &IpAddr| {
        let address = canonical(*address);
        bound.addresses.iter().any(|net| net.contains(&address))
    };
    match (&bound.allow, host) {
        (None, _) => true,
        (Some(_), Host::Ip(address)) if excepted(address) => true,
        (Some(allow), _) => {
            let holds = |port| matches!(allow.find(host, port), Found::Entry(_));
            holds(80) && holds(443)
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow { target, port } => {
                let entry = narrowest(target.host(), target.port(), *port);
                write!(f, "add \"{entry}\" to egress.allowedHosts")
            }
            Self::Undeny { rule, target } => {
                let who = if rule.as_str().starts_with("ceiling.") {
                    "only the operator can remove it"
                } else {
                    "remove it"
                };
                write!(f, "egress.{rule} always wins; {who} to allow {target}")
            }
            Self::Raise(target) => {
                let entry = entry(target.host(), target.port());
                write!(
                    f,
                    "only the operator can allow it: add \"{entry}\" to the provider's ceiling.allowedHosts"
                )
            }
            Self::Except {
                address,
                class,
                held,
                literal,
            } => {
                let ip = canonical(address.ip());
                match class {
                    AddressClass::Special { name, source } => {
                        write!(f, "{ip} is {name} ({source}): ")?;
                    }
                    AddressClass::Metadata => write!(f, "{ip} is a metadata address: ")?,
                    AddressClass::Global => write!(f, "{ip} is the gateway's own address: ")?,
                }
                if !held {
                    write!(
                        f,
                        "only the operator can allow that: add \"{ip}\" to the provider's ceiling.addresses; then "
                    )?;
                }
                if *literal {
                    let entry = entry(&Host::Ip(ip), address.port());
                    write!(f, "add \"{entry}\" to egress.allowedHosts")
                } else {
                    write!(f, "add \"{ip}\" to egress.allowedAddresses")
                }
            }
            Self::Http { list, value, .. } => {
                write!(f, "add {value:?} to {list}")?;
                if **value == *path::ROOT {
                    f.write_str("; it covers every path")?;
                }
                Ok(())
            }
            Self::InUse { used, most, what } => write!(f, "{used} of {most} {what}"),
            Self::Rule { told, .. } => f.write_str(told),
            Self::Fixed { told, .. } => f.write_str(told),
        }
    }
}
