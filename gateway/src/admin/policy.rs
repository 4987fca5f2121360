//! Questions about policy, answered by the one function that decides: explained, tested, and asked of what went by.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State as Extract},
    response::Response,
};
use http::StatusCode;
use serde_json::{Value, json};
use sluicegate_policy::{
    Host, Target, explain_supposing,
    text::{Faults, Fields, Kind, Node, Place},
};

use super::{
    Problem, State, access,
    request::{body_text, json as answer, read},
    sessions::{behalf, key},
};
use crate::{
    auth::Principal,
    interfaces,
    session::{AskedGrant, RegistryError},
    trial::{Difference, Expectation, Policy, Tried, read_values, supposed, tried_to_json},
};

/// Decisions of one request: a target is one, and so is each address it may lead to, and each other request it may be read as.
const MOST_DECISIONS: usize = 10_000;
/// Requests whose decisions are made at once.
const AT_ONCE: usize = 2;

/// The places of those who try policies out, few: decisions are work, and sessions come first. Whose they are: no credential has two,
/// and those that are bounded leave one to those that are not. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Trials(Arc<Mutex<Vec<Arc<Principal>>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
struct Held {
    trials: Trials,
    whose: Arc<Principal>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let whose = &self.whose.name;
        self.trials.held().retain(|other| other.name != *whose);
    }
}

impl Trials {
    fn held(&self) -> MutexGuard<'_, Vec<Arc<Principal>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for one: whoever holds them could keep out everybody else for as long as they like.
    fn place(&self, whose: &Arc<Principal>) -> Result<Held, Problem> {
        let mut held = self.held();
        let bounded = held.iter().filter(|other| other.is_bounded()).count();
        if held.iter().any(|other| other.name == whose.name)
            || held.len() >= AT_ONCE
            || (whose.is_bounded() && bounded + 1 >= AT_ONCE)
        {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let detail =
                "a request of this kind is under way, this credential's or others': ask again";
            return Err(Problem::new(status, "busy", detail));
        }
        held.push(whose.clone());
        drop(held);
        Ok(Held {
            trials: self.clone(),
            whose: whose.clone(),
        })
    }

    /// Read, compile and decide away from the threads that carry traffic.
    async fn apart(
        &self,
        whose: &Arc<Principal>,
        work: impl FnOnce() -> Result<Value, Problem> + Send + 'static,
    ) -> Result<Value, Problem> {
        let place = self.place(whose)?;
        let done = tokio::task::spawn_blocking(move || {
            // Whoever asked may go away: the place is free when the work is done.
            let _place = place;
            work()
        });
        done.await
            .map_err(|_| Problem::from(RegistryError::Interrupted))?
    }
}

/// Who asks, and what.
type Scope = (
    Extract<State>,
    Extension<Arc<Principal>>,
    Query<HashMap<String, String>>,
);

/// A policy tried out: a body that says whose, and has under `key` what is held against it, which `items` reads with how many
/// decisions that takes.
async fn tried<T>(
    (Extract(state), Extension(principal), Query(query)): Scope,
    body: Body,
    key: &'static str,
    items: impl FnOnce(&Node, &mut Faults) -> (T, usize) + Send + 'static,
    work: impl FnOnce(&Policy, T) -> Value + Send + 'static,
) -> Result<Response, Problem> {
    let text = body_text(body).await?;
    let (trials, whose) = (state.trials.clone(), principal.clone());
    let told = trials.apart(&whose, move || {
        let (about, items) = read(&text, |fields, faults| {
            let node = fields.require(key, faults);
            let (items, decisions) = node.map(|node| items(node, faults)).unzip();
            bounded(node, decisions.unwrap_or_default(), faults);
            Some((About::take(fields, faults), items?))
        })?;
        let policy = about.policy(&state, &principal, &query)?;
        Ok(work(&policy, items))
    });
    Ok(answer(StatusCode::OK, &told.await?))
}

/// Whose policy is asked about: a session's, or that of one that would ask for this.
struct About {
    provider: Option<String>,
    namespace: Option<String>,
    session: Option<String>,
    asked: AskedGrant,
}

impl About {
    /// `provider`, `namespace`, and `session` or what a create would ask for.
    fn take(fields: &mut Fields<'_>, faults: &mut Faults) -> Self {
        let mut word = |key, faults: &mut Faults| {
            fields
                .take(key)
                .and_then(|node: &Node| node.scalar(faults))
                .map(str::to_owned)
        };
        let provider = word("provider", faults);
        let namespace = word("namespace", faults);
        let session = word("session", faults);
        let asked = AskedGrant::take(fields, faults);
        if session.is_some() && asked != AskedGrant::default() {
            let message =
                "the session has its own grant: either session, or what one would ask for";
            faults.error(&Place::default(), message);
        }
        Self {
            provider,
            namespace,
            session,
            asked,
        }
    }

    /// The policy, where the principal may know it.
    fn policy(
        &self,
        state: &State,
        principal: &Principal,
        query: &HashMap<String, String>,
    ) -> Result<Policy, Problem> {
        let default = || state.registry.config().default_provider.clone();
        let provider = self.provider.clone().unwrap_or_else(default);
        let grant = match &self.session {
            Some(session) => {
                let namespace = namespace(query, self.namespace.as_deref(), principal)?;
                let key = key(Some(namespace), &provider, session);
                access::touches(state, principal, &key)?;
                state.registry.grant_in_force(&key)?
            }
            None => state
                .registry
                .grant_asked(&behalf(principal), &provider, &self.asked)?,
        };
        Ok(Policy {
            grant,
            admission: (state.admission)(),
        })
    }
}

/// Which namespace is meant: that of the path or the query, of the body, else the principal's own.
fn namespace<'q>(
    query: &'q HashMap<String, String>,
    written: Option<&'q str>,
    principal: &'q Principal,
) -> Result<&'q str, Problem> {
    if let Some(unseen) = written.filter(|written| !principal.sees(written)) {
        return Err(access::unknown_namespace(unseen));
    }
    match (query.get("namespace").map(String::as_str), written) {
        (Some(scoped), Some(written)) if scoped != written => {
            let detail = format!("the path says namespace {scoped:?}, the body {written:?}");
            let status = StatusCode::BAD_REQUEST;
            Err(Problem::new(status, "two-namespaces", detail))
        }
        (Some(named), _) | (None, Some(named)) => Ok(named),
        (None, None) => Ok(principal.home()),
    }
}

/// `POST policy:explain` `{provider?, namespace?, session? | grant of a create, target, addresses?, method?, path?, fields?, began?}`;
/// a target without port means 443.
pub(super) async fn explain(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<HashMap<String, String>>,
    body: Body,
) -> Result<Response, Problem> {
    let text = body_text(body).await?;
    let (about, target, supposed) = read(&text, |fields, faults| {
        let target = fields.require("target", faults).and_then(|node| {
            let text = node.scalar(faults)?;
            match Target::from_uri_authority(text, 443) {
                Ok(target) => Some(target),
                Err(error) => {
                    faults.error_hint(node.place(), error.to_string(), "HOST or HOST:PORT");
                    None
                }
            }
        });
        let supposed = supposed(fields, faults);
        let about = About::take(fields, faults);
        Some((about, target?, supposed))
    })?;
    let policy = about.policy(&state, &principal, &query)?;
    let literal = match target.host() {
        Host::Ip(address) => Some(*address),
        Host::Name(_) => None,
    };
    // As before a dial: the list may lack what a route brings.
    let own = &policy.admission.own.interfaces;
    for address in supposed.addresses.iter().flatten().copied().chain(literal) {
        if interfaces::is_here(own, address) {
            own.found(address);
        }
    }
    let explanation = explain_supposing(&policy.grant, &target, &policy.admission, &supposed);
    Ok(answer(StatusCode::OK, &json!(explanation)))
}

/// `POST policy:test` `{provider?, namespace?, session? | grant of a create, tests}`: expectations, as in a suite of
/// `sluicegate policy test`.
pub(super) async fn test(scope: Scope, body: Body) -> Result<Response, Problem> {
    let tests = |node: &Node, faults: &mut Faults| {
        let tests = Expectation::read_all(node, faults);
        let decisions: usize = tests.iter().map(Expectation::decisions).sum();
        (tests, decisions)
    };
    let hold = |policy: &Policy, tests: Vec<Expectation>| {
        let tried: Vec<Tried<'_>> = tests.iter().map(|one| Tried::of(policy, one)).collect();
        tried_to_json(&tried)
    };
    tried(scope, body, "tests", tests, hold).await
}

/// `POST policy:replay` `{provider?, namespace?, session? | grant of a create, records}`: access records, as they were written,
/// decided again.
pub(super) async fn replay(scope: Scope, body: Body) -> Result<Response, Problem> {
    let records = |node: &Node, faults: &mut Faults| {
        let records: Vec<Value> = node.list(faults).iter().map(plain).collect();
        let decisions: usize = records.iter().map(decisions).sum();
        (records, decisions)
    };
    let again = |policy: &Policy, records: Vec<Value>| {
        let mut difference = Difference::default();
        let passed = read_values(records, |seen| difference.add(policy, &seen));
        difference.passed_over(passed);
        difference.to_json()
    };
    tried(scope, body, "records", records, again).await
}

/// A fault where there is more to decide than one request may ask for.
fn bounded(node: Option<&Node>, decisions: usize, faults: &mut Faults) {
    if let (Some(node), true) = (node, decisions > MOST_DECISIONS) {
        let message =
            format!("more than {MOST_DECISIONS} targets, addresses and requests to decide");
        faults.error_hint(node.place(), message, "ask in several requests");
    }
}

/// A record takes one for its target, one for each address, and one for each other request it may be read as.
fn decisions(record: &Value) -> usize {
    let count = |key: &str| {
        record
            .get(key)
            .and_then(Value::as_array)
            .map_or(0, Vec::len)
    };
    1 + count("answers") + count("alsoReadAs")
}

/// A record as it was written: all that is read of one is text, and counts.
fn plain(node: &Node) -> Value {
    match node.kind() {
        Kind::Null | Kind::Broken => Value::Null,
        // Text stands in quotes.
        Kind::Scalar { text, plain } => match serde_json::from_str(text) {
            Ok(value @ (Value::Bool(_) | Value::Number(_))) if *plain => value,
            _ => text.as_str().into(),
        },
        Kind::List(items) => items.iter().map(plain).collect(),
        Kind::Map(entries) => {
            let entries = entries
                .iter()
                .map(|(key, value)| (key.clone(), plain(value)));
            Value::Object(entries.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[tokio::test]
    async fn who_finds_no_place_is_told_to_ask_again() {
        let trials = Trials::default();
        let who = |name: &str, namespaces: Option<Vec<String>>| {
            Arc::new(Principal {
                name: name.into(),
                namespaces: namespaces.map(Arc::from),
                ..Principal::operator()
            })
        };
        let [operator, another] = ["operator", "another"].map(|name| who(name, None));
        let tenants = ["one", "two"].map(|name| who(name, Some(vec![name.to_owned()])));
        let told = async |whose: &Arc<Principal>| {
            let told = trials.apart(whose, || Ok(json!(1))).await;
            told.unwrap_or_else(|refused| refused.to_json()["status"].clone())
        };
        let held = trials.place(&tenants[0]).unwrap();
        for late in &tenants {
            assert_eq!(told(late).await, 503, "{late:?}");
        }
        let ours = trials.place(&operator).unwrap();
        for late in [&operator, &another] {
            assert_eq!(told(late).await, 503, "{late:?}");
        }
        drop(held);
        assert_eq!(told(&operator).await, 503, "it has one");
        for next in [&another, &tenants[1]] {
            assert_eq!(told(next).await, 1, "{next:?}");
        }
        drop(ours);
        assert_eq!(told(&operator).await, 1);
    }
}
