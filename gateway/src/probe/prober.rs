//! The task behind effective profiles: runs now and then, and when asked, one at a time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use sluicegate_policy::{
    Circumstances, Misplacement, Mode, Profile, Proof, Shortfall, Workload, settled,
    settled_placement,
};
use tokio::sync::Notify;

use super::{
    agent::{self, AgentError, Reported, Turn},
    check::Finding,
    memory::{Memory, tracks_of},
    plan::{Maker, Plan},
    proof::Tracks,
    report::{self, Published},
    run::{self, Credentials, Found},
    track::{Last, Track},
    untold::{self, Change},
};
use crate::{
    auth::MintError,
    clock::unix_seconds,
    drain::{DrainWatch, Stage},
    relay::Presence,
    session::{OwnSession, ProviderConfig, Registry},
    telemetry::Telemetry,
};

/// Runs in a row where something is about to change: so many agreeing findings change it.
const IN_A_ROW: u32 = 3;
/// Between runs while something is not known yet.
const SOON: Duration = Duration::from_secs(1);
/// A session of the probe outlives its run's deadlines by far.
const CREDENTIAL_LIFE: Duration = Duration::from_secs(120);

/// What was done for whoever asked for a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probed {
    /// Runs that began after it was asked for.
    pub runs: u32,
    /// Nothing is about to change any more: all that was found has the findings that it takes.
    pub settled: bool,
}

/// Proves relay and proxy, and says what follows for each provider.
#[derive(Debug)]
pub struct Prober {
    registry: Arc<Registry>,
    telemetry: Telemetry,
    presence: Arc<Presence>,
    plan: ArcSwap<Plan>,
    memory: Mutex<Memory>,
    /// Held over a run.
    turn: tokio::sync::Mutex<()>,
    /// Runs begun so far.
    begun: AtomicU64,
    replaced: Notify,
    /// The run of an agent, one at a time.
    lent: Mutex<Option<Turn>>,
}

/// Between runs made because somebody asked, where they may overturn what is established.
const APART: Duration = Duration::from_secs(1);

impl Prober {
    /// Nothing is known yet.
    pub fn new(
        registry: Arc<Registry>,
        telemetry: Telemetry,
        presence: Arc<Presence>,
        plan: Plan,
    ) -> Arc<Self> {
        let memory = Memory {
            tracks: tracks_of(&plan, Tracks::new()),
            granted: plan.asked.by_provider.clone(),
            ..Memory::default()
        };
        Arc::new(Self {
            registry,
            telemetry,
            presence,
            plan: ArcSwap::from_pointee(plan),
            memory: Mutex::new(memory),
            turn: tokio::sync::Mutex::default(),
            begun: AtomicU64::new(0),
            replaced: Notify::new(),
            lent: Mutex::default(),
        })
    }

    /// Go on with another configuration: what is known of checks that both make stays known.
    pub fn replace(&self, plan: Plan) {
        let mut memory = self.memory();
        memory.tracks = tracks_of(&plan, std::mem::take(&mut memory.tracks));
        memory.granted.clone_from(&plan.asked.by_provider);
        drop(memory);
        self.plan.store(Arc::new(plan));
        self.replaced.notify_one();
    }

    /// Probe until the drain begins: what it would find then is the drain.
    pub async fn run(self: Arc<Self>, mut drain: DrainWatch) {
        loop {
            tokio::select! {
                () = self.look() => {}
                () = drain.reached(Stage::Refusing) => return,
            }
            let wait = self.pause();
            tokio::select! {
                () = sleep(wait) => {}
                () = self.replaced.notified() => {}
                () = drain.reached(Stage::Refusing) => return,
            }
        }
    }

    /// Until the next run; absent = for ever.
    fn pause(&self) -> Option<Duration> {
        let interval = self.plan.load().interval?;
        let soon = self.is_on_its_way();
        let base = if soon { interval.min(SOON) } else { interval };
        // A tenth more or less, so that the gateways of a fleet do not probe together.
        let spread = getrandom::u32().unwrap_or(u32::MAX / 2);
        let factor = 0.9 + 0.2 * f64::from(spread) / f64::from(u32::MAX);
        Some(base.mul_f64(factor))
    }

    /// Is something not established yet that the next runs can establish? Not what agents find, and not what there is nothing to
    /// look at of, or could not be looked at: that takes its time.
    fn is_on_its_way(&self) -> bool {
        let agents = self.plan.load().from == Maker::Agent;
        let memory = self.memory();
        let mut ours = memory
            .tracks
            .iter()
            .filter(|(check, _)| !agents || check.is_inside());
        ours.any(|(_, track)| track.state().is_none() && !track.is_unasked())
    }

    /// Probe now, until nothing is about to change (three runs at most). Who asks while a run is under way shares the
    /// next one.
    pub async fn now(&self) -> Probed {
        let asked = self.begun.load(Ordering::Acquire);
        let _turn = self.turn.lock().await;
        // A whole run may have begun and ended since.
        let mut runs = u32::from(self.begun.load(Ordering::Acquire) > asked);
        while runs == 0 || (runs < IN_A_ROW && self.is_moving()) {
            // What is established is not overturned by one bad moment.
            if runs > 0 && self.overturns() {
                tokio::time::sleep(APART).await;
            }
            self.run_once().await;
            runs += 1;
        }
        Probed {
            runs,
            settled: !self.is_moving(),
        }
    }

    fn overturns(&self) -> bool {
        let overturned = |track: &Track| track.state().is_some() && track.is_moving();
        self.memory().counting().any(overturned)
    }

    fn is_moving(&self) -> bool {
        self.memory().counting().any(Track::is_moving)
    }

    async fn look(&self) {
        if self.plan.load().interval.is_some() {
            let _turn = self.turn.lock().await;
            self.run_once().await;
        }
    }

    async fn run_once(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
        let plan = self.plan.load_full();
        // The probe's own session is the agents' where those make its checks.
        let own = (plan.from == Maker::Own).then(|| self.own_session(&plan));
        let credentials = match &own {
            Some(Ok(own)) => Ok(Credentials {
                relay: own.relay.clone(),
                egress: own.egress.clone(),
            }),
            Some(Err(error)) => Err(format!("no token can be minted: {error}")),
            None => Err("agents make these checks".to_owned()),
        };
        let found = run::run(&plan, credentials).await;
        drop(own);
        self.take(found).await;
    }

    fn own_session(&self, plan: &Plan) -> Result<OwnSession, MintError> {
        let now = SystemTime::now();
        self.registry
            .own_session(plan.grant.clone(), CREDENTIAL_LIFE, now)
    }

    /// Lend an agent what it needs for one run.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn begin(&self) -> Result<Value, AgentError> {
        let plan = self.plan.load_full();
        if plan.from == Maker::Own {
            return Err(AgentError::NotAsked);
        }
        let way = plan.way.as_ref().ok_or(AgentError::NoRoad)?;
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        if lent
            .as_ref()
            .is_some_and(|turn| turn.until > Instant::now())
        {
            return Err(AgentError::Busy);
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| AgentError::Mint)?;
        let id = BASE64URL_NOPAD.encode(&id);
        // The one before ends as this one begins.
        drop(lent.take());
        let own = self.own_session(&plan).map_err(|_| AgentError::Mint)?;
        let told = agent::lent(way, &id, &own, plan.ca_pem.as_deref());
        *lent = Some(Turn {
            id,
            until: Instant::now() + agent::TURN,
            _own: own,
        });
        Ok(told)
    }

    /// Take what an agent found in the run it began.
    ///
    /// # Errors
    /// [`AgentError::NoTurn`].
    pub async fn report(&self, run: &str, found: Vec<Reported>) -> Result<(), AgentError> {
        {
            let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
            let own = lent
                .as_ref()
                .is_some_and(|turn| turn.id == run && turn.until > Instant::now());
            if !own || self.plan.load().from == Maker::Own {
                return Err(AgentError::NoTurn);
            }
            drop(lent.take());
        }
        // One at a time, as runs are.
        let _turn = self.turn.lock().await;
        self.take(Reported::into_found(found)).await;
        Ok(())
    }

    async fn take(&self, found: Found) {
        for (check, last) in &found {
            let outcome = report::outcome(&last.finding);
            self.telemetry.metrics().probe(check.label(), outcome);
        }
        let published = {
            let mut memory = self.memory();
            memory.clients.observe(self.clients());
            for (check, last) in found {
                // A check that a reload took away meanwhile is gone.
                if let Some(track) = memory.tracks.get_mut(&check) {
                    track.observe(last);
                }
            }
            let (published, changes) = self.publish(&memory);
            for change in changes {
                memory.untold.push(change);
            }
            published
        };
        // Durable before it shows, as every change is; where it cannot be, what is lost shows all the same, and is told in its turn.
        while let Some(change) = self.first_untold() {
            if !self.tell(change).await {
                break;
            }
            self.memory().untold.recorded();
        }
        self.memory().published = published;
    }

    fn first_untold(&self) -> Option<Change> {
        self.memory().untold.first()
    }

    /// Effective profiles anew. Where something is unknown, the last one known stands.
    fn publish(&self, memory: &Memory) -> (BTreeMap<String, Published>, Vec<Change>) {
        let now = unix_seconds(SystemTime::now());
        let config = self.registry.config();
        let (relay, proxy) = memory.all_proofs();
        for (path, proof) in [("relay", relay), ("proxy", proxy)] {
            if proof != Proof::Unknown {
                let proved = !matches!(proof, Proof::Unproved { .. });
                self.telemetry.metrics().proved(path, proved);
            }
        }
        let mut changes = Vec::new();
        let mut published = memory.published.clone();
        published.retain(|name, _| config.providers.contains_key(name));
        for (name, provider) in &config.providers {
            // A reload may know it before the plan does: then nothing is known of what it depends on.
            let Some((relay, proxy)) = memory.proofs(name) else {
                continue;
            };
            let Some(of) = circumstances(name, provider, relay, proxy) else {
                continue;
            };
            let Some((profile, mut shortfalls)) = settled(&of) else {
                continue;
            };
            let before = memory.published.get(name);
            date(&mut shortfalls, before, now);
            let since = match before {
                Some(before) if before.profile == profile => before.since,
                Some(_) | None => now,
            };
            if before.is_none_or(|before| before.profile != profile) {
                tracing::info!(
                    provider = %name,
                    effective = %json!(profile),
                    reason = untold::reason(&shortfalls).unwrap_or_default(),
                    "effective profile"
                );
            }
            let now = Published {
                profile,
                shortfalls,
                since,
            };
            let last = memory.untold.last(name).map(|last| json!(last));
            let last = last.or_else(|| self.registry.last_profile(name));
            if last != Some(json!(profile)) {
                changes.push(Change::to(name, &now));
            }
            published.insert(name.clone(), now);
        }
        (published, changes)
    }

    /// Do relay clients on other machines come through now?
    fn clients(&self) -> Last {
        let at = unix_seconds(SystemTime::now());
        let finding = if self.presence.proves(at) {
            Finding::Pass
        } else {
            Finding::fail(
                "no relay client on another machine has a stream open",
                "publicUrl",
            )
        };
        Last {
            finding,
            at,
            took: 0,
        }
    }

    /// Is it recorded?
    async fn tell(&self, change: Change) -> bool {
        // The last that was recorded, be it before a restart.
        let before = self.registry.last_profile(&change.provider);
        let told = change.told(before.as_ref());
        // The first that is known is no change of one, and still something that happened: `before` is null.
        let counts = told.is_some() && before.is_some();
        let (after, reason) = (json!(change.after), change.reason());
        let noted = self
            .registry
            .profile_is(change.provider, after, told, reason);
        match noted.await {
            Ok(()) => {
                if counts {
                    self.telemetry.metrics().profile_changed();
                }
                true
            }
            Err(error) => {
                tracing::error!(%error, "a change of an effective profile could not be recorded: the next run tries again");
                false
            }
        }
    }

    /// A provider's effective profile, its shortfalls and since when; `None` where it is not known yet.
    pub fn effective(&self, provider: &str) -> Option<(Profile, Vec<Shortfall>, u64)> {
        let memory = self.memory();
        let published = memory.published.get(provider)?;
        Some((
            published.profile,
            published.shortfalls.clone(),
            published.since,
        ))
    }

    /// Does the workload fit this provider? `None` where that depends on what is not known yet.
    pub fn placement(
        &self,
        provider: &ProviderConfig,
        name: &str,
        workload: &Workload,
    ) -> Option<Result<(), Misplacement>> {
        let memory = self.memory();
        if let Some(published) = memory.published.get(name) {
            return Some(sluicegate_policy::placement(&published.profile, workload));
        }
        let (relay, proxy) = memory.proofs(name)?;
        drop(memory);
        settled_placement(&circumstances(name, provider, relay, proxy)?, workload)
    }

    /// Every check that this provider's effective profile rests on, with its state, its last finding and that one's age at
    /// `now` (seconds of Unix time).
    pub fn checks(&self, provider: &str, now: u64) -> Vec<Value> {
        let memory = self.memory();
        report::checks(memory.tracks_for(provider), memory.clients(), now)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows from the configuration alone is so since it was first seen here.
fn date(shortfalls: &mut [Shortfall], before: Option<&Published>, now: u64) {
    for one in shortfalls.iter_mut().filter(|one| one.since.is_none()) {
        let same = |other: &&Shortfall| (other.field, &other.reason) == (one.field, &one.reason);
        let mut known = before.iter().flat_map(|before| &before.shortfalls);
        let known = known.find(same).and_then(|known| known.since);
        one.since = Some(known.unwrap_or(now));
    }
}

/// What this provider's effective profile depends on; `None` where it advertises nothing.
fn circumstances(
    name: &str,
    provider: &ProviderConfig,
    relay: Proof,
    proxy: Proof,
) -> Option<Circumstances> {
    let settings = format!("runtime.providers.{name}");
    // A proxy that only reports what it would refuse preserves nothing.
    let proxy = if provider.defaults.egress.mode() == Mode::Report {
        Proof::Unproved {
            reason: "egress.mode is report: what would be refused is let pass".to_owned(),
            since: 0,
            setting: format!("{settings}.egress.mode"),
        }
    } else {
        proxy
    };
    Some(Circumstances {
        settings,
        advertised: provider.advertised?,
        hostname_egress: provider.hostname_egress,
        confinement: provider.confinement,
        relay,
        proxy,
    })
}

#[cfg(test)]
impl Prober {
    /// As if a run had found this.
    pub(crate) async fn found(&self, findings: &[(super::Check, Finding)]) {
        let last = |finding: &Finding| Last {
            finding: finding.clone(),
            at: unix_seconds(SystemTime::now()),
            took: 1,
        };
        let found = findings
            .iter()
            .map(|(check, finding)| (check.clone(), last(finding)));
        self.take(found.collect()).await;
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
