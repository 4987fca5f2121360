//! What one operation takes and answers.

use std::borrow::Cow;

use utoipa::openapi::{
    self, Content, Ref, RefOr, Required, Response, ResponseBuilder, Responses, Schema,
    header::HeaderBuilder,
    path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
    security::SecurityRequirement,
};

use super::shape;
use crate::admin::access::{self, Share};

/// What an answer of success is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::admin) enum Media {
    /// JSON of the schema of this name.
    Json(&'static str),
    /// JSON of a session, with its entity tag.
    Tagged(&'static str),
    /// Text.
    Text,
    /// OpenMetrics.
    Metrics,
    /// Server-sent events.
    Events,
}

impl Media {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Json(_) | Self::Tagged(_) => "application/json",
            Self::Text => "text/plain",
            Self::Metrics => "application/openmetrics-text",
            Self::Events => "text/event-stream",
        }
    }

    fn schema(self) -> RefOr<Schema> {
        match self {
            Self::Json(name) | Self::Tagged(name) => reference(name),
            Self::Text | Self::Metrics | Self::Events => shape::text(),
        }
    }

    /// The fields of its head.
    const fn fields(self) -> &'static [Field] {
        match self {
            Self::Json(_) | Self::Events => &[NO_STORE],
            Self::Tagged(_) => &[NO_STORE, TAG],
            Self::Text | Self::Metrics => &[],
        }
    }
}

fn reference(name: &str) -> RefOr<Schema> {
    Ref::from_schema_name(name).into()
}

/// A key of the query: its name, its schema, and what it does.
type QueryKey = (&'static str, fn() -> RefOr<Schema>, &'static str);

/// A field of an answer's head that is always there: its name, its schema, and what it says.
type Field = (&'static str, fn() -> RefOr<Schema>, &'static str);

/// RFC 9111 §5.2.2.5.
const NO_STORE: Field = (
    "Cache-Control",
    || shape::words(["no-store"]),
    "No cache keeps it.",
);
/// RFC 9110 §8.8.3.
const TAG: Field = (
    "ETag",
    || shape::matching("^\"[^\"]+\"$"),
    "The session's entity tag, for If-Match.",
);
/// RFC 9110 §10.2.2.
const PLACE: Field = (
    "Location",
    || shape::matching("^/admin/api/v1/"),
    "The path of the session.",
);
/// RFC 9110 §11.6.1.
const CHALLENGE: Field = (
    "WWW-Authenticate",
    || shape::matching("^Bearer "),
    "What is asked for: a bearer token.",
);
/// RFC 9110 §10.2.3.
const LATER: Field = (
    "Retry-After",
    shape::digits,
    "Seconds until it is worth asking again.",
);
/// RFC 9110 §10.2.1.
const ALLOWED: Field = (
    "Allow",
    || shape::matching("^[A-Z]+(, ?[A-Z]+)*$"),
    "The methods that the path has.",
);
/// Of every problem.
const OF_PROBLEM: &str = "application/problem+json";

/// One operation.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Operation {
    id: Cow<'static, str>,
    summary: &'static str,
    /// The path in the document, where it is another than the router's.
    pub(super) path: Option<&'static str>,
    /// Needs no credential.
    open: bool,
    /// Its path names a namespace.
    in_namespace: bool,
    /// It is of the gateway as a whole, and is refused before anything of the request is read.
    refused: bool,
    query: Vec<QueryKey>,
    headers: Vec<(&'static str, &'static str)>,
    body: Option<&'static str>,
    answers: Vec<(u16, Media)>,
    /// What it makes or begins is at the answer's `Location`: the statuses that say so.
    located: &'static [u16],
    problems: Vec<u16>,
}

/// Every route behind the guard is also there scoped, as `namespaces/{namespace}/…`, which is this key of the query.
const NAMESPACE: (&str, &str) = ("namespace", "What is asked of one namespace only.");
/// What changes a session takes this.
const IF_MATCH: (&str, &str) = (
    "If-Match",
    "The session's ETag the change is meant for; another one is 412.",
);
/// Every route behind the guard can answer these.
const GUARDED: [u16; 5] = [400, 401, 403, 406, 429];
/// And one that is refused whatever it is asked, these alone.
const REFUSED: [u16; 3] = [401, 403, 404];
/// And every one that reads a body these.
const WITH_BODY: [u16; 4] = [408, 413, 415, 422];

impl Operation {
    /// An operation with its id in the document, and what it does in a line.
    pub(in crate::admin) const fn new(id: &'static str, summary: &'static str) -> Self {
        Self {
            id: Cow::Borrowed(id),
            summary,
            path: None,
            open: false,
            in_namespace: false,
            refused: false,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            answers: Vec::new(),
            located: &[],
            problems: Vec::new(),
        }
    }

    /// Its path in the document.
    pub(in crate::admin) const fn at(mut self, path: &'static str) -> Self {
        self.path = Some(path);
        self
    }

    /// The same with its namespace in the path. One of which no namespace has a part reads nothing of the request, and is
    /// refused.
    pub(super) fn in_namespace(&self, share: Share) -> Self {
        let id = format!("{}InNamespace", self.id);
        let mut scoped = match share {
            Share::Part => self.clone(),
            Share::Nothing => Self {
                refused: true,
                ..Self::new("", "Refused: no namespace has a part of it")
            },
        };
        scoped.id = id.into();
        scoped.in_namespace = true;
        scoped
    }

    /// It needs no credential.
    pub(in crate::admin) const fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// A key of the query; all others are refused.
    pub(in crate::admin) fn query(
        mut self,
        name: &'static str,
        schema: fn() -> RefOr<Schema>,
        what: &'static str,
    ) -> Self {
        self.query.push((name, schema, what));
        self
    }

    /// A field of the request's head.
    pub(in crate::admin) fn header(mut self, name: &'static str, what: &'static str) -> Self {
        self.headers.push((name, what));
        self
    }

    /// The schema of its body.
    pub(in crate::admin) const fn body(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self
    }

    /// An answer of success.
    pub(in crate::admin) fn answer(mut self, status: u16, media: Media) -> Self {
        self.answers.push((status, media));
        self
    }

    /// With these statuses `Location` says where the session is.
    pub(in crate::admin) const fn located(mut self, statuses: &'static [u16]) -> Self {
        self.located = statuses;
        self
    }

    /// Further problems, by status.
    pub(in crate::admin) fn problems(mut self, statuses: &[u16]) -> Self {
        self.problems.extend_from_slice(statuses);
        self
    }

    /// The keys its query may have.
    pub(super) fn keys(&self) -> Vec<&'static str> {
        let mut keys: Vec<_> = self.query.iter().map(|(name, ..)| *name).collect();
        if !self.open && !keys.contains(&NAMESPACE.0) {
            keys.push(NAMESPACE.0);
        }
        keys
    }

    /// What its path ends in where several operations are one route: `:start`.
    pub(super) fn action(&self) -> Option<&'static str> {
        let path = self.path?;
        path.rfind("}:").and_then(|at| path.get(at + 1..))
    }

    /// Is it done only where what it changes is as the request says (RFC 9110 §13.1.1)?
    pub(super) fn is_conditional(&self) -> bool {
        let named = |(name, _): &(&str, &str)| *name == IF_MATCH.0;
        self.headers.iter().any(named)
    }

    /// It changes a session, and only the one that was meant.
    pub(in crate::admin) fn if_match(self) -> Self {
        let (name, what) = IF_MATCH;
        self.header(name, what).problems(&[412])
    }

    /// Does it read a body?
    pub(super) const fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// The types it can answer with; none where nothing is negotiated.
    pub(super) fn types(&self) -> Vec<&'static str> {
        if self.open {
            return Vec::new();
        }
        let types = self.answers.iter().map(|(_, media)| media.content_type());
        types.collect()
    }

    /// The Operation Object (OpenAPI 3.1 §4.8.10).
    pub(super) fn object(&self, path: &str) -> openapi::path::Operation {
        let security = if self.open {
            Vec::new()
        } else {
            vec![SecurityRequirement::new("adminToken", [""; 0])]
        };
        OperationBuilder::new()
            .operation_id(Some(self.id.as_ref()))
            .summary(Some(self.summary))
            .parameters(Some(self.parameters(path)))
            .request_body(self.body.map(|schema| {
                RequestBodyBuilder::new()
                    .description(Some("JSON or YAML, 1 MiB at most."))
                    .content("application/json", content(reference(schema)))
                    .build()
            }))
            .responses(self.responses(path))
            .securities(Some(security))
            .build()
    }

    fn parameters(&self, path: &str) -> Vec<Parameter> {
        let names = path
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split_once('}'));
        let in_path = names.map(|(name, _)| {
            let parameter = ParameterBuilder::new()
                .name(name)
                .schema(Some(shape::name()));
            let parameter = parameter.parameter_in(ParameterIn::Path);
            parameter.required(Required::True).build()
        });
        let optional = |name: &str, place, schema: RefOr<Schema>, what: &str| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(place)
                .required(Required::False)
                .schema(Some(schema))
                .description(Some(what))
                .build()
        };
        let query = self
            .query
            .iter()
            .filter(|(name, ..)| !(self.in_namespace && *name == NAMESPACE.0))
            .map(|(name, schema, what)| optional(name, ParameterIn::Query, schema(), what));
        let scoped = !self.open
            && !self.in_namespace
            && access::scoped(path).is_some_and(|(_, share)| share == Share::Part)
            && !self.query.iter().any(|(name, ..)| *name == NAMESPACE.0);
        let (name, what) = NAMESPACE;
        let scoped = scoped.then(|| optional(name, ParameterIn::Query, shape::text(), what));
        let headers = self
            .headers
            .iter()
            .map(|(name, what)| optional(name, ParameterIn::Header, shape::text(), what));
        in_path.chain(query).chain(scoped).chain(headers).collect()
    }

    fn responses(&self, path: &str) -> Responses {
        let mut responses = Responses::new();
        for status in self.refusals(path) {
            let problem = answer(status, OF_PROBLEM, reference("Problem"), of_problem(status));
            responses.responses.insert(status.to_string(), problem);
        }
        for (status, media) in &self.answers {
            let mut fields = media.fields().to_vec();
            fields.extend(self.located.contains(status).then_some(PLACE));
            let answer = answer(*status, media.content_type(), media.schema(), fields);
            responses.responses.insert(status.to_string(), answer);
        }
        responses
    }

    /// The statuses of its problems.
    fn refusals(&self, path: &str) -> Vec<u16> {
        if self.refused {
            return REFUSED.to_vec();
        }
        let mut problems = self.problems.clone();
        // The Host and Origin checks stand in front of open routes too, and none takes a query it does not know.
        problems.extend([400, 403]);
        if !self.open {
            problems.extend(GUARDED);
        }
        // A namespace that whoever asks does not see is not there.
        if self.in_namespace || access::scoped(path).is_some_and(|(_, share)| share == Share::Part)
        {
            problems.push(404);
        }
        if self.has_body() {
            problems.extend(WITH_BODY);
        }
        problems
    }
}

/// The answer to a method that its path does not have (RFC 9110 §15.5.6). It is of no operation, and the same for all paths.
pub(super) fn no_such_method() -> (&'static str, RefOr<Response>) {
    let problem = reference("Problem");
    let answer = answer(405, OF_PROBLEM, problem, [NO_STORE, ALLOWED]);
    ("MethodNotAllowed", answer)
}

fn content(schema: RefOr<Schema>) -> Content {
    Content::new(Some(schema))
}

fn of_problem(status: u16) -> Vec<Field> {
    let own = match status {
        401 => Some(CHALLENGE),
        503 => Some(LATER),
        _ => None,
    };
    [NO_STORE].into_iter().chain(own).collect()
}

fn answer(
    status: u16,
    kind: &str,
    schema: RefOr<Schema>,
    fields: impl IntoIterator<Item = Field>,
) -> RefOr<Response> {
    let response = ResponseBuilder::new()
        .description(phrase(status))
        .content(kind, content(schema));
    fields
        .into_iter()
        .fold(response, |response, (name, schema, what)| {
            let header = HeaderBuilder::new()
                .schema(Some(schema()))
                .description(Some(what));
            response.header(name, header.build())
        })
        .build()
        .into()
}

fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Answer")
}
