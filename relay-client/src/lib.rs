//! The sandbox side of the relay, and the stream semantics both ends share.
//!
//! Rooms: [`flow`] is one byte stream with TCP's ends, [`transport`] the connection to the gateway, [`session`] keeps
//! one for ever, [`listen`] and [`forward`] bring local connections in, [`expose`] the host's connections to local
//! listeners, [`proxy`] is the HTTP proxy for the way out, [`request`] judges what it and the gateway are asked in HTTP/1,
//! [`isolate`] runs a command that has no other way out, [`status`] tells how it all is, [`doctor`] why it is not, [`config`] says
//! what is wanted, [`descriptors`] how many connections there may be, [`tasks`] is where what is carried runs, [`variables`]
//! names what a session's environment has, [`standard`] is where commands say things. `cli` in the binary is the command line.

pub mod backoff;
pub mod config;
pub mod descriptors;
pub mod doctor;
pub mod expose;
pub mod flow;
pub mod forward;
pub mod isolate;
pub mod listen;
pub mod proxy;
pub mod request;
pub mod session;
pub mod standard;
pub mod status;
pub mod tasks;
pub mod transport;
pub mod variables;
