#![allow(clippy::unwrap_used)]

use super::decide_stream;
use crate::{
    Denial, Direction, MethodPrefix, ServiceBound, ServiceName, StreamPermit, testing::compile,
};

const SERVICES: &str = "services: {cache: 'unix:///run/c.sock', \
    s3: {url: 'tcp://127.0.0.1:2', idleTimeout: 9s, grpc: {methodPrefix: /pkg.S3}}, \
    web: {url: 'tcp://127.0.0.1:3', http: {}}}";

/// What a stream to it may carry, `bytes` or `calls`.
fn carries(name: &str, bound: Option<(&str, Option<&str>)>) -> Result<&'static str, Denial> {
    let grant = compile(SERVICES, "{}").unwrap();
    let service = |text| ServiceName::parse(text).unwrap();
    let bound = bound.map(|(name, prefix)| ServiceBound {
        name: service(name),
        method_prefix: prefix.map(|prefix| MethodPrefix::parse(prefix).unwrap()),
        direction: Direction::In,
    });
    match decide_stream(
        &grant,
        bound.as_ref().map(std::slice::from_ref),
        &service(name),
    ) {
        Ok(StreamPermit::Bytes(permit)) => {
            assert_eq!(permit.name().as_str(), name);
            Ok("bytes")
        }
        Ok(StreamPermit::Calls(permit)) => {
            assert_eq!(permit.name().as_str(), name);
            let idle = permit.idle_timeout().map(|idle| idle.as_secs());
            assert_eq!(idle, (name == "s3").then_some(9));
            Ok("calls")
        }
        Err(refusal) => Err(refusal.denial),
    }
}

#[test]
fn where_methods_are_bounded_a_stream_carries_calls_alone() {
    let all = |name| Some((name, None));
    let some = |name| Some((name, Some("/pkg")));
    for (name, bound, expected) in [
        ("cache", None, Ok("bytes")),
        ("cache", all("cache"), Ok("bytes")),
        ("cache", some("cache"), Ok("calls")),
        ("cache", all("s3"), Err(Denial::ServiceNotAllowed)),
        ("s3", None, Ok("calls")),
        ("s3", all("s3"), Ok("calls")),
        // No method is within both: each call is told so.
        ("s3", some("s3"), Ok("calls")),
        ("s3", some("cache"), Err(Denial::ServiceNotAllowed)),
        ("web", None, Ok("bytes")),
        ("web", all("web"), Ok("bytes")),
        // HTTP/1 is none of the bound's methods, and gRPC is not what `http` judges.
        ("web", some("web"), Err(Denial::ServiceMethodNotAllowed)),
        ("gone", None, Err(Denial::ServiceNotAllowed)),
        ("gone", some("gone"), Err(Denial::ServiceNotAllowed)),
    ] {
        assert_eq!(carries(name, bound), expected, "{name} {bound:?}");
    }
}
