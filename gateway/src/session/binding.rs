//! A capability bound to a session: which one, whether it counts, and what this session takes of it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluicegate_policy::{
    GrantDocument,
    text::{self, Faults, Fields, Node, Place},
};

use super::{RegistryConfig, RegistryError, request::name};
use crate::clock::rfc3339;

/// A bundle of the configuration's catalogue.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Capability {
    /// For people.
    pub description: Option<String>,
    /// What it adds to a session.
    pub grant: GrantDocument,
    /// Names of secrets a session needs with it. Names only: the gateway holds no secret of that kind.
    pub secrets: Vec<String>,
}

/// One binding, as stored. The bundle itself stays in the catalogue: a reload that changes it changes the session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Binding {
    /// The capability.
    pub name: String,
    /// Does it count?
    pub enabled: bool,
    /// What narrows it for this session, as canonical JSON of a grant: the services taken, and limits. `{}` = nothing.
    pub narrowed: String,
    /// Its services were named, and there are none: it takes none of the capability's.
    #[serde(default)]
    pub no_services: bool,
    /// When it was installed.
    pub installed_at: SystemTime,
}

/// What a request says of a binding.
#[derive(Clone, PartialEq, Debug)]
pub struct BindingRequest {
    /// The capability.
    pub name: String,
    /// Does it count? Absent = yes where it is new, unchanged where it is not.
    pub enabled: Option<bool>,
    /// Services taken (absent = all) and limits; `None` = not said.
    pub narrowed: Option<GrantDocument>,
    /// Of that, services were named; none of them is not the same as no word of them.
    pub services_said: bool,
    /// Of that, limits were.
    pub limits_said: bool,
}

impl BindingRequest {
    /// Read a request's body, for the capability named in its path.
    ///
    /// # Errors
    /// Every fault, with its position.
    pub fn read(name: &str, source: &str) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let source = if source.trim().is_empty() {
            "{}"
        } else {
            source
        };
        let root = text::parse(source, &mut faults);
        let mut fields = root.fields(&mut faults);
        let request = Self::take(name.into(), &mut fields, &mut faults);
        fields.finish(&mut faults);
        if faults.is_clean() {
            Ok(request)
        } else {
            Err(faults)
        }
    }

    /// One item of a list: the capability's name, or `{name, enabled, services, limits}`.
    pub(super) fn item(node: &Node, faults: &mut Faults) -> Option<Self> {
        if !node.is_map() {
            return Some(Self {
                name: name(node, faults)?,
                enabled: None,
                narrowed: None,
                services_said: false,
                limits_said: false,
            });
        }
        let mut fields = node.fields(faults);
        let own = fields
            .require("name", faults)
            .and_then(|node| name(node, faults));
        let request = Self::take(own.unwrap_or_default(), &mut fields, faults);
        fields.finish(faults);
        (!request.name.is_empty()).then_some(request)
    }

    fn take(name: String, fields: &mut Fields<'_>, faults: &mut Faults) -> Self {
        let enabled = fields.take("enabled").and_then(|node| node.boolean(faults));
        if let Some(node) = fields.take("egress") {
            let hint = "bind a capability that has only these rules, or write them in the session's own egress";
            faults.error_hint(
                &node.key_place(),
                "egress of a capability is taken whole",
                hint,
            );
        }
        let services_said = fields.take("services").is_some();
        let limits_said = fields.take("limits").is_some();
        let mut document = GrantDocument::take(fields, faults);
        document.egress = Default::default();
        for (service, written) in &document.services {
            if written.url.is_some() {
                let place = Place {
                    path: text::Path::default().key("services").key(service.as_str()),
                    ..Place::default()
                };
                let hint = "services: [NAME, …]";
                faults.error_hint(
                    &place,
                    "a binding names services of its capability only",
                    hint,
                );
            }
        }
        Self {
            name,
            enabled,
            narrowed: (services_said || limits_said).then_some(document),
            services_said,
            limits_said,
        }
    }

    /// This request laid over what is there.
    ///
    /// # Errors
    /// The catalogue has no such capability, or not the services taken: told even where the binding would not count.
    pub(super) fn over(
        &self,
        before: Option<&Binding>,
        config: &RegistryConfig,
        now: SystemTime,
    ) -> Result<Binding, RegistryError> {
        // What a request does not name stays as it was.
        let mut narrowed = match before {
            Some(before) => before.narrowed()?,
            None => GrantDocument::default(),
        };
        let mut no_services = before.is_some_and(|before| before.no_services);
        if let Some(said) = &self.narrowed {
            if self.services_said {
                narrowed.services.clone_from(&said.services);
                no_services = said.services.is_empty();
            }
            if self.limits_said {
                narrowed.limits = said.limits;
            }
        }
        let narrowed = narrowed.to_json();
        let binding = Binding {
            name: self.name.clone(),
            no_services,
            enabled: self
                .enabled
                .unwrap_or_else(|| before.is_none_or(|before| before.enabled)),
            narrowed,
            installed_at: before.map_or(now, |before| before.installed_at),
        };
        binding.layer(config)?;
        Ok(binding)
    }
}

/// Items of a list, each capability once.
pub(super) fn read_list(node: &Node, faults: &mut Faults) -> Vec<BindingRequest> {
    let mut found: Vec<BindingRequest> = Vec::new();
    for item in node.list(faults) {
        let Some(request) = BindingRequest::item(item, faults) else {
            continue;
        };
        if found.iter().any(|other| other.name == request.name) {
            faults.error(item.place(), format!("{:?} is written twice", request.name));
        }
        found.push(request);
    }
    found
}

impl Binding {
    /// What it adds to the session, narrowed.
    ///
    /// # Errors
    /// The catalogue has no such capability, or not the services taken.
    pub(super) fn layer(&self, config: &RegistryConfig) -> Result<GrantDocument, RegistryError> {
        let Some(capability) = config.capabilities.get(&self.name) else {
            return Err(self.fault(
                format!("the catalogue has no capability {:?}", self.name),
                "the operator would have to add it to capabilities; or uninstall it",
            ));
        };
        let narrowed = self.narrowed()?;
        let mut grant = capability.grant.clone();
        for service in narrowed.services.keys() {
            if !grant.services.contains_key(service) {
                return Err(self.fault(
                    format!("capability {:?} has no service {service}", self.name),
                    "name one that it has",
                ));
            }
        }
        if self.no_services || !narrowed.services.is_empty() {
            grant
                .services
                .retain(|name, _| narrowed.services.contains_key(name));
        }
        Ok(grant.merge(&GrantDocument {
            limits: narrowed.limits,
            ..GrantDocument::default()
        }))
    }

    fn narrowed(&self) -> Result<GrantDocument, RegistryError> {
        let mut faults = Faults::default();
        let root = text::parse(&self.narrowed, &mut faults);
        let document = GrantDocument::read(&root, &mut faults);
        if faults.is_clean() {
            Ok(document)
        } else {
            Err(RegistryError::Faults(faults))
        }
    }

    fn fault(&self, message: String, hint: &str) -> RegistryError {
        let mut faults = Faults::default();
        let place = Place {
            path: text::Path::default().key("capabilities").key(&self.name),
            ..Place::default()
        };
        faults.error_hint(&place, message, hint);
        RegistryError::Faults(faults)
    }

    /// As the admin API shows it.
    pub(super) fn to_value(&self, config: &RegistryConfig) -> Value {
        let capability = config.capabilities.get(&self.name);
        let narrowed = self
            .narrowed()
            .map(|document| document.to_value())
            .unwrap_or_default();
        let services = narrowed
            .get("services")
            .and_then(Value::as_object)
            .map(|services| services.keys().cloned().collect::<Vec<_>>())
            .filter(|services| !services.is_empty())
            .or_else(|| self.no_services.then(Vec::new));
        json!({
            "name": self.name,
            "enabled": self.enabled,
            "installedAt": rfc3339(self.installed_at),
            "known": capability.is_some(),
            "fault": self.layer(config).err().map(|error| error.told()),
            "description": capability.and_then(|capability| capability.description.as_deref()),
            "secrets": capability.map(|capability| &capability.secrets),
            "services": services,
            "limits": narrowed.get("limits"),
        })
    }
}
