use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use super::Connection;
use super::connection::Open;
use super::lingering::{Lingering, Turn};
use super::sources::Sources;
use crate::address::Pair;

pub(super) enum State {
    /// The client waits for the caller's answer to this SYN.
    Asked { syn: Box<[u8]> },
    /// smoltcp has it.
    Open(Box<Open>),
}

pub(super) struct Entry {
    pub(super) pair: Pair,
    pub(super) state: State,
    /// The deadline of this entry in `Table::deadlines`.
    deadline: Option<Instant>,
    /// Whether it stands in `Table::ready`.
    ready: bool,
    /// Whether it counts in `Table::handshakes`.
    handshaking: bool,
    /// Whether it counts in `Table::clients`.
    client: bool,
    /// Its place in `Table::lingering`, of a client that was given back.
    lingers: Option<Turn>,
}

/// Which connections there are, whose turn it is, when each is due, and whom they count against.
#[derive(Default)]
pub(super) struct Table {
    entries: HashMap<Connection, Entry>,
    by_pair: HashMap<Pair, Connection>,
    /// Those that may have something to send, each once, in turn.
    ready: VecDeque<Connection>,
    deadlines: BTreeSet<(Instant, Connection)>,
    /// Connections of clients that are not established yet.
    handshakes: Sources,
    /// All connections of clients.
    clients: Sources,
    /// Those of them that only say goodbye.
    lingering: Lingering,
}

impl Table {
    pub(super) fn insert(&mut self, connection: Connection, pair: Pair, state: State) {
        // Who dials from here decides that for itself; only clients are counted.
        let client = matches!(state, State::Asked { .. });
        if client {
            self.handshakes.add(pair.remote.ip());
            self.clients.add(pair.remote.ip());
        }
        self.by_pair.insert(pair, connection);
        let entry = Entry { pair, state, deadline: None, ready: false, handshaking: client, client, lingers: None };
        self.entries.insert(connection, entry);
    }

    pub(super) fn remove(&mut self, connection: Connection) {
        self.set_deadline(connection, None);
        self.end_handshake(connection);
        self.free_pair(connection);
        let Some(entry) = self.entries.remove(&connection) else { return };
        if entry.client {
            self.clients.remove(entry.pair.remote.ip());
        }
        if let Some(turn) = entry.lingers {
            self.lingering.remove(turn);
        }
    }

    /// The pair of ends of a connection may be another's from now on.
    pub(super) fn free_pair(&mut self, connection: Connection) {
        let Some(entry) = self.entries.get(&connection) else { return };
        if self.by_pair.get(&entry.pair) == Some(&connection) {
            self.by_pair.remove(&entry.pair);
        }
    }

    pub(super) fn end_handshake(&mut self, connection: Connection) {
        let Some(entry) = self.entries.get_mut(&connection) else { return };
        if std::mem::take(&mut entry.handshaking) {
            self.handshakes.remove(entry.pair.remote.ip());
        }
    }

    /// The caller has given a connection back: if a client began it, it makes room for others from now on.
    pub(super) fn linger(&mut self, connection: Connection) {
        let Some(entry) = self.entries.get_mut(&connection) else { return };
        if entry.client && entry.lingers.is_none() {
            entry.lingers = Some(self.lingering.add(entry.pair.remote.ip(), connection));
        }
    }

    pub(super) fn wake(&mut self, connection: Connection) {
        if let Some(entry) = self.entries.get_mut(&connection)
            && !std::mem::replace(&mut entry.ready, true)
        {
            self.ready.push_back(connection);
        }
    }

    /// The connection whose turn it is.
    pub(super) fn pop_ready(&mut self) -> Option<Connection> {
        while let Some(connection) = self.ready.pop_front() {
            if let Some(entry) = self.entries.get_mut(&connection) {
                entry.ready = false;
                return Some(connection);
            }
        }
        None
    }

    pub(super) fn set_deadline(&mut self, connection: Connection, deadline: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&connection) else { return };
        if entry.deadline == deadline {
            return;
        }
        if let Some(old) = std::mem::replace(&mut entry.deadline, deadline) {
            self.deadlines.remove(&(old, connection));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, connection));
        }
    }

    /// A connection that is due, which has no deadline any more then.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Connection> {
        let &(_, connection) = self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.set_deadline(connection, None);
        Some(connection)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(super) fn get(&self, connection: &Connection) -> Option<&Entry> {
        self.entries.get(connection)
    }

    pub(super) fn get_mut(&mut self, connection: &Connection) -> Option<&mut Entry> {
        self.entries.get_mut(connection)
    }

    pub(super) fn at(&self, pair: &Pair) -> Option<Connection> {
        self.by_pair.get(pair).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn handshakes_of(&self, source: IpAddr) -> usize {
        self.handshakes.of(source)
    }

    pub(super) fn clients_of(&self, source: IpAddr) -> usize {
        self.clients.of(source)
    }

    pub(super) fn oldest_lingering(&self) -> Option<Connection> {
        self.lingering.oldest()
    }

    pub(super) fn oldest_lingering_of(&self, source: IpAddr) -> Option<Connection> {
        self.lingering.oldest_of(source)
    }
}
