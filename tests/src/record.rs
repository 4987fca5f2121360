//! Access records as the gateway wrote them.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use serde_json::Value;

/// One JSON line of the access log.
#[derive(Clone, Debug)]
pub struct Record(pub Arc<Value>);

/// What of a log was read before: who waits for a record looks often, and a log grows long.
#[derive(Default)]
pub(crate) struct Log {
    file: u64,
    /// Bytes of whole lines.
    end: u64,
    records: Vec<Record>,
}

impl Log {
    /// Every complete line of the log that is there now; none where there is none.
    pub(crate) fn read(&mut self, path: &Path) -> Vec<Record> {
        let Ok(mut file) = File::open(path) else {
            *self = Self::default();
            return Vec::new();
        };
        let about = file.metadata().unwrap();
        // Another one, or emptied.
        if about.ino() != self.file || about.len() < self.end {
            *self = Self {
                file: about.ino(),
                ..Self::default()
            };
        }
        let mut more = String::new();
        file.seek(SeekFrom::Start(self.end)).unwrap();
        file.read_to_string(&mut more).unwrap();
        let whole = more.rfind('\n').map_or(0, |end| end + 1);
        self.records.extend(Record::parse(&more[..whole]));
        self.end += whole as u64;
        self.records.clone()
    }
}

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
                let value: Value =
                    value.unwrap_or_else(|error| panic!("access log: {error}: {line}"));
                Self(Arc::new(value))
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
