//! The table of routes, and what stands in front of each.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    extract::Request,
    handler::Handler,
    middleware::{self, Next},
    response::IntoResponse,
    routing::{MethodFilter, MethodRouter, on},
};
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use utoipa::openapi::{
    Components, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, Paths,
    security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    operation::{Operation, no_such_method},
    schemas,
};
use crate::admin::{Problem, State, access, request::check_query};

/// One method of a route.
pub(in crate::admin) struct Verb {
    method: HttpMethod,
    router: MethodRouter<State>,
    operations: Vec<Operation>,
}

macro_rules! verb {
    ($name:ident, $filter:ident, $method:ident) => {
        /// This method, with what it takes and answers: one operation, or one for each path of the document it serves.
        pub(in crate::admin) fn $name<H, T>(handler: H, operations: Vec<Operation>) -> Verb
        where
            H: Handler<T, State>,
            T: 'static,
        {
            Verb::new(
                HttpMethod::$method,
                MethodFilter::$filter,
                handler,
                operations,
            )
        }
    };
}

verb!(get, GET, Get);
verb!(post, POST, Post);
verb!(patch, PATCH, Patch);
verb!(delete, DELETE, Delete);

impl Verb {
    fn new<H, T>(
        method: HttpMethod,
        filter: MethodFilter,
        handler: H,
        operations: Vec<Operation>,
    ) -> Self
    where
        H: Handler<T, State>,
        T: 'static,
    {
        let contract = Arc::new(Contract::of(&operations));
        let check = move |request: Request, next: Next| {
            let contract = contract.clone();
            async move {
                match contract.check(&request) {
                    Ok(()) => next.run(request).await,
                    Err(problem) => problem.into_response(),
                }
            }
        };
        let router = on(filter, handler).layer(middleware::from_fn(check));
        Self {
            method,
            router,
            operations,
        }
    }
}

/// What every request of a method must keep to.
struct Contract {
    /// Keys of the query by what the path ends in, where several operations are one route.
    keys: Vec<(Option<&'static str>, Vec<&'static str>)>,
    body: bool,
    types: Vec<&'static str>,
    conditional: bool,
}

impl Contract {
    fn of(operations: &[Operation]) -> Self {
        let keys = operations.iter().map(|one| (one.action(), one.keys()));
        let types: BTreeSet<_> = operations.iter().flat_map(Operation::types).collect();
        Self {
            keys: keys.collect(),
            body: operations.iter().any(Operation::has_body),
            types: types.into_iter().collect(),
            conditional: operations.iter().any(Operation::is_conditional),
        }
    }

    /// The keys that a path's query may have: its own operation's, or those of all where it names none of them.
    fn keys(&self, path: &str) -> Vec<&'static str> {
        let own = self
            .keys
            .iter()
            .find(|(action, _)| action.is_some_and(|action| path.ends_with(action)));
        if let Some((_, keys)) = own {
            return keys.clone();
        }
        let all = self.keys.iter().flat_map(|(_, keys)| keys.clone());
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        if !is_text(request.uri().path()) {
            let detail = "the path is not UTF-8 once it is percent-decoded";
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "malformed-path",
                detail,
            ));
        }
        check_query(request.uri().query(), &self.keys(request.uri().path()))?;
        let headers = request.headers();
        let changes = !request.method().is_safe();
        if changes && !self.conditional && headers.contains_key(header::IF_MATCH) {
            // Done whatever the condition says would be what its author meant to rule out (RFC 9110 §13.1.1).
            let detail = "what this changes has no ETag, and no If-Match can be held against it";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "no-etag", detail));
        }
        if self.body && !readable(headers) {
            let detail = "the body is read as application/json or application/yaml";
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                detail,
            ));
        }
        if !self.types.is_empty() && !acceptable(headers, &self.types) {
            let detail = format!("this is answered as {}", self.types.join(" or "));
            return Err(Problem::new(
                StatusCode::NOT_ACCEPTABLE,
                "not-acceptable",
                detail,
            ));
        }
        Ok(())
    }
}

/// UTF-8, once it is percent-decoded (RFC 3986 §2.1)? A stray `%` stands for itself.
fn is_text(path: &str) -> bool {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let pair = tail.get(..2).and_then(|pair| str::from_utf8(pair).ok());
        let byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (first, byte, tail.get(2..)) {
            (b'%', Some(byte), Some(after)) => {
                bytes.push(byte);
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).is_ok()
}

/// JSON or YAML; a body without a type is taken for one of them.
fn readable(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_TYPE).iter().all(|value| {
        let Ok(text) = value.to_str() else {
            return false;
        };
        let kind = text.split(';').next().unwrap_or_default().trim();
        let kind = kind.to_ascii_lowercase();
        matches!(
            kind.as_str(),
            "application/json" | "application/yaml" | "application/x-yaml" | "text/yaml"
        ) || (kind.starts_with("application/") && kind.ends_with("+json"))
    })
}

/// Does the client take one of these types (RFC 9110 §12.5.1)? Without the field it takes anything.
fn acceptable(headers: &HeaderMap, types: &[&str]) -> bool {
    let mut ranges = headers
        .get_all(header::ACCEPT)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(|range| range.trim().to_ascii_lowercase())
        .filter(|range| !range.is_empty())
        .peekable();
    if ranges.peek().is_none() {
        return true;
    }
    ranges.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_owned();
        let refused = parts.any(|part| {
            part.strip_prefix("q=")
                .is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0))
        });
        let wide = kind.strip_suffix("/*").unwrap_or_default();
        let takes = |own: &&str| {
            kind == "*/*"
                || kind == **own
                || (!wide.is_empty() && own.split('/').next() == Some(wide))
        };
        !refused && types.iter().any(takes)
    })
}

/// Routes, or the document of them.
pub(in crate::admin) struct Api {
    router: Router<State>,
    /// Only where the document is wanted: it takes megabytes to make.
    paths: Option<Paths>,
}

impl Api {
    /// For [`Self::routes`].
    pub(in crate::admin) fn served() -> Self {
        Self {
            router: Router::new(),
            paths: None,
        }
    }

    /// For [`Self::document`].
    pub(in crate::admin) fn documented() -> Self {
        Self {
            router: Router::new(),
            paths: Some(Paths::new()),
        }
    }

    /// A path with its methods.
    pub(in crate::admin) fn route(mut self, path: &str, verbs: Vec<Verb>) -> Self {
        let mut methods = MethodRouter::new();
        for verb in verbs {
            for operation in &verb.operations {
                let Some(paths) = &mut self.paths else { break };
                let path = operation.path.unwrap_or(path);
                let mut describe = |path: &str, operation: &Operation| {
                    let object = operation.object(path);
                    paths.add_path_operation(path, vec![verb.method.clone()], object);
                };
                describe(path, operation);
                if let Some((scoped, share)) = access::scoped(path) {
                    describe(&scoped, &operation.in_namespace(share));
                }
            }
            methods = methods.merge(verb.router);
        }
        self.router = self.router.route(path, methods);
        self
    }

    /// The routes.
    pub(in crate::admin) fn routes(self) -> Router<State> {
        self.router
    }

    /// The document (OpenAPI 3.1).
    pub(in crate::admin) fn document(self) -> Value {
        let info = InfoBuilder::new()
            .title("Sluicegate admin API")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(
                "On the management listener and the unix socket of the state directory. Errors are RFC 9457 problem details. A method that a path does not have is answered as components.responses.MethodNotAllowed.",
            ))
            .license(Some(
                LicenseBuilder::new()
                    .name("Apache-2.0")
                    .identifier(Some("Apache-2.0"))
                    .build(),
            ))
            .build();
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "The admin token of the state directory, or a credential of admin.credentials.",
            ))
            .build();
        let mut components = Components::new();
        components.schemas = schemas::all()
            .map(|(name, schema)| (name.to_owned(), schema))
            .collect();
        let (name, answer) = no_such_method();
        components.responses.insert(name.to_owned(), answer);
        components.add_security_scheme("adminToken", SecurityScheme::Http(token));
        let mut document = OpenApi::new(info, self.paths.unwrap_or_default());
        document.components = Some(components);
        // What serialises to text serialises to a value.
        let mut document = serde_json::to_value(document).unwrap_or_default();
        require_fields(&mut document);
        document
    }
}

/// Fields of answers are there whenever their status is (Header Object, OpenAPI 3.1 §4.8.21): the builder has no word for it.
fn require_fields(document: &mut Value) {
    fn members(of: &mut Value) -> Vec<&mut Value> {
        let of = of.as_object_mut();
        of.into_iter().flat_map(|of| of.values_mut()).collect()
    }
    fn require<'a>(answers: impl Iterator<Item = &'a mut Value>) {
        let fields = answers
            .filter_map(|answer| answer.get_mut("headers"))
            .flat_map(members);
        for field in fields.filter_map(Value::as_object_mut) {
            field.insert("required".into(), true.into());
        }
    }
    let paths = document.get_mut("paths").map(members);
    let operations = paths.into_iter().flatten().flat_map(members);
    let answers = operations
        .filter_map(|operation| operation.get_mut("responses"))
        .flat_map(members);
    require(answers);
    let of_all = document.pointer_mut("/components/responses").map(members);
    require(of_all.into_iter().flatten());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn accept(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, text.parse().unwrap());
        headers
    }

    #[test]
    fn what_a_client_takes_is_kept_to() {
        let json = ["application/json"];
        assert!(acceptable(&HeaderMap::new(), &json));
        for takes in [
            "*/*",
            "application/*",
            "application/json",
            "text/html, application/json;q=0.1",
            "text/html,*/*;q=0.8",
        ] {
            assert!(acceptable(&accept(takes), &json), "{takes}");
        }
        for refuses in [
            "text/html",
            "application/json;q=0",
            "text/*",
            "application/xml",
        ] {
            assert!(!acceptable(&accept(refuses), &json), "{refuses}");
        }
    }

    #[test]
    fn paths_are_text() {
        for good in ["/a", "/a%20b", "/%c3%a9", "/100%", "/%zz"] {
            assert!(is_text(good), "{good}");
        }
        assert!(!is_text("/%ff") && !is_text("/a%C3"));
    }

    #[test]
    fn bodies_are_json_or_yaml() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, text.parse().unwrap());
            readable(&headers)
        };
        assert!(readable(&HeaderMap::new()));
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/yaml",
            "application/merge-patch+json",
        ] {
            assert!(of(good), "{good}");
        }
        for bad in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "text/json",
            "",
        ] {
            assert!(!of(bad), "{bad}");
        }
    }
}
