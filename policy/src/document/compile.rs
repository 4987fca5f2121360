//! From a document to a grant, within the ceiling.

use super::{
    Ceiling, EgressDocument, ExposeDocument, GrantDocument, ServiceDocument, ceiling::denying,
    compile_rules::compile_rules, model::Written,
};
use crate::{
    Action, Expose, Grant, Origin, RuleId, Service, ServiceName, ServiceUrl,
    address::{METADATA, METADATA_NAMES, is_special_range},
    entry::{Entry, Pattern},
    expose::PATIENCE,
    grant::Egress,
    host::HostPattern,
    matcher::{Compiled, Matcher},
    text::{Faults, Place},
};
use ipnet::IpNet;

impl GrantDocument {
    /// Compile within the operator's ceiling; faults name each entry outside it. `None` exactly where this adds errors.
    pub fn compile(&self, ceiling: &Ceiling, faults: &mut Faults) -> Option<Grant> {
        let mut own = Faults::default();
        let egress = self.egress.compile(ceiling, &mut own);
        let mut services = std::collections::BTreeMap::new();
        for (name, service) in &self.services {
            if let Some(service) = service.compile(name, ceiling, &mut own) {
                services.insert(name.clone(), service.into());
            }
        }
        let expose = self.expose.iter();
        let expose = expose.map(|(name, one)| (name.clone(), one.compile()));
        let clean = own.is_clean();
        faults.append(own);
        clean.then(|| Grant {
            egress: egress.into(),
            services,
            expose: expose.collect(),
            limits: self.limits.limits,
            mode: self.egress.mode(),
            also: None,
        })
    }
}

impl EgressDocument {
    pub(super) fn compile(&self, ceiling: &Ceiling, faults: &mut Faults) -> Egress {
        let default = self.default_action.unwrap_or_default();
        if default == Action::Allow && self.allowed_hosts.is_none() && ceiling.bounds_names() {
            faults.error_hint(
                &Place::default(),
                "egress.defaultAction: allow asks for more than the operator's ceiling.allowedHosts",
                "write allowedHosts",
            );
        }
        for written in &self.allowed_addresses {
            hold_net(
                &written.value,
                "egress.allowedAddresses",
                written,
                ceiling,
                faults,
            );
        }
        for (name, written) in &self.hosts {
            for address in &written.value {
                hold_net(
                    &IpNet::from(*address),
                    &format!("egress.hosts.{name}"),
                    written,
                    ceiling,
                    faults,
                );
            }
        }
        let allow = self
            .allowed_hosts
            .as_ref()
            .map(|list| compile_allowed(list, ceiling, faults));
        let reports = self.reports();
        let (rules, attributes) =
            compile_rules(&self.rules, allow.as_ref(), default, reports, faults);
        // Whoever only reports lifts what is theirs, and what is laid over it.
        let held = |origin: Origin| reports.is_some_and(|by| origin < by);
        let answers = self.hosts.iter();
        Egress {
            default,
            default_rule: RuleId::new(match default {
                Action::Allow => "defaultAction \"allow\"",
                Action::Deny => "defaultAction \"deny\"",
            }),
            report_rule: RuleId::by("mode \"report\"", reports.unwrap_or_default()),
            allow,
            held: denying("deniedHosts", &self.denied_hosts, held),
            deny: denying("deniedHosts", &self.denied_hosts, |origin| !held(origin)),
            rules,
            attributes,
            exceptions: self
                .allowed_addresses
                .iter()
                .map(|written| written.value)
                .collect(),
            answers: answers
                .map(|(name, list)| (name.clone(), list.value.as_slice().into()))
                .collect(),
            bound: ceiling.compile(),
        }
    }
}

fn compile_allowed(list: &[Written<Entry>], ceiling: &Ceiling, faults: &mut Faults) -> Matcher {
    Matcher::new(list.iter().enumerate().map(|(index, written)| {
        let entry = &written.value;
        let compiled = Compiled {
            entry: entry.clone(),
            exception: hold_entry(written, ceiling, faults),
            origin: written.origin,
        };
        (format!("allowedHosts[{index}] \"{entry}\""), compiled)
    }))
}

/// Report an entry outside the ceiling; is it its own exception to the address ban?
fn hold_entry(written: &Written<Entry>, ceiling: &Ceiling, faults: &mut Faults) -> bool {
    let entry = &written.value;
    match &entry.pattern {
        Pattern::Net(net) if is_special_range(*net) => {
            hold_net(
                net,
                &format!("egress.allowedHosts entry \"{entry}\""),
                written,
                ceiling,
                faults,
            );
            return true;
        }
        Pattern::Host(HostPattern::Exact(name))
            if METADATA_NAMES.contains(&name.as_str()) && !ceiling.bounds_names() =>
        {
            faults.error_hint(
                &written.place,
                format!(
                    "\"{entry}\" is a metadata service, which the operator's ceiling does not name"
                ),
                "only the provider's ceiling.allowedHosts can name it",
            );
        }
        // Addresses that the operator excepts by hand are exceptions too: a network's own NAT64 prefix, the gateway's host.
        Pattern::Net(net) if ceiling.holds_net(net) => return true,
        _ if ceiling.holds_entry(entry) => {}
        _ => faults.error_hint(
            &written.place,
            format!("\"{entry}\" is outside the operator's ceiling"),
            format!(
                "the operator would have to add \"{entry}\" to the provider's ceiling.allowedHosts"
            ),
        ),
    }
    false
}

/// Report a range (or address) outside the ceiling, and a metadata address named alone here but not there.
fn hold_net<T>(
    net: &IpNet,
    what: &str,
    written: &Written<T>,
    ceiling: &Ceiling,
    faults: &mut Faults,
) {
    let single = net.prefix_len() == net.max_prefix_len();
    let shown = if single {
        net.addr().to_string()
    } else {
        net.to_string()
    };
    let hint =
        format!("the operator would have to add \"{shown}\" to the provider's ceiling.addresses");
    if !ceiling.holds_net(net) {
        let message = format!("{what}: {shown} is outside the operator's ceiling");
        faults.error_hint(&written.place, message, hint);
    } else if single && METADATA.contains(&net.addr()) && !ceiling.names_address(net) {
        let message = format!(
            "{what}: {shown} is a metadata address, which the operator's ceiling does not name alone"
        );
        faults.error_hint(&written.place, message, hint);
    }
}

impl ExposeDocument {
    fn compile(&self) -> Expose {
        Expose {
            dial: self.dial,
            port: self.port,
            peer_uid: self.peer_uid,
            patience: self.patience.unwrap_or(PATIENCE),
            half_close_timeout: self.half_close_timeout,
            idle_timeout: self.idle_timeout,
        }
    }
}

impl ServiceDocument {
    fn compile(
        &self,
        name: &ServiceName,
        ceiling: &Ceiling,
        faults: &mut Faults,
    ) -> Option<Service> {
        let Some(url) = &self.url else {
            let message = format!("service \"{name}\" has no url, and none is known by that name");
            faults.error_hint(&self.place.0, message, "write its url");
            return None;
        };
        if self.http.is_some() && self.grpc_method_prefix.is_some() {
            let message = format!("service \"{name}\" has http and grpc");
            let hint = "a stream speaks one of them: name it twice, once with each";
            faults.error_hint(&self.place.0, message, hint);
        }
        if let ServiceUrl::Unix(path) = url
            && !ceiling.holds_socket(path)
        {
            let path = path.display();
            let message =
                format!("service \"{name}\": {path} is outside the operator's ceiling.sockets");
            let hint = format!(
                "the operator would have to add \"{path}\" to the provider's ceiling.sockets"
            );
            faults.error_hint(&self.place.0, message, hint);
        }
        Some(Service {
            url: url.clone(),
            health: self.health.clone().unwrap_or_default(),
            half_close_timeout: self.half_close_timeout,
            idle_timeout: self.idle_timeout,
            peer_uid: self.peer_uid,
            proxy_protocol: self.proxy_protocol,
            http: self.http.clone(),
            grpc_method_prefix: self.grpc_method_prefix.clone(),
            within: ceiling.within(),
        })
    }
}
