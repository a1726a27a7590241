//! Tunnels through the public API, in virtual time: two nodes and what lies between them.

mod cookies;
mod hostile;
mod interop;
mod lazy;
mod link;
mod lossy;
mod node;
mod rollover;
mod threads;
mod timers;
