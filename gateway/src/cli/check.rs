//! Check a configuration file without a gateway: its faults, and what should be looked at.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use sluicegate_policy::{
    lint, lint_below, lint_blocks, lint_ceiling, lint_services, lint_source,
    text::{Fault, Faults},
};

use super::failure::{Failure, USAGE};
use crate::config::{Config, schema};

/// `check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The file.
    #[arg(required_unless_present = "schema")]
    file: Option<PathBuf>,
    /// Print the JSON Schema of the file and nothing else.
    #[arg(long, conflicts_with_all = ["file", "strict"])]
    schema: bool,
    /// Warnings are faults: exit with 2.
    #[arg(long)]
    strict: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let Some(file) = args.file.as_ref().filter(|_| !args.schema) else {
        say!("{:#}", schema());
        return Ok(());
    };
    let name = file.display().to_string();
    let source = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(USAGE, format!("cannot read {name}: {error}")))?;
    let (faults, masked) = judge(&source);
    let lenient = !args.strict || faults.warnings.is_empty();
    let passes = faults.is_clean() && lenient;
    if args.json {
        say!(
            "{:#}",
            json!({ "valid": faults.is_clean(), "errors": faults.errors, "warnings": faults.warnings })
        );
    } else {
        note_whole!("{}", faults.render(&masked, &name));
    }
    let (errors, warnings) = (faults.errors.len(), faults.warnings.len());
    if !passes {
        return Err(Failure::new(
            USAGE,
            format!("{name}: {errors} fault(s), {warnings} warning(s)"),
        ));
    }
    if !args.json {
        say!("{name}: valid, {warnings} warning(s)");
    }
    Ok(())
}

/// Everything there is to say about a configuration, and its text with secrets blotted out.
fn judge(source: &str) -> (Faults, String) {
    let of_text = lint_source(source);
    let mut faults = match Config::parse(source) {
        Ok((config, warnings)) => {
            let mut faults = lint_config(&config);
            faults.append(Faults {
                warnings,
                ..Faults::default()
            });
            faults
        }
        Err(mut faults) => {
            // One fault must not hide what the blocks say.
            faults.append(lint_blocks(source));
            faults
        }
    };
    faults.append(of_text.faults);
    (faults, of_text.masked)
}

/// The blocks as sessions get them: what a provider allows may be denied above it. Capabilities stand alone, for each
/// may be bound to sessions of any provider.
fn lint_config(config: &Config) -> Faults {
    let mut found = Faults::default();
    for provider in config.providers.values() {
        lint(&config.base_grant(provider).egress, &mut found);
        lint_ceiling(&provider.ceiling.bound, &mut found);
    }
    found.append(idle_denies(config));
    let ceilings = config.providers.values();
    let ceilings = ceilings.map(|provider| &provider.ceiling.bound);
    lint_services(&config.services, ceilings, &mut found);
    for capability in config.capabilities.values() {
        lint(&capability.grant.egress, &mut found);
    }
    // What stands above several providers is told once.
    let mut once: Vec<Fault> = Vec::new();
    for warning in found.warnings {
        if !once.contains(&warning) {
            once.push(warning);
        }
    }
    Faults {
        warnings: once,
        ..Faults::default()
    }
}

/// Denies that no session's names meet. What stands above several providers may have its effect in another one's.
fn idle_denies(config: &Config) -> Faults {
    let below = config.providers.values().map(|provider| {
        let mut found = Faults::default();
        let egress = config.base_grant(provider).egress;
        lint_below(&egress, &provider.ceiling.bound, &mut found);
        found.warnings
    });
    let below: Vec<Vec<Fault>> = below.collect();
    let mut idle = Faults::default();
    for warning in below.iter().flatten() {
        let shared = warning.path.starts_with("egress.");
        if !shared || below.iter().all(|found| found.contains(warning)) {
            idle.warnings.push(warning.clone());
        }
    }
    idle
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use super::*;

    fn warnings(source: &str) -> Vec<String> {
        let (faults, _) = judge(source);
        assert!(faults.is_clean(), "{faults}");
        let told = faults.warnings.iter().map(ToString::to_string);
        // What the reader itself says of sections is its own tests' concern.
        told.filter(|warning| !warning.contains("not built yet"))
            .collect()
    }

    #[test]
    fn blocks_are_judged_as_sessions_get_them_and_once() {
        let found = warnings(
            "egress:\n  deniedHosts: ['*.corp.test', 'x.corp.test']\nruntime:\n  providers:\n    a:\n      default: true\n      \
             egress: {allowedHosts: [git.corp.test]}\n    b:\n      egress: {allowedHosts: ['api.test:*'], mode: report}\n\
             capabilities:\n  c:\n    egress: {allowedHosts: ['*.d.test', e.d.test, '*.internal']}\n",
        );
        let expected = [
            ("2:32: egress.deniedHosts[1]: ", "adds nothing"),
            (
                "7:31: runtime.providers.a.egress.allowedHosts[0]: ",
                "never reached",
            ),
            (
                "9:31: runtime.providers.b.egress.allowedHosts[0]: ",
                "every port",
            ),
            ("9:52: runtime.providers.b.egress.mode: ", "report mode"),
            (
                "12:41: capabilities.c.egress.allowedHosts[1]: ",
                "adds nothing",
            ),
            (
                "12:51: capabilities.c.egress.allowedHosts[2]: ",
                "no public list",
            ),
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (warning, (place, words)) in found.iter().zip(expected) {
            assert!(
                warning.starts_with(place) && warning.contains(words),
                "{warning}"
            );
        }
    }

    #[test]
    fn sockets_are_looked_at() {
        let found = warnings(
            "services: {db: \"unix:///run/db.sock\", app: \"unix:///run/app/a.sock\"}\n\
             runtime: {providers: {p: {egress: {ceiling: {sockets: [/run/app/, /run/docker.sock]}}}}}\n",
        );
        assert_eq!(found.len(), 2, "{found:#?}");
        let told = |words: &str| found.iter().any(|one| one.contains(words));
        assert!(told("holds /run/docker.sock"), "{found:#?}");
        assert!(told("no session can have \"db\""), "{found:#?}");
        // Without a list the operator's own services are anywhere.
        let open = warnings("services: {db: \"unix:///run/db.sock\"}\n");
        assert_eq!(open, Vec::<String>::new());
    }

    /// Over a ceiling that bounds names, and only there: what one block allows, sessions and capabilities may add to.
    #[test]
    fn a_deny_of_what_nobody_may_have_is_told() {
        let file = |ceiling: &str| {
            format!(
                "egress: {{deniedHosts: [x.one.test, x.two.test, x.none.test]}}\nruntime:\n  providers:\n    a:\n      default: true\n      \
                 egress:\n        deniedHosts: ['*.one.test', '*.test', one.test, other.test, 10.0.0.0/8]\n        \
                 {ceiling}\n    b:\n      egress: {{ceiling: {{allowedHosts: ['*.two.test']}}}}\n"
            )
        };
        let idle = |ceiling: &str| -> Vec<String> {
            let found = warnings(&file(ceiling)).into_iter();
            let found = found.filter(|told| told.contains("denies nothing"));
            found
                .map(|told| told.split(": ").nth(1).unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            idle(
                "ceiling: {allowedHosts: ['a.one.test:8443', '*.b.one.test'], deniedHosts: [a.one.test, c.one.test]}"
            ),
            [
                "egress.deniedHosts[0]",
                "egress.deniedHosts[2]",
                "runtime.providers.a.egress.deniedHosts[2]",
                "runtime.providers.a.egress.deniedHosts[3]",
                "runtime.providers.a.egress.ceiling.deniedHosts[1]",
            ]
        );
        // No bound on names: a session of `a` may ask for any, capabilities may bring any, and the default may be to allow.
        assert_eq!(
            idle("ceiling: {addresses: [10.0.0.0/8]}"),
            Vec::<String>::new()
        );
        assert_eq!(idle("defaultAction: allow"), Vec::<String>::new());
    }

    #[test]
    fn a_fault_hides_nothing() {
        let (faults, _) = judge(
            "speling: 1\nruntime:\n  providers:\n    a:\n      egress:\n        allowedHosts: ['a.test:*', b.c]\n        \
             deniedHosts: [b.c]\n        ceiling: {addresses: ['::/0']}\n",
        );
        let told: Vec<String> = faults.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(faults.errors.len(), 1, "{faults}");
        for words in [
            "allows every port",
            "\"b.c\" is never reached",
            "every IPv6 address",
        ] {
            assert_eq!(
                told.iter().filter(|told| told.contains(words)).count(),
                1,
                "{words}: {told:#?}"
            );
        }
    }

    #[test]
    fn the_defaults_give_no_cause() {
        assert_eq!(warnings(""), Vec::<String>::new());
        assert_eq!(
            warnings("egress: {allowedHosts: [api.example.com]}\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn secrets_are_told_even_where_the_file_is_wrong_and_never_shown() {
        let (faults, masked) = judge("speling: 1\nadmin: {password: hunter2}\n");
        assert!(!faults.is_clean());
        assert!(
            faults
                .warnings
                .iter()
                .any(|w| w.message.contains("a password")),
            "{faults}"
        );
        let shown = faults.render(&masked, "f");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
