//! Users and their roles.

use tailnet::{Actor, Command, LoginName, NewUser, PasswordHash, Proof, Role, UserStatus};

use crate::world::{World, auth_key};

fn new_user(login: &str, role: Role) -> Command {
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
