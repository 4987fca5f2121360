//! The one way out: every front brings a session and a target here.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use sluicegate_policy::{
    AddressPermit, Admission, Denial, Grant, Host, MixedAnswers, Refusal, Target, TargetPermit,
    admit, admit_one, decide_at,
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    DialError, Reached, Upstream, UpstreamProxy,
    dial::{Dialled, Dialler},
    resolve::{MOST_ANSWERS, Resolver},
};
use crate::{interfaces, session::PolicyGeneration, telemetry::Recorder};

/// How long things may take, how large a head may be, and how many dials one session may have under way. Zero means no limit where it says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// A request's head, from its first byte (and the first head from the connection's start).
    pub head: Duration,
    /// A tunnel's first bytes.
    pub first_bytes: Duration,
    /// All connection attempts together.
    pub dial: Duration,
    /// Silence both ways; zero = no limit.
    pub idle: Duration,
    /// From a request sent to its answer's head; zero = no limit.
    pub response: Duration,
    /// Bytes of a request's head (HTTP/1).
    pub max_head: usize,
    /// Opens of one session whose dial has not ended.
    pub pending_opens: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            first_bytes: Duration::from_secs(10),
            dial: Duration::from_secs(10),
            idle: Duration::from_secs(600),
            response: Duration::ZERO,
            max_head: crate::sniff::MAX_HEAD,
            pending_opens: 1024,
        }
    }
}

/// An upstream that is open.
#[derive(Debug)]
pub struct Opened {
    /// The connection.
    pub stream: Upstream,
    /// Where it leads.
    pub reached: Reached,
}

/// What was dialled, here or by the operator's proxy.
struct Leads {
    stream: Upstream,
    address: SocketAddr,
    /// As in [`Dialled`].
    here: bool,
}

/// Decides, resolves, admits and dials.
#[derive(Debug)]
pub struct Egress {
    /// Names to addresses.
    pub resolver: Resolver,
    /// What is ours, and how answers are judged.
    pub admission: Arc<Admission>,
    /// Limits in time.
    pub timeouts: Timeouts,
    /// The operator's own proxy, which then is the way out.
    pub proxy: Option<Arc<UpstreamProxy>>,
}

impl Egress {
    /// May this session's policy reach `target`? Recorded either way.
    ///
    /// # Errors
    /// The refusal.
    pub fn decide(
        &self,
        policy: &Arc<PolicyGeneration>,
        target: &Target,
        recorder: &mut Recorder,
    ) -> Result<TargetPermit, Refusal> {
        let permit = decide_at(&policy.grant, target, &self.admission)?;
        recorder.rule(permit.rule());
        if let Some(reported) = permit.reported() {
            recorder.would_refuse(reported.denial);
        }
        Ok(permit)
    }

    /// The same way out for the gateway's own requests, which are no tunnels: resolve, admit and dial.
    ///
    /// # Errors
    /// Why not, in words for an operator.
    pub async fn dial(&self, grant: &Grant, permit: &TargetPermit) -> Result<TcpStream, String> {
        let resolved = self.resolver.resolve(permit).await;
        let resolved =
            resolved.map_err(|(denial, detail)| format!("{}: {detail}", denial.reason()))?;
        interfaces::refresh(&self.admission.own.interfaces, &resolved.addresses).await;
        let refused = |refusal: Refusal| refusal.denial.reason().to_owned();
        let permits = self.admit(grant, permit, &resolved.addresses);
        let permits = permits.map_err(refused)?;
        let dialler = Dialler {
            timeout: self.timeouts.dial,
        };
        let dialled = dialler.dial(&permits).await;
        let dialled = dialled.map_err(|error| error.to_string())?;
        if dialled.here {
            self.hold_own(grant, permit, dialled.address.ip())
                .map_err(refused)?;
        }
        Ok(dialled.stream)
    }

    /// Judge all answers, and those that are dialled once more where a route leads to this host.
    fn admit(
        &self,
        grant: &Grant,
        permit: &TargetPermit,
        answers: &[IpAddr],
    ) -> Result<Vec<AddressPermit>, Refusal> {
        let mut permits = admit(grant, permit, answers, &self.admission)?;
        permits.truncate(MOST_ANSWERS);
        let mut refused = None;
        permits.retain(|one| {
            let address = one.address().ip();
            if !interfaces::is_here(&self.admission.own.interfaces, address) {
                return true;
            }
            let held = self.hold_own(grant, permit, address);
            let admitted = held.is_ok();
            refused = refused.take().or(held.err());
            admitted
        });
        match refused {
            Some(refusal) if permits.is_empty() || self.admission.mixed == MixedAnswers::Refuse => {
                Err(refusal)
            }
            _ => Ok(permits),
        }
    }

    /// An address leads to this host, and was judged before that was known: judged once more, as one of the host's own.
    fn hold_own(
        &self,
        grant: &Grant,
        permit: &TargetPermit,
        address: IpAddr,
    ) -> Result<(), Refusal> {
        self.admission.own.interfaces.found(address);
        // Where too many were found it is on no list.
        let admission = self.admission.with_own(address);
        admit_one(grant, permit, address, &admission).map(drop)
    }

    /// Resolve, admit and dial a permitted target: one resolution, and only judged addresses are dialled.
    ///
    /// # Errors
    /// The refusal; the resolver's and the kernel's own words go to the record only.
    pub async fn open(
        &self,
        policy: &PolicyGeneration,
        permit: &TargetPermit,
        recorder: &mut Recorder,
    ) -> Result<Opened, Refusal> {
        let resolved = self
            .resolver
            .resolve(permit)
            .await
            .map_err(|(denial, detail)| {
                recorder.detail(detail);
                Refusal::from(denial)
            })?;
        let chain =
            (!resolved.chain.is_empty()).then(|| format!("via {}", resolved.chain.join(", ")));
        if let Some(chain) = &chain {
            recorder.detail(chain);
        }
        let answered = |recorder: &mut Recorder| {
            if matches!(permit.target().host(), Host::Name(_)) {
                let some = resolved.addresses.iter().take(MOST_ANSWERS);
                recorder.answers(some.copied().collect());
            }
        };
        interfaces::refresh(&self.admission.own.interfaces, &resolved.addresses).await;
        let permits = self.admit(&policy.grant, permit, &resolved.addresses);
        let permits = permits.inspect_err(|_| answered(recorder))?;
        let proxy = self.proxy.as_ref();
        let proxy = proxy.filter(|proxy| !proxy.bypassed(permit.target(), &permits));
        if let Some(proxy) = proxy {
            let through = format!("through the upstream proxy at {}", proxy.target);
            let known = chain.into_iter().chain([through]).collect::<Vec<_>>();
            recorder.detail(known.join("; "));
        }
        let leads = self.reach(permit.target(), &permits, proxy.map(Arc::as_ref));
        match leads.await {
            Ok(Leads {
                stream,
                address,
                here,
            }) => {
                if here {
                    self.hold_own(&policy.grant, permit, address.ip())
                        .inspect_err(|_| answered(recorder))?;
                }
                recorder.address(address);
                recorder.opened();
                let by = proxy.cloned();
                Ok(Opened {
                    stream,
                    reached: Reached { address, by },
                })
            }
            Err(error) => {
                recorder.detail(error.detail);
                Err(error.denial.into())
            }
        }
    }

    /// Dial the judged addresses, or have the operator's proxy do it. Where it does not, nobody does.
    async fn reach(
        &self,
        target: &Target,
        permits: &[AddressPermit],
        proxy: Option<&UpstreamProxy>,
    ) -> Result<Leads, DialError> {
        let Some(proxy) = proxy else {
            let dialler = Dialler {
                timeout: self.timeouts.dial,
            };
            let Dialled {
                stream,
                address,
                here,
            } = dialler.dial(permits).await?;
            return Ok(Leads {
                stream: stream.into(),
                address,
                here,
            });
        };
        let opened = timeout(self.timeouts.dial, proxy.open(self, target, permits)).await;
        let (stream, address) = opened.unwrap_or_else(|_| {
            Err(DialError {
                denial: Denial::ConnectTimeout,
                detail: "upstream proxy: no answer in time".to_owned(),
            })
        })?;
        Ok(Leads {
            stream,
            address,
            // The connection is the proxy's, which was judged as it was dialled.
            here: false,
        })
    }
}
