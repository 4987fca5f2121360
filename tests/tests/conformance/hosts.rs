//! A. Host spelling.

mod names;
mod spelling;

use serde_json::json;

use crate::forms::{CONNECTS, FORMS, FORWARDS};
use crate::lab::{Lab, Shared, settings};
use crate::sandbox::Expect::{Denied, Malformed, Refused};
use crate::table::Row;

pub(crate) use names::*;
pub(crate) use spelling::*;

static LAB: Shared = Shared::new(settings);

const NOT_ALLOWED: crate::sandbox::Expect = Denied(&["host_not_allowed"]);

/// Each of these hosts, with the port that is allowed, is malformed on every front.
async fn malformed(lab: &Lab, row: &mut Row, hosts: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    let port = format!(":{}", lab.api.port());
    for host in hosts {
        let authority = [host.as_ref(), port.as_bytes()].concat();
        lab.session.refused(lab, row, authority, Malformed).await;
        let host = host.as_ref();
        // Without one nothing is asked about.
        if !host.is_empty() {
            lab.session.has_no_name(lab, row, host, Malformed).await;
        }
    }
}

/// Each of these names, with the port that is allowed, is denied on every front.
async fn denied(lab: &Lab, row: &mut Row, hosts: &[&str]) {
    let port = lab.api.port();
    for host in hosts {
        let authority = format!("{host}:{port}");
        lab.session.refused(lab, row, authority, NOT_ALLOWED).await;
        let name = host.as_bytes();
        lab.session.has_no_name(lab, row, name, NOT_ALLOWED).await;
    }
}

async fn equal(lab: &Lab, row: &mut Row, hosts: &[&str], canonical: &str) {
    let port = lab.api.port();
    for host in hosts {
        let (asked, canonical) = (format!("{host}:{port}"), format!("{canonical}:{port}"));
        lab.session
            .served(lab, row, &asked, &canonical, &lab.api)
            .await;
        lab.session.has_name(lab, row, host).await;
    }
}

/// `sluicegate check FILE`.
async fn check(file: &std::path::Path) -> e2e::program::Finished {
    let program = e2e::Program::new(e2e::program::binary("sluicegate"));
    program.arg("check").arg(file).run().await
}
