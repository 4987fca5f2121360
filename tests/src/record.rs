//! Access records as the gateway wrote them.

use serde_json::Value;

/// One JSON line of the access log.
#[derive(Clone, Debug)]
pub struct Record(pub Value);

impl Record {
    /// Every complete line of `log`.
    ///
    /// # Panics
    /// When a complete line is not JSON: a log that cannot be read proves nothing.
    pub fn parse(log: &str) -> Vec<Self> {
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let value = serde_json::from_str(line);
                Self(value.unwrap_or_else(|error| panic!("access log: {error}: {line}")))
            })
            .collect()
    }

    /// The text at `key`, empty where absent.
    pub fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// Whether `key` is there and true.
    pub fn flag(&self, key: &str) -> bool {
        self.0[key] == true
    }

    /// The number at `key`.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.0[key].as_u64()
    }

    /// Whether any string in the record, at whatever depth, contains `needle`.
    pub fn mentions(&self, needle: &str) -> bool {
        fn search(value: &Value, needle: &str) -> bool {
            match value {
                Value::String(text) => text.contains(needle),
                Value::Array(items) => items.iter().any(|item| search(item, needle)),
                Value::Object(fields) => fields.values().any(|field| search(field, needle)),
                _ => false,
            }
        }
        search(&self.0, needle)
    }
}
