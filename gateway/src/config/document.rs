//! The document as a whole: every section, and what holds between them.
use super::{
    AdminConfig, CapabilityConfig, CompatConfig, DnsConfig, KeysConfig, LimitsConfig,
    ListenerConfig, ProbeConfig, ProviderConfig, PublicUrl, QuotaConfig, StoreConfig,
    TelemetryConfig, TlsConfig, UpstreamProxyConfig, capability, defaults, json, listener, yaml,
};
use serde_json::Value;
use sluicegate_policy::{
    Ceiling, EgressDocument, GrantDocument, Origin, ServiceDocument, ServiceName,
    text::{self, Fault, Faults, Fields, Node},
};
use std::{collections::BTreeMap, path::Path};

/// Everything an operator can set. `Default` is the empty document.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The address the outside knows this gateway by; `None` = the first public listener's.
    pub public_url: Option<PublicUrl>,
    /// Where it listens.
    pub listeners: Vec<ListenerConfig>,
    /// The identity public listeners show.
    pub tls: TlsConfig,
    /// How names are resolved.
    pub dns: DnsConfig,
    /// The operator's own proxy; `None` = upstreams are dialled from here.
    pub upstream_proxy: Option<UpstreamProxyConfig>,
    /// Where state is kept.
    pub store: StoreConfig,
    /// Signing keys that somebody else keeps; `None` = `keys` in the state directory, generated.
    pub keys: Option<KeysConfig>,
    /// Bounds of namespaces and owners.
    pub quotas: QuotaConfig,
    /// Bounds of every connection.
    pub limits: LimitsConfig,
    /// Egress every session begins with, whatever its provider.
    pub egress: EgressDocument,
    /// Known services, which a session may name without an address.
    pub services: BTreeMap<ServiceName, ServiceDocument>,
    /// Bundles of rules and services that sessions can be bound to.
    pub capabilities: BTreeMap<String, CapabilityConfig>,
    /// Runtimes; never empty.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Guard of the admin API.
    pub admin: AdminConfig,
    /// The self-checks behind effective profiles.
    pub probe: ProbeConfig,
    /// Records and logs.
    pub telemetry: TelemetryConfig,
    /// Credentials of other systems that are accepted.
    pub compat: CompatConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_url: None,
            listeners: defaults::listeners(),
            tls: TlsConfig::default(),
            dns: DnsConfig::default(),
            upstream_proxy: None,
            store: StoreConfig::default(),
            keys: None,
            quotas: QuotaConfig::default(),
            limits: LimitsConfig::default(),
            egress: EgressDocument::default(),
            services: BTreeMap::new(),
            capabilities: BTreeMap::new(),
            providers: BTreeMap::from([(defaults::LOCAL.to_owned(), ProviderConfig::local())]),
            admin: AdminConfig::default(),
            probe: ProbeConfig::default(),
            telemetry: TelemetryConfig::default(),
            compat: CompatConfig::default(),
        }
    }
}

impl Config {
    /// Read a document (YAML or JSON). An empty one is all defaults. The second value is what somebody should look at.
    ///
    /// # Errors
    /// Every fault of the text at once, in order of position, and the warnings with them.
    pub fn parse(source: &str) -> Result<(Self, Vec<Fault>), Faults> {
        let mut faults = Faults::default();
        let root = text::parse(source, &mut faults);
        let config = if root.is_null() {
            Self::default()
        } else {
            Self::read(&root, &mut faults)
        };
        if faults.is_clean() {
            config.compile_grants(&mut faults);
        }
        if faults.is_clean() {
            Ok((config, faults.warnings))
        } else {
            Err(faults)
        }
    }

    /// The document that is built in: all defaults, state in `state_dir`.
    #[must_use]
    pub fn embedded(state_dir: &Path) -> Self {
        Self::default().in_state_dir(state_dir)
    }

    /// This configuration with every file that was left to its default placed in `state_dir`.
    #[must_use]
    pub fn in_state_dir(mut self, state_dir: &Path) -> Self {
        self.store
            .path
            .get_or_insert_with(|| state_dir.join("sluicegate.redb"));
        self.admin
            .token_file
            .get_or_insert_with(|| state_dir.join("admin.token"));
        self
    }

    /// What every session of `provider` begins with: the top-level egress, then the provider's own grant.
    #[must_use]
    pub fn base_grant(&self, provider: &ProviderConfig) -> GrantDocument {
        let base = GrantDocument {
            egress: self.egress.clone(),
            ..GrantDocument::default()
        };
        base.merge(&self.with_known_services(&provider.grant))
    }

    /// `grant`, in which services that are only named have the addresses known for them here.
    #[must_use]
    pub fn with_known_services(&self, grant: &GrantDocument) -> GrantDocument {
        let named = self
            .services
            .iter()
            .filter(|(name, _)| grant.services.contains_key(*name));
        let known = GrantDocument {
            services: named
                .map(|(name, service)| (name.clone(), service.clone()))
                .collect(),
            ..GrantDocument::default()
        };
        known.merge(grant)
    }

    /// The name and settings of the provider for sessions that name none: the one marked so, or the only one.
    #[must_use]
    pub fn default_provider(&self) -> Option<(&str, &ProviderConfig)> {
        let marked = self.providers.iter().find(|(_, provider)| provider.default);
        let only = self
            .providers
            .iter()
            .next()
            .filter(|_| self.providers.len() == 1);
        marked
            .or(only)
            .map(|(name, provider)| (name.as_str(), provider))
    }

    /// The effective configuration as JSON, in the document's own form: reading it gives an equal configuration. It
    /// names the files that hold secrets; no secret itself can stand in the document.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json::config(self)
    }

    /// [`Config::to_json`] as YAML, for people.
    #[must_use]
    pub fn masked_yaml(&self) -> String {
        yaml::write(&self.to_json())
    }

    fn read(root: &Node, faults: &mut Faults) -> Self {
        let mut config = Self::default();
        let mut fields = root.fields(faults);
        config.public_url = fields
            .take("publicUrl")
            .and_then(|node| PublicUrl::read(node, faults));
        if let Some(node) = fields.take("listeners") {
            config.listeners = listener::read(node, faults);
        }
        let store = fields.take("store");
        if let Some(node) = store {
            config.store = StoreConfig::read(node, faults);
        }
        config.read_gateway(&mut fields, faults);
        config.read_grants(&mut fields, faults);
        config.store.judge(store.unwrap_or(root), &config, faults);
        if let Some(node) = fields.take("compat") {
            config.compat = CompatConfig::read(node, faults);
            if let Some(gestalt) = &config.compat.gestalt {
                gestalt.judge(node, &config, faults);
            }
        }
        fields.finish(faults);
        config
    }

    /// Sections about the gateway itself.
    fn read_gateway(&mut self, fields: &mut Fields<'_>, faults: &mut Faults) {
        if let Some(node) = fields.take("tls") {
            self.tls = TlsConfig::read(node, faults);
        }
        if let Some(node) = fields.take("dns") {
            self.dns = DnsConfig::read(node, faults);
        }
        if let Some(node) = fields.take("upstreamProxy") {
            self.upstream_proxy = UpstreamProxyConfig::read(node, faults);
        }
        if let Some(node) = fields.take("keys") {
            self.keys = KeysConfig::read(node, faults);
        }
        if let Some(node) = fields.take("quotas") {
            self.quotas = QuotaConfig::read(node, faults);
        }
        if let Some(node) = fields.take("limits") {
            self.limits = LimitsConfig::read(node, faults);
        }
        if let Some(node) = fields.take("admin") {
            self.admin = AdminConfig::read(node, faults);
        }
        if let Some(node) = fields.take("probe") {
            self.probe = ProbeConfig::read(node, faults);
        }
        if let Some(node) = fields.take("telemetry") {
            self.telemetry = TelemetryConfig::read(node, faults);
        }
    }

    /// Sections about what sessions may reach.
    fn read_grants(&mut self, fields: &mut Fields<'_>, faults: &mut Faults) {
        if let Some(node) = fields.take("egress") {
            self.egress = EgressDocument::read(node, faults);
        }
        if let Some(node) = fields.take("services") {
            self.services = capability::read_services(node, faults);
        }
        if let Some(node) = fields.take("capabilities") {
            self.capabilities = named(node, faults, CapabilityConfig::read);
        }
        let Some(node) = fields.take("runtime") else {
            return;
        };
        let mut fields = node.fields(faults);
        if let Some(node) = fields.take("providers") {
            let providers = named(node, faults, ProviderConfig::read);
            judge_defaults(node, &providers, faults);
            if !providers.is_empty() {
                self.providers = providers;
            }
        }
        fields.finish(faults);
    }

    /// Compile what can be compiled before any session exists, so that a bad entry stops the start, not a session.
    fn compile_grants(&self, faults: &mut Faults) {
        let mut found = Faults::default();
        for provider in self.providers.values() {
            self.base_grant(provider)
                .compile(&provider.ceiling.bound, &mut found);
        }
        let known = GrantDocument {
            services: self.services.clone(),
            ..GrantDocument::default()
        };
        known.compile(&Ceiling::default(), &mut found);
        for capability in self.capabilities.values() {
            // A capability is good if some provider's sessions can have it.
            let own = self.with_known_services(&capability.grant);
            let attempts = self.providers.values().map(|provider| {
                let mut attempt = Faults::default();
                self.base_grant(provider)
                    .lay(&own, Origin::Capability)
                    .compile(&provider.ceiling.bound, &mut attempt);
                attempt
            });
            let best = attempts.min_by_key(|attempt| attempt.errors.len());
            found.append(best.unwrap_or_default());
        }
        // The top-level egress is compiled once per provider: the same fault is told once.
        let mut once = Faults::default();
        for error in found.errors {
            if !once.errors.contains(&error) {
                once.errors.push(error);
            }
        }
        for warning in found.warnings {
            if !faults.warnings.contains(&warning) && !once.warnings.contains(&warning) {
                once.warnings.push(warning);
            }
        }
        faults.append(once);
    }
}

/// Entries by name: `[a-z0-9][a-z0-9._-]{0,62}`, as they stand in paths of the admin API.
fn named<T>(
    node: &Node,
    faults: &mut Faults,
    entry: impl Fn(&Node, &mut Faults) -> T,
) -> BTreeMap<String, T> {
    let mut entries = BTreeMap::new();
    for (name, node) in node.entries(faults) {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let well_formed = name.len() <= 63
            && name.bytes().next().is_some_and(letter)
            && name
                .bytes()
                .all(|b| letter(b) || matches!(b, b'.' | b'_' | b'-'));
        if !well_formed {
            let hint = "lower-case letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit";
            faults.error_hint(&node.key_place(), format!("{name:?} is not a name"), hint);
        }
        entries.insert(name.clone(), entry(node, faults));
    }
    entries
}

/// At most one provider is the default.
fn judge_defaults(node: &Node, providers: &BTreeMap<String, ProviderConfig>, faults: &mut Faults) {
    let marked: Vec<&str> = providers
        .iter()
        .filter(|(_, provider)| provider.default)
        .map(|(name, _)| name.as_str())
        .collect();
    if marked.len() > 1 {
        faults.error(
            node.place(),
            format!("more than one default provider: {}", marked.join(", ")),
        );
    }
}
