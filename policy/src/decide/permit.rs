//! The keys to resolving, dialling and opening. Fields are private to this folder: nothing else makes one.

use super::Admission;
use crate::{
    Denial, EchRule, Expose, Grant, Hint, HintFor, Host, HttpRule, Refusal, RuleId, Service,
    ServiceName, ServiceUrl, Target, TlsRule, grant::InForce, hint,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// What let a target through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Basis {
    /// This entry of `allowedHosts`.
    Entry(u32),
    /// The default, or report mode.
    Default,
}

/// A target the grant allows. Needed to resolve its name.
#[derive(Clone, Debug)]
pub struct TargetPermit {
    pub(super) grant: Arc<Grant>,
    pub(super) target: Target,
    pub(super) basis: Basis,
    pub(super) in_force: InForce,
    pub(super) reported: Option<Box<Refusal>>,
}

/// One is made and moved with each decision.
const _: () = assert!(size_of::<TargetPermit>() <= 128);

impl TargetPermit {
    /// The target permitted.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The rule that allowed it; in report mode the one that would have refused it, where there is one.
    #[must_use]
    pub fn rule(&self) -> RuleId {
        let egress = &self.grant.egress;
        let entry = match self.basis {
            Basis::Entry(index) => egress.allow.as_ref().map(|allow| allow.rule(index)),
            Basis::Default => None,
        };
        let reported = || self.reported.as_ref()?.rule.clone();
        entry.or_else(reported).unwrap_or_else(|| {
            // A list that names nothing is no default.
            let rule = match egress.allow {
                Some(_) => &egress.report_rule,
                None => &egress.default_rule,
            };
            rule.clone()
        })
    }

    /// First-bytes rule in force on this target's port.
    #[must_use]
    pub fn tls(&self) -> TlsRule {
        let said = self.in_force.tls(&self.grant.egress.attributes);
        said.map_or(TlsRule::default_for(self.target.port()), |(tls, _)| tls)
    }

    /// The entry of `rules` it comes from; none where it is the port's default.
    pub(super) fn tls_from(&self) -> Option<u32> {
        let said = self.in_force.tls(&self.grant.egress.attributes);
        said.map(|(_, index)| index)
    }

    /// ECH rules, each of which must let a hello pass; none = `outer`.
    pub fn ech(&self) -> impl Iterator<Item = &EchRule> {
        let rules = &self.grant.egress.attributes;
        self.in_force.ech(rules).map(|(_, rule)| rule)
    }

    /// Methods and paths, where rules have any: a request must be allowed by each. A tunnel then must not carry TLS: nothing inside
    /// could be judged.
    pub fn http(&self) -> impl Iterator<Item = &HttpRule> {
        self.http_rules().map(|(_, _, rule)| rule)
    }

    /// The same, each with its place in `rules`, and whether report mode lifts it.
    pub(super) fn http_rules(&self) -> impl Iterator<Item = (u32, bool, &HttpRule)> {
        self.in_force.http(&self.grant.egress.attributes)
    }

    /// The first rule that refuses every ECH, by its place in `rules`.
    pub(super) fn ech_denied_by(&self) -> Option<u32> {
        let mut rules = self.in_force.ech(&self.grant.egress.attributes);
        let denied = rules.find(|(_, rule)| **rule == EchRule::Deny);
        denied.map(|(index, _)| index)
    }

    /// The first rule of methods and paths that holds, by its place in `rules`.
    pub(super) fn http_bound_by(&self) -> Option<u32> {
        // What report mode lifts has refused nothing, unless there is nothing else.
        let first = self.http_rules().min_by_key(|(_, lifted, _)| *lifted);
        first.map(|(index, _, _)| index)
    }

    /// The rule by which something under this permit is refused for this reason; `None` where no rule says so. Where none speaks of
    /// `tls` it is the port's default, e.g. `tls "require"`.
    #[must_use]
    pub fn rule_behind(&self, denial: Denial) -> Option<RuleId> {
        let index = match denial {
            Denial::EchDenied => self.ech_denied_by(),
            Denial::MethodNotAllowed | Denial::PathNotAllowed => self.http_bound_by(),
            Denial::TlsRequired
            | Denial::TlsMalformed
            | Denial::SniMissing
            | Denial::SniMismatch
            | Denial::FirstBytesTimeout => {
                let default = || RuleId::new(&format!("tls \"{}\"", self.tls().as_str()));
                let rules = &self.grant.egress.rules;
                let rule = self.tls_from().map(|index| rules.rule(index));
                return Some(rule.unwrap_or_else(default));
            }
            _ => None,
        };
        index.map(|index| self.grant.egress.rules.rule(index))
    }

    /// Static answers (or the literal itself): no resolution is to be made.
    #[must_use]
    pub fn answers(&self) -> Option<&[IpAddr]> {
        match self.target.host() {
            Host::Ip(address) => Some(std::slice::from_ref(address)),
            Host::Name(name) => self
                .grant
                .egress
                .answers
                .get(name)
                .map(|answers| &**answers),
        }
    }

    /// The same, with what the operator's static answers (`dns.hosts`) say; `None` where only a resolver knows.
    #[must_use]
    pub fn known_answers<'a>(&'a self, admission: &'a Admission) -> Option<&'a [IpAddr]> {
        let fixed = || match self.target.host() {
            Host::Name(name) => admission.hosts.get(name).map(Vec::as_slice),
            Host::Ip(_) => None,
        };
        self.answers().or_else(fixed)
    }

    /// In report mode: what would have been refused.
    #[must_use]
    pub fn reported(&self) -> Option<&Refusal> {
        self.reported.as_deref()
    }

    /// Judge one plain HTTP request: where TLS is required it is none, whatever the mode and its port; else by the rule's methods
    /// and path prefixes (path as sent, with query). What a rule refuses that report mode lifts passes, and is the answer.
    ///
    /// # Errors
    /// `TlsRequired`, `MethodNotAllowed`, `PathNotAllowed`.
    pub fn judge_http(&self, method: &str, path: &str) -> Result<Option<Refusal>, Refusal> {
        if self.tls() == TlsRule::Require {
            let (told, whose) = self.without_tls();
            let told = format!("ask by https:// through CONNECT; or {told}").into();
            return Err(Refusal {
                denial: Denial::TlsRequired,
                rule: self.rule_behind(Denial::TlsRequired),
                hint: Some(Hint::Rule { told, whose }),
            });
        }
        let mut reported = None;
        for (index, lifted, http) in self.http_rules() {
            let Err(denial) = http.judge(method, path) else {
                continue;
            };
            let rule = self.grant.egress.rules.rule(index);
            let place = format!("egress.{rule}");
            let place = (place.as_str(), Some(HintFor::of(rule.origin())));
            let refusal = Refusal {
                denial,
                rule: Some(rule),
                hint: Some(hint::http(http, denial, place, (method, path))),
            };
            if !lifted {
                return Err(refusal);
            }
            reported = reported.or(Some(refusal));
        }
        Ok(reported)
    }
}

/// One judged address. The only key to a dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressPermit {
    pub(super) address: SocketAddr,
}

impl AddressPermit {
    /// The address to dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// One host service this stream may reach. The only key to opening it.
#[derive(Clone, Debug)]
pub struct ServicePermit {
    pub(super) name: ServiceName,
    /// The grant's own: a stream may be there for days, and there are many to one service.
    pub(super) service: Arc<Service>,
}

impl ServicePermit {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &ServiceUrl {
        &self.service.url
    }

    /// Judge one HTTP request: Host (one, as sent), every Origin field, method, path (as sent, with query). A service
    /// without `http` bounds nothing.
    ///
    /// # Errors
    /// `ServiceHostNotAllowed`, `ServiceOriginNotAllowed`, `MethodNotAllowed`, `PathNotAllowed`.
    pub fn judge_http<'a>(
        &self,
        method: &str,
        path: &str,
        host: Option<&str>,
        mut origins: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), Refusal> {
        let Some(http) = &self.service.http else {
            return Ok(());
        };
        let named = host.and_then(|host| Target::from_uri_authority(host, 80).ok());
        let known = named.is_some_and(|named| match named.host() {
            Host::Name(name) => http.hosts.contains(name),
            Host::Ip(_) => false,
        });
        if !http.hosts.is_empty() && !known {
            return Err(self.refuse(Denial::ServiceHostNotAllowed, None));
        }
        let allowed = |origin: &[u8]| {
            let listed = |one: &String| one.as_bytes().eq_ignore_ascii_case(origin);
            http.origins.iter().any(listed)
        };
        // A request without Origin is no page's; one of a page that may not even say where it is from says `null`.
        if !http.origins.is_empty() && !origins.all(allowed) {
            return Err(self.refuse(Denial::ServiceOriginNotAllowed, None));
        }
        http.rule.judge(method, path).map_err(|denial| {
            let hint = hint::http(
                &http.rule,
                denial,
                (self.place().as_str(), None),
                (method, path),
            );
            self.refuse(denial, Some(hint))
        })
    }

    fn place(&self) -> String {
        format!("services.{}", self.name)
    }

    fn refuse(&self, denial: Denial, hint: Option<Hint>) -> Refusal {
        let rule = Some(RuleId::new(&format!("{}.http", self.place())));
        Refusal { denial, rule, hint }
    }

    /// Everything known of it: timers, peer uid, PROXY header, HTTP and gRPC bounds.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }
}

/// What may pass on a stream to a host service.
#[derive(Clone, Debug)]
pub enum StreamPermit {
    /// Bytes, whatever they are: the service may be opened for them.
    Bytes(Box<ServicePermit>),
    /// gRPC calls.
    Calls(CallsPermit),
}

/// A stream that may carry gRPC calls to one host service. It opens nothing: each call has to have a [`ServicePermit`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallsPermit {
    pub(super) name: ServiceName,
    pub(super) idle_timeout: Option<Duration>,
}

impl CallsPermit {
    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// How long the stream may be silent; absent = the gateway's own.
    #[must_use]
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }
}

/// One listener of the sandbox that may be offered, and dialled. The only key to joining the two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerPermit {
    pub(super) name: ServiceName,
    pub(super) listener: Expose,
}

impl ListenerPermit {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// Where and how it may be dialled.
    #[must_use]
    pub fn listener(&self) -> &Expose {
        &self.listener
    }
}
