//! What the document says of answers, and answers held to it.

use std::collections::BTreeSet;

use super::*;
use crate::admin::routes;

/// An answer to a request that the document has, or to a method that it does not have: its status, and the fields of its head, are as it
/// says. No name of ours has a slash or a colon.
pub(super) fn holds(method: &Method, path: &str, answer: &Answer) {
    let fits = |route: &str| {
        let (wanted, found) = (route.split('/'), path.split('/'));
        wanted.clone().count() == found.clone().count()
            && wanted.zip(found).all(|(wanted, found)| {
                match wanted.strip_prefix('{').and_then(|w| w.split_once('}')) {
                    Some((_, action)) => found
                        .strip_suffix(action)
                        .is_some_and(|name| !name.is_empty() && !name.contains(':')),
                    None => wanted == found,
                }
            })
    };
    let paths = routes::document()["paths"].as_object().unwrap();
    let item = paths.iter().find(|(route, _)| fits(route));
    let method = method.as_str().to_ascii_lowercase();
    let operation = item.and_then(|(_, item)| item.get(&method));
    let (status, body) = (answer.status, &answer.body);
    let documented = match operation {
        Some(operation) => &operation["responses"][status.to_string()],
        None if status == 405 => &routes::document()["components"]["responses"]["MethodNotAllowed"],
        None => return,
    };
    assert!(
        documented.is_object(),
        "{method} {path} may not answer {status}: {body}"
    );
    let kind = answer.headers["content-type"].to_str().unwrap();
    let kind = kind.split(';').next().unwrap();
    assert!(
        documented["content"][kind].is_object(),
        "{method} {path} may not answer {status} as {kind}"
    );
    let fields = documented["headers"].as_object();
    let names: BTreeSet<String> = fields
        .into_iter()
        .flat_map(|fields| fields.keys().map(|name| name.to_ascii_lowercase()))
        .collect();
    let sent = answer.headers.keys().map(|name| name.as_str().to_owned());
    // What frames a body is HTTP's own, and in no document.
    let sent: BTreeSet<String> = sent
        .filter(|name| name != "content-type" && name != "content-length")
        .collect();
    assert_eq!(sent, names, "{method} {path}, {status}");
}

#[test]
fn the_document_tells_the_fields_of_every_answer() {
    let document = routes::document();
    let of = |path: &str, method: &str, status: u16| {
        let answers = &document["paths"][path][method]["responses"];
        let fields = answers[status.to_string()]["headers"].as_object();
        let fields = fields.unwrap_or_else(|| panic!("{method} {path} {status}"));
        assert!(fields.values().all(|field| field["required"] == true));
        fields.keys().cloned().collect::<BTreeSet<_>>()
    };
    let sessions = "/admin/api/v1/runtime/providers/{provider}/sessions";
    let one = format!("{sessions}/{{session}}");
    let scoped = "/admin/api/v1/namespaces/{namespace}/sessions";
    let installed = format!("{one}/capabilities/{{capability}}");
    for (path, method, status, fields) in [
        (
            sessions,
            "post",
            201,
            &["Cache-Control", "ETag", "Location"][..],
        ),
        (
            sessions,
            "post",
            202,
            &["Cache-Control", "ETag", "Location"][..],
        ),
        (sessions, "post", 200, &["Cache-Control", "ETag"][..]),
        (sessions, "post", 429, &["Cache-Control"][..]),
        (sessions, "get", 200, &["Cache-Control"][..]),
        (&one, "get", 200, &["Cache-Control", "ETag"][..]),
        (&one, "patch", 412, &["Cache-Control"][..]),
        (&one, "delete", 503, &["Cache-Control", "Retry-After"][..]),
        (&installed, "post", 201, &["Cache-Control", "ETag"][..]),
        (
            scoped,
            "get",
            401,
            &["Cache-Control", "WWW-Authenticate"][..],
        ),
        ("/admin/api/v1/events", "get", 200, &["Cache-Control"][..]),
    ] {
        let fields: BTreeSet<String> = fields.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(of(path, method, status), fields, "{method} {path} {status}");
    }
}

#[test]
fn a_method_that_a_path_does_not_have_is_in_the_document() {
    let answer = &routes::document()["components"]["responses"]["MethodNotAllowed"];
    let fields = answer["headers"].as_object().unwrap();
    let names: Vec<_> = fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["Allow", "Cache-Control"]);
    assert!(fields.values().all(|field| field["required"] == true));
    let kind = &answer["content"]["application/problem+json"];
    assert_eq!(kind["schema"]["$ref"], "#/components/schemas/Problem");
}

#[test]
fn what_cannot_be_answered_is_not_in_the_document() {
    let document = routes::document();
    let answers = |path: &str, method: &str| -> Vec<String> {
        let path = format!("/admin/api/v1/{path}");
        let answers = document["paths"][path][method]["responses"].as_object();
        answers.unwrap().keys().cloned().collect()
    };
    let one = "runtime/providers/{provider}/sessions/{session}";
    for (path, method, never) in [
        (format!("{one}:stop"), "post", "202"),
        (format!("{one}:stop"), "post", "409"),
        (format!("{one}:observe"), "post", "409"),
        (
            format!("{one}/capabilities/{{capability}}:enable"),
            "post",
            "201",
        ),
        (format!("{one}/logs"), "post", "409"),
        ("keys".to_owned(), "get", "404"),
    ] {
        let answers = answers(&path, method);
        assert!(!answers.contains(&never.to_owned()), "{path}: {answers:?}");
    }
    let refused = answers("namespaces/{namespace}/keys", "get");
    assert_eq!(refused, ["401", "403", "404"]);
}
