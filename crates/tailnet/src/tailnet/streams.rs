use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tailcfg::{DerpMap, NodeId};

use super::Tailnet;
use super::view::Touched;
use crate::effects::{Effects, Wake};
use crate::presence::{Presence, PresenceRecord, Report, StreamId};

impl Tailnet {
    /// Takes what a device tells of where it is.
    pub fn touch(&mut self, id: NodeId, report: Report) -> Effects {
        let tick = self.ticks + 1;
        let Some(device) = self.devices.get_mut(&id) else { return Effects::default() };
        let newest = device.stamps.newest();
        let news = device.presence.take(report);
        if news.measured || news.concerns_peers() {
            self.unsaved.insert(id);
        }
        if !news.concerns_peers() {
            return Effects::default();
        }
        self.ticks = tick;
        let marks = [
            (news.endpoints, &mut device.stamps.endpoints),
            (news.home, &mut device.stamps.home),
            (news.disco_key, &mut device.stamps.disco_key),
            (news.vanished, &mut device.stamps.whole),
        ];
        marks.into_iter().filter(|(changed, _)| *changed).for_each(|(_, stamp)| *stamp = tick);
        device.forget_encoding();
        self.note_recent(id, newest);
        Effects { wake: Wake::Some(self.rules.peers(id).collect()), ..Effects::default() }
    }

    /// A device opened a map stream: it is the live one now, whatever streams it had.
    pub fn open_stream(&mut self, id: NodeId, now: Timestamp) -> (StreamId, Effects) {
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        let Some(device) = self.devices.get_mut(&id) else { return (stream, Effects::default()) };
        device.presence.stream = Some(stream);
        device.presence.left_at = None;
        device.presence.gone_at = None;
        let effects = if device.presence.online { Effects::default() } else { self.set_online(id, true, now) };
        self.plan(id);
        (stream, effects)
    }

    /// A map stream ended. If it was the live one, the device counts as gone after a while, unless it comes back; one whose
    /// key has ended, which can't, at once.
    pub fn close_stream(&mut self, id: NodeId, stream: StreamId, now: Timestamp) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        if device.presence.stream != Some(stream) {
            return;
        }
        device.presence.stream = None;
        device.presence.left_at = Some(now);
        let grace = if device.expired { SignedDuration::ZERO } else { Presence::ABSENCE_GRACE };
        device.presence.gone_at = Some(later(now, grace));
        self.unsaved.insert(id);
        self.plan(id);
    }

    /// Whether this is a device's live stream.
    pub fn is_live(&self, id: NodeId, stream: StreamId) -> bool {
        self.presence(id).is_some_and(|presence| presence.stream == Some(stream))
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Time has passed: devices that stayed away count as gone, and keys expire.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        let mut ended = BTreeSet::new();
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            let Some(device) = self.devices.get_mut(&id) else { continue };
            device.deadline = None;
            if device.presence.gone_at.is_some_and(|gone| gone <= now) {
                device.presence.gone_at = None;
                effects.join(self.set_online(id, false, now));
            }
            if self.devices.get(&id).is_some_and(|device| device.admitted && device.node.is_expired(now)) {
                effects.join(self.settle_node(id, None, false, now));
                ended.insert(id);
            }
            self.plan(id);
        }
        if !ended.is_empty() {
            effects.join(self.settle_view(Touched { nodes: ended, ..Touched::default() }));
        }
        effects
    }

    /// When [`crate::Command::Sweep`] has something to delete.
    pub fn poll_sweep(&self) -> Option<Timestamp> {
        let devices = self.devices.values().filter_map(|device| self.deletion_time(device)).min();
        [devices, self.keys_kept.next()].into_iter().flatten().min()
    }

    /// Gives the tailnet other relays.
    pub fn set_relays(&mut self, relays: Arc<DerpMap>) -> Effects {
        self.own_relays = relays;
        self.settle_relays()
    }

    /// What of devices' presence is to be written behind, since the last call.
    pub fn take_presence(&mut self) -> Vec<PresenceRecord> {
        let unsaved = std::mem::take(&mut self.unsaved);
        unsaved.into_iter().filter_map(|id| self.presence_record(id)).collect()
    }

    fn presence_record(&self, id: NodeId) -> Option<PresenceRecord> {
        let presence = self.presence(id)?;
        Some(PresenceRecord {
            node: id,
            endpoints: presence.endpoints.clone(),
            disco_key: presence.disco_key,
            home: presence.home,
            online: presence.online,
            last_seen: presence.left_at.or(presence.last_seen),
            primary_for: self.primary_routes(id),
        })
    }

    /// Takes back what was written behind before a restart, so that the first device to come back finds its peers where
    /// they were. Devices that were connected count as connected for a while: they have to come back first.
    pub(crate) fn restore_presence(&mut self, records: Vec<PresenceRecord>, now: Timestamp) {
        let mut routes = BTreeSet::new();
        for record in records {
            let Some(device) = self.devices.get_mut(&record.node) else { continue };
            device.presence = Presence {
                endpoints: record.endpoints,
                disco_key: record.disco_key,
                home: record.home,
                online: record.online,
                last_seen: record.last_seen,
                gone_at: record.online.then(|| later(now, Presence::RESTART_GRACE)),
                ..Presence::default()
            };
            device.forget_encoding();
            for route in record.primary_for {
                self.primaries.restore(route, record.node);
                routes.insert(route);
            }
            self.plan(record.node);
        }
        // Nobody listens yet.
        let routers = self.devices.keys().copied().collect();
        let _ = self.settle_view(Touched { routers, routes, ..Touched::default() });
    }

    /// A device's key has ended: without a stream it is gone, and nobody waits for it to come back.
    pub(super) fn end_absence(&mut self, id: NodeId, now: Timestamp) -> Effects {
        let presence = self.devices.get_mut(&id).map(|device| &mut device.presence);
        let Some(presence) = presence.filter(|presence| presence.online && presence.stream.is_none()) else {
            return Effects::default();
        };
        presence.gone_at = None;
        self.set_online(id, false, now)
    }

    fn set_online(&mut self, id: NodeId, online: bool, now: Timestamp) -> Effects {
        let tick = self.tick();
        let Some(device) = self.devices.get_mut(&id) else { return Effects::default() };
        let newest = device.stamps.newest();
        device.presence.online = online;
        let since = if online { Some(now) } else { device.presence.left_at.take() };
        device.presence.last_seen = since.or(device.presence.last_seen);
        device.stamps.online = tick;
        device.forget_encoding();
        let routes = device.admitted && device.node.served_routes().next().is_some();
        self.note_recent(id, newest);
        self.unsaved.insert(id);
        let mut effects = Effects { wake: Wake::Some(self.rules.peers(id).collect()), ..Effects::default() };
        if routes {
            effects.join(self.settle_view(Touched { routers: [id].into(), ..Touched::default() }));
        }
        effects
    }
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}
