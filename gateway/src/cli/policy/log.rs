//! An access log, from its file.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use super::super::failure::{FAILED, Failure, USAGE};
use crate::trial::{Passed, Seen, read_lines};

/// Read a log (`-` for standard input), giving each judged target of `session` (or of all) to `found`.
pub(super) fn read(
    path: &Path,
    session: Option<&str>,
    found: impl FnMut(Seen),
) -> Result<Passed, Failure> {
    let cannot =
        |error: io::Error| Failure::new(USAGE, format!("cannot read {}: {error}", path.display()));
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(cannot)?))
    };
    read_lines(reader, session, found)
        .map_err(|error| Failure::new(FAILED, format!("{}: {error}", path.display())))
}
