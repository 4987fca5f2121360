//! An `egress` block as YAML, for people to read and paste.

use serde_json::Value;

/// `egress:` and the block below it. Texts are quoted and the inner parts are flow style: JSON, which YAML holds (YAML
/// 1.2 §1.2).
pub(super) fn block(egress: &Value) -> String {
    let Some(keys) = egress.as_object().filter(|keys| !keys.is_empty()) else {
        return "egress: {}\n".to_owned();
    };
    let mut out = "egress:\n".to_owned();
    for (key, value) in keys {
        match value.as_array().filter(|items| !items.is_empty()) {
            Some(items) => {
                out.push_str(&format!("  {key}:\n"));
                for item in items {
                    out.push_str(&format!("    - {item}\n"));
                }
            }
            None => out.push_str(&format!("  {key}: {value}\n")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use sluicegate_policy::{
        EgressDocument, GrantDocument,
        text::{self, Faults},
    };

    #[test]
    fn what_is_written_reads_back() {
        for egress in [
            json!({}),
            json!({"allowedHosts": []}),
            json!({
                "defaultAction": "deny",
                "allowedHosts": ["*.a.test", "[2001:db8::1]:443", "b.test:*"],
                "rules": [{"host": "b.test", "tls": "opaque"}],
                "hosts": {"b.test": ["127.0.0.1"]},
                "mode": "report",
            }),
        ] {
            let mut faults = Faults::default();
            let written = super::block(&egress);
            let root = text::parse(&written, &mut faults);
            let read = GrantDocument::read(&root, &mut faults);
            let root = text::parse(&egress.to_string(), &mut faults);
            let meant = EgressDocument::read(&root, &mut faults);
            assert!(faults.is_clean(), "{written}: {faults}");
            assert_eq!(read.egress, meant, "{written}");
        }
    }
}
