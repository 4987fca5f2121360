#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn methods_and_paths() {
    let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
    let rule = HttpRule {
        methods: list(&["GET", "HEAD"]),
        path_prefixes: list(&["/v1", "/docs/"]),
    };
    for (method, path, expected) in [
        ("GET", "/v1", Ok(())),
        ("GET", "/v1?q=../x", Ok(())),
        ("HEAD", "/v1/a%20b/c", Ok(())),
        ("GET", "/docs/", Ok(())),
        ("GET", "/docs/x", Ok(())),
        ("GET", "/docs", Err(Denial::PathNotAllowed)),
        ("GET", "/v10", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/../admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%2e%2e/admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%252e%252e/admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%2Fadmin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/..;/admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1\\..\\admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1//admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%zz", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%c3%a9t%C3%A9", Ok(())),
        // No UTF-8: what it is read as, nobody can say.
        ("GET", "/v1/a%c0%ae", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%c0%ae%c0%ae/admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%c0%af", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%e0%80%af", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%c3x%a9", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%ed%a0%80", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%ff", Err(Denial::PathNotAllowed)),
        ("GET", "*", Err(Denial::PathNotAllowed)),
        ("POST", "/v1", Err(Denial::MethodNotAllowed)),
        ("get", "/v1", Err(Denial::MethodNotAllowed)),
    ] {
        assert_eq!(rule.judge(method, path), expected, "{method} {path}");
    }
    assert_eq!(HttpRule::default().judge("PURGE", "*"), Ok(()));
}
