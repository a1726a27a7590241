//! Users and their roles.

use tailnet::{
    Actor, Command, LoginName, NewOAuthClient, NewTailnet, NewUser, PasswordHash, Proof, RefusalKind, Registry, Reply,
    Role, SettingsPatch, UserStatus,
};

use crate::world::{World, auth_key};

/// A program of the owner's with these scopes.
pub(crate) fn program(world: &mut World, scopes: &[&str]) -> Actor {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let new = NewOAuthClient { scopes, tags: Vec::new(), description: String::new() };
    let Reply::Secret { id, .. } = world.own(Command::CreateOAuthClient(new)) else { panic!("a client") };
    Actor::Client { id, tags: [].into() }
}

/// A command that is refused because of who asks.
fn forbidden(world: &mut World, actor: Actor, command: Command) -> String {
    let refusal = world.run(actor, command).expect_err("it must be refused");
    assert_eq!(refusal.kind(), RefusalKind::Forbidden, "{refusal}");
    refusal.to_string()
}

pub(crate) fn new_user(login: &str, role: Role) -> Command {
    let login: LoginName = login.parse().expect("a login name");
    Command::CreateUser(NewUser { login, display_name: String::new(), role, password: None })
}

#[test]
fn a_login_name_is_taken_once_whatever_its_case() {
    let mut world = World::new();
    world.add_user("Alice@Example.com", Role::Member);
    assert_eq!(
        world.refused(new_user("alice@example.com", Role::Member)),
        "there is already a user alice@example.com: choose another login name"
    );
}

#[test]
fn a_login_name_is_in_so_many_tailnets_and_in_no_more() {
    let mut world = World::new();
    let tailnets: Vec<_> = (1..Registry::LIMIT_OF_LOGIN)
        .map(|number| world.add_tailnet(&format!("t{number}"), &format!("t{number}.ts.net"), "admin@example.com"))
        .collect();
    assert_eq!(world.server.registry().most_users_of_a_login(), Registry::LIMIT_OF_LOGIN);
    let says = "the login name admin@example.com is used in 8 tailnets of this server already, and may be in no more: \
                choose another login name";
    let new = NewTailnet {
        name: "other".to_owned(),
        domain: "other.ts.net".parse().unwrap(),
        owner: "Admin@example.com".parse().unwrap(),
        password: None,
    };
    assert_eq!(world.server.decide_tailnet(new.clone(), world.now).unwrap_err().to_string(), says);
    let (other, _) = world.add_tailnet("other", "other.ts.net", "boss@example.com");
    let refused = world.run_in(other, Actor::Server, new_user("admin@example.com", Role::Member)).unwrap_err();
    assert_eq!((refused.to_string().as_str(), refused.kind()), (says, RefusalKind::Conflict));

    // Who is deleted makes room.
    let (first, owner) = tailnets[0];
    world.run_in(first, Actor::Server, new_user("second@example.com", Role::Owner)).unwrap();
    world.run_in(first, Actor::Server, Command::DeleteUser(owner)).unwrap();
    assert_eq!(world.server.registry().most_users_of_a_login(), Registry::LIMIT_OF_LOGIN - 1);
    world.run_in(other, Actor::Server, new_user("admin@example.com", Role::Member)).unwrap();
}

#[test]
fn only_the_owner_makes_owners_and_only_administrators_make_administrators() {
    let mut world = World::new();
    let admin = world.add_user("boss@example.com", Role::Admin);
    let it = world.add_user("it@example.com", Role::ItAdmin);
    let member = world.add_user("member@example.com", Role::Member);
    let refused = |world: &mut World, actor, command| world.run(Actor::User(actor), command).unwrap_err().to_string();
    assert_eq!(
        refused(&mut world, admin, Command::SetRole(member, Role::Owner)),
        "boss@example.com may not give the role owner: ask the owner"
    );
    assert_eq!(
        refused(&mut world, it, Command::SetRole(member, Role::Admin)),
        "it@example.com may not give the role admin: ask an administrator"
    );
    assert!(refused(&mut world, member, Command::SetRole(member, Role::Admin)).contains("may not change roles"));
    let owner = world.owner;
    for command in [
        Command::SetRole(owner, Role::Member),
        Command::SetPassword(owner, PasswordHash("x".into())),
        Command::SuspendUser(owner),
        Command::DeleteUser(owner),
    ] {
        assert!(refused(&mut world, admin, command).contains("admin@example.com: ask the owner"));
    }
    assert!(
        refused(&mut world, it, Command::SetPassword(admin, PasswordHash("x".into()))).contains("ask an administrator")
    );
    assert_eq!(
        refused(&mut world, it, Command::SetRole(member, Role::Auditor)),
        "it@example.com may not give the role auditor: ask an administrator"
    );
    world.run(Actor::User(admin), Command::SetRole(member, Role::Auditor)).unwrap();
}

#[test]
fn the_last_owner_stays() {
    let mut world = World::new();
    let owner = world.owner;
    let says = "admin@example.com is the only owner: make another user the owner first";
    for command in [Command::SetRole(owner, Role::Admin), Command::SuspendUser(owner), Command::DeleteUser(owner)] {
        assert_eq!(world.refused(command), says);
    }
    world.add_user("second@example.com", Role::Owner);
    world.own(Command::SetRole(owner, Role::Admin));
}

#[test]
fn a_deleted_user_takes_their_devices_and_keys_along_and_nothing_else() {
    let mut world = World::new();
    let admin = world.add_user("boss@example.com", Role::Admin);
    let theirs = world.join(1, "theirs", Proof::Confirmed(admin));
    let other = world.join(2, "other", Proof::Confirmed(world.owner));
    let tagged = world.join_tagged(3, "server", "tag:server");
    world.run(Actor::User(admin), Command::CreateAuthKey(auth_key())).unwrap();
    world.make_key(auth_key());
    world.own(Command::DeleteUser(admin));
    assert!(world.home().node(theirs).is_none() && world.home().user(admin).is_none());
    assert!(world.home().node(other).is_some() && world.home().node(tagged).is_some());
    let live: Vec<_> = world.home().auth_keys().filter(|key| key.revoked.is_none() && key.spent.is_none()).collect();
    assert_eq!(live.len(), 1);
}

#[test]
fn a_suspended_user_can_be_restored() {
    let mut world = World::new();
    let member = world.add_user("member@example.com", Role::Member);
    world.own(Command::SuspendUser(member));
    assert_eq!(world.home().user(member).unwrap().status, UserStatus::Suspended);
    world.own(Command::ApproveUser(member));
    assert_eq!(world.home().user(member).unwrap().status, UserStatus::Suspended, "approving is something else");
    world.own(Command::RestoreUser(member));
    assert_eq!(world.home().user(member).unwrap().status, UserStatus::Active);
}

#[test]
fn nobody_takes_over_who_may_do_more() {
    // Whom each role may let sign in anew, rename in rank, keep out and delete. Members and roles that only look or pay
    // touch nobody.
    let touches: [(Role, &[Role]); 7] = [
        (Role::Owner, &Role::ALL),
        (Role::Admin, &Role::ALL[1..]),
        (Role::ItAdmin, &[Role::ItAdmin, Role::Auditor, Role::Member]),
        (Role::NetworkAdmin, &[]),
        (Role::BillingAdmin, &[]),
        (Role::Auditor, &[]),
        (Role::Member, &[]),
    ];
    for (acting, touched) in touches {
        for target in Role::ALL {
            let mut world = World::new();
            let actor = Actor::User(world.add_user("acting@example.com", acting));
            let target_id = world.add_user("target@example.com", target);
            let may = touched.contains(&target);
            for command in [
                Command::SetPassword(target_id, PasswordHash("x".into())),
                Command::SetDisplayName(target_id, "somebody".to_owned()),
                Command::SuspendUser(target_id),
                Command::RestoreUser(target_id),
                Command::SetRole(target_id, Role::Member),
            ] {
                let name = format!("{acting} {target} {command:?}");
                assert_eq!(world.run(actor.clone(), command).is_ok(), may, "{name}");
            }
            let target_id = world.add_user("second@example.com", target);
            assert_eq!(world.run(actor, Command::DeleteUser(target_id)).is_ok(), may, "{acting} deletes {target}");
        }
    }
}

#[test]
fn a_program_gives_no_role_that_may_do_more_than_itself() {
    let mut world = World::new();
    let member = world.add_user("member@example.com", Role::Member);
    let network = world.add_user("network@example.com", Role::NetworkAdmin);
    let users = program(&mut world, &["users"]);
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Member) {
        let refusal = forbidden(&mut world, users.clone(), new_user("new@example.com", role));
        assert!(refusal.contains(&format!("may not give the role {role}")), "{refusal}");
        forbidden(&mut world, users.clone(), Command::SetRole(member, role));
    }
    forbidden(&mut world, users.clone(), Command::SetRole(network, Role::Member));
    forbidden(&mut world, users.clone(), Command::DeleteUser(network));
    world.run(users, new_user("new@example.com", Role::Member)).unwrap();

    let more = program(&mut world, &["users", "all:read", "account_settings"]);
    world.run(more.clone(), Command::SetRole(member, Role::Auditor)).unwrap();
    world.run(more.clone(), Command::SetRole(member, Role::BillingAdmin)).unwrap();
    forbidden(&mut world, more, Command::SetRole(member, Role::ItAdmin));
    let all = program(&mut world, &["all"]);
    forbidden(&mut world, all.clone(), Command::SetRole(member, Role::Admin));
    world.run(all, Command::SetRole(member, Role::NetworkAdmin)).unwrap();
}

#[test]
fn where_users_need_approval_a_program_lets_nobody_in() {
    let mut world = World::new();
    let users = program(&mut world, &["users"]);
    let patch = SettingsPatch { users_approval: Some(true), ..SettingsPatch::default() };
    world.own(Command::UpdateSettings(patch));
    let Ok(Reply::User(made)) = world.run(users.clone(), new_user("new@example.com", Role::Member)) else {
        panic!("a user")
    };
    assert_eq!(world.home().user(made).unwrap().status, UserStatus::NeedsApproval);
    let refusal = forbidden(&mut world, users.clone(), Command::ApproveUser(made));
    assert!(refusal.ends_with("may not let in new@example.com while users need approval: ask an administrator"));
    world.run(users.clone(), Command::SuspendUser(made)).unwrap();
    forbidden(&mut world, users, Command::RestoreUser(made));
    world.own(Command::RestoreUser(made));
    assert_eq!(world.home().user(made).unwrap().status, UserStatus::Active);
    let by_person = world.add_user("person@example.com", Role::Member);
    assert_eq!(world.home().user(by_person).unwrap().status, UserStatus::Active);
}

#[test]
fn settings_are_changed_by_whom_each_of_them_is_entrusted_to() {
    let mut world = World::new();
    let network = Actor::User(world.add_user("network@example.com", Role::NetworkAdmin));
    let it = Actor::User(world.add_user("it@example.com", Role::ItAdmin));
    let link = SettingsPatch { policy_link: Some("https://git.example.com".to_owned()), ..SettingsPatch::default() };
    let days = SettingsPatch { key_duration_days: Some(30), ..SettingsPatch::default() };
    let both = SettingsPatch { policy_link: link.policy_link.clone(), ..days.clone() };
    world.run(network.clone(), Command::UpdateSettings(link.clone())).unwrap();
    world.run(it.clone(), Command::UpdateSettings(days.clone())).unwrap();
    forbidden(&mut world, it.clone(), Command::UpdateSettings(link));
    forbidden(&mut world, network.clone(), Command::UpdateSettings(days));
    forbidden(&mut world, it, Command::UpdateSettings(both.clone()));
    forbidden(&mut world, network, Command::UpdateSettings(both.clone()));
    world.own(Command::UpdateSettings(both));
}

#[test]
fn only_administrators_rename_the_tailnet() {
    for role in Role::ALL {
        let mut world = World::new();
        let actor = Actor::User(world.add_user("acting@example.com", role));
        let names = Command::SetNames { name: Some("other".to_owned()), domain: None };
        assert_eq!(world.run(actor, names).is_ok(), role.is_admin(), "{role}");
    }
}
