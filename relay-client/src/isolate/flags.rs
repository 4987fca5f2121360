//! The command line of `run`, which two programs have.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{Confinement, Network, Service};

/// Exit codes of both, below their own.
pub const EXIT_CODES: &str = "Exit codes: the command's own, or 128 and the signal that ended it; 123 this system does not \
                              let it be confined (nothing was run), 125 it could not be set up or supervised, 126 the \
                              command cannot be executed, 127 it was not found; 2 bad flags, file or environment";

/// How much of a network there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
enum Net {
    /// Loopback and host services.
    None,
    /// And an HTTP proxy, at the usual variables.
    Proxy,
    /// And names, and any TCP connection by name, whatever the program knows of proxies.
    #[default]
    Transparent,
}

/// What the command is, and what it gets.
#[derive(Clone, Debug, Args)]
pub struct RunFlags {
    /// How much of a network the command gets.
    #[arg(long, value_enum, default_value_t)]
    net: Net,
    /// A variable of the command's environment.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The file system is read-only; TMPDIR is a private one in memory.
    #[arg(long)]
    ro: bool,
    /// With --ro: this path stays writable.
    #[arg(long, value_name = "PATH", requires = "ro")]
    rw: Vec<PathBuf>,
    /// A device of the host's, or a directory of them: of /dev the command sees no others but null, tty and the like.
    #[arg(long = "device", value_name = "PATH")]
    devices: Vec<PathBuf>,
    /// Run the command without any confinement: it is asked to use the proxy, and nothing makes it.
    #[arg(long)]
    unconfined: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl RunFlags {
    /// Is there a way out at all?
    pub fn goes_out(&self) -> bool {
        self.net != Net::None
    }

    /// Is the command left unconfined?
    pub fn is_unconfined(&self) -> bool {
        self.unconfined
    }

    /// With host services, paths to hide, and the command's bound on descriptors where it is another one than ours.
    pub fn confinement(
        self,
        services: Vec<Service>,
        hide: Vec<PathBuf>,
        descriptors: Option<u64>,
    ) -> Confinement {
        Confinement {
            command: self.command,
            network: match self.net {
                Net::None => Network::None,
                Net::Proxy => Network::Proxy,
                Net::Transparent => Network::Transparent,
            },
            services,
            env: self.env,
            read_only: self.ro,
            writable: self.rw,
            devices: self.devices,
            hide,
            unconfined: self.unconfined,
            descriptors,
        }
    }
}
