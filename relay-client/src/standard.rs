//! Standard output and standard error of a command, which may take nothing: a full disk, a reader that has gone. `println!` and
//! `eprintln!` would end it in the middle, with the code of a panic.

use std::{
    fmt::Arguments,
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

/// What a command ends with whose result was not taken.
const FAILED: u8 = 1;

/// To standard error. Where nobody can be told, the exit code tells all the same.
pub fn tell(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// To standard output. A reader that has gone (`… | head -1`) is no failure.
///
/// # Errors
/// It was not taken.
pub fn print(text: Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    taken(out.write_fmt(text).and_then(|()| out.flush()))
}

fn taken(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let why = format!("cannot write to standard output: {error}");
            Err(io::Error::new(error.kind(), why))
        }
        _ => Ok(()),
    }
}

/// What clap has to say in place of a command, and its code: 0 for help and version, where they are taken, 2 for bad usage. `program`
/// says who speaks.
pub fn answer(program: &str, said: &clap::Error) -> ExitCode {
    let printed = said.print().and_then(|()| io::stdout().flush());
    if said.use_stderr() {
        return ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(FAILED));
    }
    match taken(printed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("{program}: {error}\n"));
            ExitCode::from(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::taken;

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
        assert!(taken(Ok(())).is_ok());
        assert!(taken(Err(ErrorKind::BrokenPipe.into())).is_ok());
        let full = taken(Err(Error::from(ErrorKind::StorageFull)));
        let said = full.map_err(|error| error.to_string());
        let said = said.err().unwrap_or_default();
        assert!(
            said.starts_with("cannot write to standard output: "),
            "{said}"
        );
    }
}
