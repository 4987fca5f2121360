//! What one operation takes and answers.

use serde_json::{Map, Value, json};

/// What an answer of success is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::admin) enum Media {
    /// JSON of the schema of this name.
    Json(&'static str),
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
            Self::Json(_) => "application/json",
            Self::Text => "text/plain",
            Self::Metrics => "application/openmetrics-text",
            Self::Events => "text/event-stream",
        }
    }

    fn content(self) -> Value {
        let schema = match self {
            Self::Json(name) => reference(name),
            Self::Text | Self::Metrics | Self::Events => json!({ "type": "string" }),
        };
        json!({ self.content_type(): { "schema": schema } })
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A key of the query: its name, its schema, and what it does.
type QueryKey = (&'static str, fn() -> Value, &'static str);

/// One operation.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Operation {
    id: &'static str,
    summary: &'static str,
    /// The path in the document, where it is another than the router's.
    pub(super) path: Option<&'static str>,
    /// Needs no credential.
    open: bool,
    query: Vec<QueryKey>,
    headers: Vec<(&'static str, &'static str)>,
    body: Option<&'static str>,
    answers: Vec<(u16, Media)>,
    problems: Vec<u16>,
}

/// Every route behind the guard is also there scoped, as `namespaces/{namespace}/…`, which is this key of the query.
const NAMESPACE: (&str, &str) = ("namespace", "What is asked of one namespace only.");
/// Every route behind the guard can answer these.
const GUARDED: [u16; 5] = [400, 401, 403, 404, 406];
/// And every one that reads a body these.
const WITH_BODY: [u16; 3] = [413, 415, 422];

impl Operation {
    /// An operation with its id in the document, and what it does in a line.
    pub(in crate::admin) const fn new(id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            summary,
            path: None,
            open: false,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            answers: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Its path in the document.
    pub(in crate::admin) const fn at(mut self, path: &'static str) -> Self {
        self.path = Some(path);
        self
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
        schema: fn() -> Value,
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
    pub(super) fn object(&self, path: &str) -> Value {
        let mut object = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": self.parameters(path),
            "responses": self.responses(),
            "security": if self.open { json!([]) } else { json!([{ "adminToken": [] }]) },
        });
        if let (Some(schema), Some(fields)) = (self.body, object.as_object_mut()) {
            let schema = json!({ "schema": reference(schema) });
            fields.insert(
                "requestBody".into(),
                json!({ "content": { "application/json": schema } }),
            );
        }
        object
    }

    fn parameters(&self, path: &str) -> Vec<Value> {
        let names = path
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split_once('}'));
        let in_path = names.map(|(name, _)| {
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } })
        });
        let query = self.query.iter().map(|(name, schema, what)| {
            json!({ "name": name, "in": "query", "required": false, "schema": schema(), "description": what })
        });
        let scoped = !self.open && !self.query.iter().any(|(name, ..)| *name == NAMESPACE.0);
        let (name, what) = NAMESPACE;
        let scoped = scoped.then(|| {
            json!({ "name": name, "in": "query", "required": false, "schema": { "type": "string" }, "description": what })
        });
        let headers = self.headers.iter().map(|(name, what)| {
            json!({ "name": name, "in": "header", "required": false, "schema": { "type": "string" }, "description": what })
        });
        in_path.chain(query).chain(scoped).chain(headers).collect()
    }

    fn responses(&self) -> Value {
        let mut responses = Map::new();
        for (status, media) in &self.answers {
            let answer = json!({ "description": phrase(*status), "content": media.content() });
            responses.insert(status.to_string(), answer);
        }
        let mut problems = self.problems.clone();
        if !self.open {
            problems.extend(GUARDED);
        }
        if self.has_body() {
            problems.extend(WITH_BODY);
        }
        // The Host and Origin checks stand in front of open routes too.
        problems.extend([400, 403]);
        problems.sort_unstable();
        problems.dedup();
        for status in problems {
            let content = json!({ "application/problem+json": { "schema": reference("Problem") } });
            let problem = json!({ "description": phrase(status), "content": content });
            responses.entry(status.to_string()).or_insert(problem);
        }
        responses.into()
    }
}

fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Answer")
}
