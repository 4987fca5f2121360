//! The operator's tools as an operator meets them: the binary, its output and its exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

struct Run {
    code: i32,
    out: String,
    err: String,
}

struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Run the binary here; arguments are words, file names are relative.
    fn run(&self, arguments: &str) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
            .args(arguments.split_whitespace())
            .current_dir(self.path())
            .env_remove("SLUICEGATE_ADMIN_URL")
            .env("SLUICEGATE_STATE_DIR", self.path().join("state"))
            .output()
            .unwrap();
        Run {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn json(&self, arguments: &str) -> (i32, Value) {
        let run = self.run(arguments);
        let value = serde_json::from_str(&run.out);
        (
            run.code,
            value.unwrap_or_else(|e| panic!("{e}: {}{}", run.out, run.err)),
        )
    }
}

const CONFIG: &str = "egress:
  deniedHosts: [\"*.bad.test\"]
capabilities:
  new: {egress: {allowedHosts: [new.a.test]}}
runtime:
  providers:
    strict:
      default: true
      egress:
        allowedHosts: [api.a.test, no.bad.test]
        ceiling: {allowedHosts: [\"*.a.test\", no.bad.test]}
    open:
      egress: {defaultAction: allow}
";

#[test]
fn check_warns_and_strict_refuses() {
    let desk = Desk::new();
    desk.write("good.yaml", "egress: {allowedHosts: [api.example.com]}\n");
    desk.write("loose.yaml", CONFIG);
    desk.write(
        "broken.yaml",
        "egress: {allowedHosts: ['*.com']}\npassword: hunter2\n",
    );

    let good = desk.run("check good.yaml --strict");
    assert_eq!((good.code, good.err.as_str()), (0, ""), "{}", good.out);
    let loose = desk.run("check loose.yaml");
    assert_eq!(loose.code, 0, "{}", loose.err);
    assert!(
        loose.err.contains("loose.yaml:10:36") && loose.err.contains("never reached"),
        "{}",
        loose.err
    );
    assert_eq!(desk.run("check loose.yaml --strict").code, 2);
    let (code, told) = desk.json("check loose.yaml --strict --json");
    assert_eq!((code, &told["valid"]), (2, &Value::Bool(true)));
    assert_eq!(told["warnings"][0]["position"]["line"], 10, "{told}");

    let broken = desk.run("check broken.yaml");
    assert_eq!(broken.code, 2);
    assert!(
        broken.err.contains("broken.yaml:1:25") && !broken.err.contains("hunter2"),
        "{}",
        broken.err
    );
    assert_eq!(desk.run("check missing.yaml").code, 2);
    assert_eq!(desk.run("check").code, 2);
}

#[test]
fn check_prints_the_schema() {
    let (code, schema) = Desk::new().json("check --schema");
    assert_eq!(code, 0);
    assert!(schema["properties"]["egress"].is_object());
}

#[test]
fn explain_needs_no_gateway() {
    let desk = Desk::new();
    desk.write("gateway.yaml", CONFIG);
    desk.write("policy.yaml", "allowedHosts: [\"db.a.test:5432\"]\n");
    for (arguments, outcome, reason) in [
        ("api.a.test --config gateway.yaml", "allow", None),
        (
            "api.a.test:22 --config gateway.yaml --provider strict",
            "deny",
            Some("host_not_allowed"),
        ),
        (
            "x.b.test --config gateway.yaml --provider strict",
            "deny",
            Some("host_not_allowed"),
        ),
        (
            "x.b.test --config gateway.yaml --provider open",
            "allow",
            None,
        ),
        (
            "no.bad.test --config gateway.yaml --provider open",
            "deny",
            Some("host_denied"),
        ),
        (
            "new.a.test --config gateway.yaml --allow new.a.test",
            "allow",
            None,
        ),
        (
            "new.a.test --config gateway.yaml --capability new",
            "allow",
            None,
        ),
        ("db.a.test:5432 --policy policy.yaml", "allow", None),
        (
            "db.a.test --policy policy.yaml",
            "deny",
            Some("port_not_allowed"),
        ),
    ] {
        let (code, told) = desk.json(&format!("policy explain {arguments} --json"));
        assert_eq!(code, 0, "{arguments}");
        assert_eq!(told["outcome"], outcome, "{arguments}: {told}");
        assert_eq!(told["reason"].as_str(), reason, "{arguments}: {told}");
    }
    let run = desk.run("policy explain db.a.test --policy policy.yaml");
    for words in [
        "db.a.test:443: deny",
        "reason: port_not_allowed",
        "rule: allowedHosts[0]",
        "to change it: add \"db.a.test\"",
        "  - ",
    ] {
        assert!(run.out.contains(words), "{words}: {}", run.out);
    }
    for (arguments, code) in [
        ("x.b.test --config gateway.yaml --allow x.b.test", 2),
        ("api.a.test --config gateway.yaml --provider none", 2),
        ("api.a.test --policy missing.yaml", 2),
        ("127.1 --policy policy.yaml", 2),
        ("api.a.test --policy policy.yaml --config gateway.yaml", 2),
        ("api.a.test --session s1", 3),
        ("api.a.test --session s1 --allow x.a.test", 2),
    ] {
        assert_eq!(
            desk.run(&format!("policy explain {arguments}")).code,
            code,
            "{arguments}"
        );
    }
}

#[test]
fn test_tells_each_failure_and_its_place() {
    let desk = Desk::new();
    desk.write("gateway.yaml", CONFIG);
    desk.write(
        "good.yaml",
        "config: gateway.yaml\nprovider: strict\ntests:\n  - {target: api.a.test, expect: allow}\n  - {target: no.bad.test, \
         expect: deny, reason: host_denied, rule: \"deniedHosts[0]\"}\n",
    );
    desk.write(
        "bad.yaml",
        "policy: {allowedHosts: [a.test]}\ntests:\n  - {target: a.test, expect: allow}\n  - {target: b.test, expect: allow}\n",
    );
    let good = desk.run("policy test good.yaml");
    assert_eq!(
        (good.code, good.out.as_str()),
        (0, "2 passed, 0 failed\n"),
        "{}",
        good.err
    );
    let bad = desk.run("policy test bad.yaml");
    assert_eq!(bad.code, 1);
    assert!(
        bad.out
            .starts_with("bad.yaml:4:5: b.test: expected allow, found deny"),
        "{}",
        bad.out
    );
    let (code, told) = desk.json("policy test bad.yaml --json");
    assert_eq!((code, &told["failed"]), (1, &Value::from(1)));
    desk.write("broken.yaml", "policy: {}\ntests: [{target: a.test}]\n");
    assert_eq!(desk.run("policy test broken.yaml").code, 2);
}

const LOG: &str = r#"{"target":"api.a.test:443","outcome":"completed","wouldRefuse":"host_not_allowed"}
{"target":"api.a.test:443","outcome":"completed","wouldRefuse":"host_not_allowed"}
{"target":"db.a.test:5432","outcome":"completed","wouldRefuse":"host_not_allowed"}
half a line
{"target":"typo.a.test:443","outcome":"failed","reason":"dns_not_found","wouldRefuse":"host_not_allowed"}
{"target":"evil.test:443","outcome":"refused","reason":"host_denied"}
"#;

#[test]
fn replay_tells_the_exact_difference() {
    let desk = Desk::new();
    desk.write("access.log", LOG);
    desk.write("same.yaml", "allowedHosts: ['*.a.test:*']\n");
    desk.write(
        "new.yaml",
        "egress: {allowedHosts: [api.a.test, evil.test]}\n",
    );
    // What could not be decided again is no proof that nothing changed.
    let half = desk.run("policy replay access.log --against same.yaml --fail-on-change");
    assert_eq!(half.code, 1, "{}{}", half.out, half.err);
    assert!(half.err.contains("line 4: "), "{}", half.err);
    assert!(half.err.contains("1 not decided again"), "{}", half.err);
    let same = "policy replay access.log --against same.yaml --fail-on-change --allow-unknown";
    let same = desk.run(same);
    assert_eq!(same.code, 0, "{}{}", same.out, same.err);
    let (code, told) = desk.json("policy replay access.log --against new.yaml --json");
    assert_eq!(code, 0);
    assert_eq!(told["outcome"], "changed");
    assert_eq!(told["newlyDenied"]["records"], 2);
    assert_eq!(told["newlyDenied"]["reasons"]["host_not_allowed"], 2);
    assert_eq!(
        told["newlyDenied"]["targets"]["db.a.test:5432"]["reason"],
        "host_not_allowed"
    );
    assert_eq!(
        told["newlyAllowed"]["targets"]["evil.test:443"]["records"],
        1
    );
    assert_eq!(
        (&told["stillAllowed"], &told["malformed"]),
        (&Value::from(2), &Value::from(1))
    );
    assert_eq!(
        desk.run("policy replay access.log --against new.yaml --fail-on-change --allow-unknown")
            .code,
        1
    );
    // Of a tunnel's first bytes an older record tells nothing.
    let old = r#"{"target":"api.a.test:443","outcome":"completed","kind":"tunnel","bytesUp":9,"bytesDown":9}"#;
    desk.write("old.log", old);
    let line = "policy replay old.log --against same.yaml --fail-on-change";
    let unknown = desk.run(line);
    assert_eq!(unknown.code, 1, "{}{}", unknown.out, unknown.err);
    assert!(unknown.err.contains("1× first bytes"), "{}", unknown.err);
    let (code, told) = desk.json(&format!("{line} --json --allow-unknown"));
    assert_eq!((code, &told["outcome"]), (0, &Value::from("unknown")));
    assert_eq!(
        desk.run("policy replay missing.log --against new.yaml")
            .code,
        2
    );
    // The same policy, for a session that asks for more, or for less.
    desk.write(
        "gateway.yaml",
        "capabilities: {data: {egress: {allowedHosts: ['db.a.test:5432']}}}\nruntime: {providers: {p: {egress: {allowedHosts: \
         [api.a.test, typo.a.test]}}}}\n",
    );
    let denied = |flags: &str| {
        let line = format!("policy replay access.log --against gateway.yaml {flags} --json");
        let (code, told) = desk.json(&line);
        assert_eq!(code, 0, "{flags}: {told}");
        let targets = told["newlyDenied"]["targets"].as_object().unwrap().clone();
        targets.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(denied(""), ["db.a.test:5432"]);
    assert_eq!(denied("--capability data"), Vec::<String>::new());
    assert_eq!(denied("--allow db.a.test:5432"), Vec::<String>::new());
    assert_eq!(
        denied("--capability data --deny api.a.test"),
        ["api.a.test:443"]
    );
    assert_eq!(
        desk.run("policy replay access.log --against gateway.yaml --capability none")
            .code,
        2
    );
    desk.write("broken.yaml", "allowedHosts: ['*']\n");
    assert_eq!(
        desk.run("policy replay access.log --against broken.yaml")
            .code,
        2
    );
}

#[test]
fn a_suggestion_allows_what_was_seen() {
    let desk = Desk::new();
    desk.write("access.log", LOG);
    let run = desk.run("policy suggest access.log");
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(
        run.out,
        "egress:\n  allowedHosts:\n    - \"api.a.test:443\"\n    - \"db.a.test:5432\"\n"
    );
    assert!(
        run.err.contains("typo.a.test") && run.err.contains("line 4"),
        "{}",
        run.err
    );
    desk.write("suggested.yaml", &run.out);
    let (_, told) = desk.json("policy replay access.log --against suggested.yaml --json");
    assert_eq!(
        told["newlyDenied"]["targets"].as_object().unwrap().len(),
        1,
        "only the name that does not exist: {told}"
    );

    let many: String = ["a", "b", "c"]
        .map(|name| {
            format!("{{\"target\":\"{name}.cdn.example.com:443\",\"outcome\":\"completed\"}}\n")
        })
        .concat();
    desk.write("many.log", &many);
    assert!(
        desk.run("policy suggest many.log --collapse")
            .out
            .contains("\"*.cdn.example.com:443\"")
    );
    assert!(
        !desk
            .run("policy suggest many.log --collapse --min 4")
            .out
            .contains('*')
    );
    assert_eq!(desk.run("policy suggest many.log --min 4").code, 2);
}

#[test]
fn an_import_is_loaded_or_refused_with_its_place() {
    let desk = Desk::new();
    desk.write(
        "gondolin.json",
        "{\"allowedHosts\": [\"*.example.org\", \"API.example.com\"]}",
    );
    let run = desk.run("policy import --from gondolin gondolin.json");
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(
        run.out,
        "egress:\n  allowedHosts:\n    - \"*.example.org:*\"\n    - \"api.example.com:*\"\n"
    );
    desk.write("imported.yaml", &run.out);
    let (_, told) = desk.json("policy explain api.example.com:22 --policy imported.yaml --json");
    assert_eq!(told["outcome"], "allow");

    desk.write(
        "bad.json",
        "{\"allowedHosts\": [\"ok.test\",\n  \"api.*.net\"]}",
    );
    let run = desk.run("policy import --from gondolin bad.json");
    assert_eq!((run.code, run.out.as_str()), (2, ""));
    assert!(
        run.err.contains("bad.json:2:3") && run.err.contains("api.*.net"),
        "{}",
        run.err
    );
    let (code, told) = desk.json("policy import --from gondolin bad.json --json");
    assert_eq!(code, 2);
    assert_eq!(told["errors"][0]["position"]["line"], 2);

    desk.write("urls.yaml", "allowedUrlPrefixes: ['https://a.test/v1/']\n");
    assert_eq!(desk.run("policy import --from just-bash urls.yaml").code, 2);
    let run = desk.run("policy import --from just-bash urls.yaml --widen");
    assert_eq!(run.code, 0);
    assert!(
        run.err.contains("dropped") && run.out.contains("a.test:443"),
        "{}{}",
        run.out,
        run.err
    );
    assert_eq!(desk.run("policy import --from nobody urls.yaml").code, 2);
}

#[test]
fn the_examples_of_the_handbook_hold() {
    let handbook = include_str!("../../docs/policy.md");
    let blocks: Vec<&str> = handbook
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    let desk = Desk::new();
    let mut suites = 0;
    for block in &blocks {
        desk.write("example.yaml", block);
        let run = if block.starts_with("egress:") {
            desk.run("policy explain api.example.com --policy example.yaml")
        } else {
            suites += 1;
            desk.run("policy test example.yaml")
        };
        assert_eq!(run.code, 0, "{block}\n{}{}", run.out, run.err);
    }
    assert_eq!((blocks.len(), suites), (5, 2));
}
