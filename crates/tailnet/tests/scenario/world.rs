//! A server with a clock that tests turn, and a driver that writes nothing down.

use crypto::{DiscoPublic, Entropy, MachinePublic, NodePublic};
use jiff::{SignedDuration, Timestamp};
use tailcfg::{
    CapabilityVersion, DerpMap, DerpRegion, Hostinfo, MapRequest, NetInfo, NodeId, RegionId, RegisterAuth,
    RegisterRequest, Time, UserId,
};
use tailnet::{
    Actor, Change, Command, Decision, Effects, NewAuthKey, NewPolicy, NewTailnet, NewUser, Node, Proof, Refusal,
    Registration, Reply, Report, Role, SecretText, Server, StreamId, Tailnet, TailnetId,
};

/// Numbers that look random and are the same in each run.
pub(crate) struct Dice(pub(crate) u64);

impl Entropy for Dice {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = self.0.to_be_bytes()[0];
        }
    }
}

/// The policy of most tests: administrators reach everything, members the operator, tags are there to be given.
pub(crate) const POLICY: &str = r#"{
    "groups": {"group:dev": ["member@example.com"]},
    "tagOwners": {
        "tag:k8s-operator": [], "tag:k8s": ["tag:k8s-operator"], "tag:server": ["autogroup:admin"], "tag:dev": ["group:dev"],
    },
    "grants": [
        {"src": ["autogroup:admin"], "dst": ["*"], "ip": ["*"]},
        {"src": ["autogroup:admin"], "dst": ["autogroup:internet"], "ip": ["*"]},
        {"src": ["autogroup:member"], "dst": ["tag:k8s-operator"], "ip": ["tcp:443"]},
        {"src": ["tag:k8s"], "dst": ["tag:server"], "ip": ["*"]},
    ],
    "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:k8s"]}, "exitNode": ["tag:k8s"]},
}"#;

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) now: Timestamp,
    pub(crate) dice: Dice,
    pub(crate) home: TailnetId,
    pub(crate) owner: UserId,
    pub(crate) effects: Effects,
    /// Everything that was written, by tailnet.
    pub(crate) written: Vec<(TailnetId, Change)>,
}

pub(crate) fn relays() -> DerpMap {
    let region = DerpRegion { region_id: RegionId(900), region_code: "lab".to_owned(), ..DerpRegion::default() };
    DerpMap { regions: Some([(RegionId(900), region)].into()), ..DerpMap::default() }
}

pub(crate) fn machine(number: u8) -> MachinePublic {
    MachinePublic::from_bytes([number; 32])
}

pub(crate) fn node_key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

/// What a device asks for that calls itself so.
pub(crate) fn request(key: u8, hostname: &str) -> RegisterRequest {
    RegisterRequest {
        version: CapabilityVersion(131),
        node_key: node_key(key),
        hostinfo: Some(Hostinfo { hostname: hostname.to_owned(), os: "linux".to_owned(), ..Hostinfo::default() }),
        ..RegisterRequest::default()
    }
}

pub(crate) fn with_routes(mut request: RegisterRequest, routes: &[&str]) -> RegisterRequest {
    request.hostinfo.as_mut().expect("there is one").routable_ips =
        routes.iter().map(|route| route.parse().expect("a route")).collect();
    request
}

pub(crate) fn auth_key() -> NewAuthKey {
    NewAuthKey {
        reusable: false,
        ephemeral: false,
        preauthorized: true,
        tags: vec![],
        lifetime: None,
        description: String::new(),
    }
}

pub(crate) fn tagged_key(tag: &str) -> NewAuthKey {
    NewAuthKey { tags: vec![tag.to_owned()], ..auth_key() }
}

impl World {
    /// One tailnet with an owner, `admin@example.com`, and the policy of most tests.
    pub(crate) fn new() -> Self {
        let mut world = Self::empty();
        world.set_policy(POLICY);
        world
    }

    /// The same with the policy that a tailnet starts with.
    pub(crate) fn empty() -> Self {
        let mut world = Self {
            server: Server::new("100.64.0.0/10".parse().expect("a prefix"), relays()),
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
            dice: Dice(7),
            home: TailnetId(0),
            owner: UserId(0),
            effects: Effects::default(),
            written: Vec::new(),
        };
        let (home, owner) = world.add_tailnet("example.com", "taila31de.ts.net", "admin@example.com");
        (world.home, world.owner) = (home, owner);
        world
    }

    pub(crate) fn add_tailnet(&mut self, name: &str, domain: &str, owner: &str) -> (TailnetId, UserId) {
        let new = NewTailnet {
            name: name.to_owned(),
            domain: domain.parse().expect("a domain"),
            owner: owner.parse().expect("a login name"),
            password: None,
        };
        let decision = self.server.decide_tailnet(new, self.now).expect("the names are free");
        let Reply::User(owner) = decision.reply else { panic!("an owner") };
        self.write(&decision);
        (decision.tailnet, owner)
    }

    pub(crate) fn home(&self) -> &Tailnet {
        self.server.tailnet(self.home).expect("it was made")
    }

    pub(crate) fn home_mut(&mut self) -> &mut Tailnet {
        self.server.tailnet_mut(self.home).expect("it was made")
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.home().node(id).expect("the device is there")
    }

    pub(crate) fn decide_in(
        &mut self,
        tailnet: TailnetId,
        actor: Actor,
        command: Command,
    ) -> Result<Decision, Refusal> {
        self.server.decide(tailnet, command, actor, self.now, &mut self.dice).expect("the tailnet is there")
    }

    pub(crate) fn write(&mut self, decision: &Decision) {
        assert!(self.server.is_current(decision), "two decisions from one revision");
        self.written.extend(decision.changes.iter().map(|change| (decision.tailnet, change.clone())));
        self.effects = self.server.commit(&mut decision.clone(), self.now);
    }

    pub(crate) fn run_in(&mut self, tailnet: TailnetId, actor: Actor, command: Command) -> Result<Reply, Refusal> {
        let before = format!("{:?}", self.server.tailnet(tailnet));
        let decision = self.decide_in(tailnet, actor, command);
        assert!(before == format!("{:?}", self.server.tailnet(tailnet)), "deciding must not change anything");
        let decision = decision?;
        self.write(&decision);
        Ok(decision.reply)
    }

    pub(crate) fn run(&mut self, actor: Actor, command: Command) -> Result<Reply, Refusal> {
        self.run_in(self.home, actor, command)
    }

    /// The owner runs a command that must work.
    pub(crate) fn own(&mut self, command: Command) -> Reply {
        self.run(Actor::User(self.owner), command).expect("the owner may")
    }

    /// What the owner is told that may not be done.
    pub(crate) fn refused(&mut self, command: Command) -> String {
        self.run(Actor::User(self.owner), command).expect_err("it must be refused").to_string()
    }

    /// A policy that was tried on the tailnet as it is, to be set by its owner.
    pub(crate) fn tried(&self, text: &str) -> Result<NewPolicy, Refusal> {
        let tried = self.home().policy_trial().try_policy(text, None)?;
        Ok(NewPolicy { tried, precondition: None, who: "admin@example.com".to_owned(), why: "test".to_owned() })
    }

    /// The owner sets a good policy.
    pub(crate) fn set_policy(&mut self, text: &str) -> Reply {
        let new = self.tried(text).expect("the policy is good");
        self.own(Command::SetPolicy(Box::new(new)))
    }

    pub(crate) fn add_user(&mut self, login: &str, role: Role) -> UserId {
        let new =
            NewUser { login: login.parse().expect("a login name"), display_name: String::new(), role, password: None };
        let Reply::User(id) = self.own(Command::CreateUser(new)) else { panic!("a user") };
        id
    }

    pub(crate) fn make_key(&mut self, new: NewAuthKey) -> SecretText {
        let Reply::Secret { text, .. } = self.own(Command::CreateAuthKey(new)) else { panic!("a key") };
        text
    }

    pub(crate) fn register(
        &mut self,
        machine_number: u8,
        mut request: RegisterRequest,
        proof: Proof,
    ) -> Result<Reply, Refusal> {
        let actor = match &proof {
            Proof::Confirmed(user) => Actor::User(*user),
            Proof::AuthKey(text) => {
                request.auth = Some(RegisterAuth { auth_key: text.expose().to_owned() });
                Actor::Machine(machine(machine_number))
            }
            Proof::None => Actor::Machine(machine(machine_number)),
        };
        let registration = Registration { machine: machine(machine_number), request, proof };
        self.run(actor, Command::Register(Box::new(registration)))
    }

    /// A device that joins and must be let in. Machine and node key have the same number.
    pub(crate) fn join(&mut self, number: u8, hostname: &str, proof: Proof) -> NodeId {
        self.join_as(number, request(number, hostname), proof)
    }

    pub(crate) fn join_as(&mut self, machine_number: u8, request: RegisterRequest, proof: Proof) -> NodeId {
        match self.register(machine_number, request, proof) {
            Ok(Reply::Registered(registered)) => registered.node,
            other => panic!("the device must be let in, not {other:?}"),
        }
    }

    pub(crate) fn join_tagged(&mut self, number: u8, hostname: &str, tag: &str) -> NodeId {
        let key = self.make_key(tagged_key(tag));
        self.join(number, hostname, Proof::AuthKey(key))
    }

    pub(crate) fn log_out(&mut self, number: u8) -> Reply {
        let request =
            RegisterRequest { expiry: Time::from(Timestamp::from_second(123).expect("a time")), ..request(number, "") };
        self.register(number, request, Proof::None).expect("leaving always works")
    }

    /// A device opens its stream and tells where it is.
    pub(crate) fn connect(&mut self, id: NodeId, port: u16) -> StreamId {
        let now = self.now;
        let (stream, mut effects) = self.home_mut().open_stream(id, now);
        effects.join(self.home_mut().touch(id, report(port)));
        self.effects = effects;
        stream
    }

    pub(crate) fn pass(&mut self, time: SignedDuration) {
        self.now += time;
        let now = self.now;
        self.effects = self.home_mut().handle_timeout(now);
    }
}

/// Where a device is that listens on this port.
pub(crate) fn report(port: u16) -> Report {
    Report::of(&MapRequest {
        endpoints: vec![format!("203.0.113.7:{port}").parse().expect("an endpoint")],
        disco_key: DiscoPublic::from_bytes([u8::try_from(port % 251).expect("small") + 1; 32]),
        hostinfo: Some(Hostinfo {
            net_info: Some(NetInfo { preferred_derp: RegionId(900), ..NetInfo::default() }),
            ..Hostinfo::default()
        }),
        ..MapRequest::default()
    })
}
