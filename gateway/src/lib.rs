//! The gateway: one public door between hosted sandboxes, the services of their host, and the internet.
//!
//! Rooms: [`listen`] takes connections, [`front`] learns who asks for what, [`message`] how HTTP/1 is read and passed on, [`egress`] and [`relay`] carry it out,
//! [`auth`] and [`session`] say who a credential is, [`store`] remembers, [`admin`] lets operators in, [`telemetry`]
//! records; `trial` tries policies out. [`app`] puts them together; [`cli`] is the command line; only those two read [`config`].

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod descriptors;
pub mod drain;
pub mod egress;
pub mod front;
pub mod http2;
pub mod http3;
pub mod interfaces;
pub mod listen;
pub mod lost;
pub mod message;
pub mod outcome;
pub mod probe;
pub mod relay;
pub mod secret;
pub mod session;
pub mod sniff;
pub mod store;
pub mod telemetry;
mod trial;
pub mod webhook;
